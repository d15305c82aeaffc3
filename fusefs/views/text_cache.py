"""The text of epochs: segments, the memory they share, and what is spooled.

Memory is bounded (G23): unused text is evicted, and rendered from the steps again when needed. Two kinds
are first written to an unlinked spool file: text that an open file shows, because the store may lose
the steps while the file must keep showing them (G13, G20), and text that does not fit into memory even
alone, because it was rendered to learn its size, and the open that follows would render it once more.
Writing takes a thread, so such text is only marked as owed to the spool, and `settle` writes it: callers
that have added text await that before going on.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from fusefs.turn import Turn
from fusefs.views.spool import Spool
from fusefs.work import Work
from storage.session.replay import DIGEST_BYTES, Text, fingerprint

SPOOL_FACTOR: Final = 16
"""Spools of files that nobody has open may take this many times the memory limit."""
SHORT_BYTES: Final = 4096
"""A text shorter than this is hashed again from its start whenever it grows."""

log: Final = logging.getLogger(__name__)


class Segment:
    """A part of an epoch's bytes: its position, the steps it shows, and its text if that is held."""

    __slots__ = ("_digest", "first", "last", "length", "offset", "shown", "spooled_at", "text")

    def __init__(self, offset: int, text: Text) -> None:
        self.offset = offset
        self.length = len(text.text)
        self.first = text.first
        self.last = text.last
        self.shown: array[int] = text.shown
        self._digest: hashlib.blake2b | bytes = text.fingerprint
        """Digest of the text; for a long one the hash state, which takes ten times the memory."""
        self.text: bytes | None = None
        self.spooled_at: int | None = None

    @property
    def held(self) -> bool:
        """Whether the text is available without the store."""
        return self.text is not None or self.spooled_at is not None

    def fingerprint(self) -> bytes:
        """As `storage.session.replay.fingerprint`, of its text."""
        return self._digest if isinstance(self._digest, bytes) else self._digest.digest()

    def note(self, text: Text, whole: bytes) -> None:
        """Add lines, after which its text is `whole`; that is then given to `TextCache.keep`."""
        if len(whole) <= SHORT_BYTES:
            self._digest = fingerprint(whole)
        elif isinstance(self._digest, bytes):
            self._digest = hashlib.blake2b(whole, digest_size=DIGEST_BYTES)
        else:
            self._digest.update(text.text)
        self.length += len(text.text)
        self.last = text.last
        self.shown.extend(text.shown)
        self.spooled_at = None


class Holder(Protocol):
    """An owner of segments: an epoch."""

    segments: list[Segment]
    spool: Spool | None

    @property
    def pinned(self) -> bool:
        """Whether the text is needed even if the store loses it."""


class TextCache:
    """The segments in memory, least recently used first. Loop-owned."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Limit of the bytes of text in memory, not counting text that is yet to be spooled."""
        self.bytes = 0
        self.lost = 0
        """Counts evictions of text that is then only in the store."""
        self.hits = 0
        self.misses = 0
        self._held: OrderedDict[Segment, Holder] = OrderedDict()
        self._owed: dict[Segment, Holder] = {}
        """Text over the limit that must be spooled before it can be evicted."""
        self._spooled: OrderedDict[Holder, None] = OrderedDict()
        self._spooling = Turn()
        self._work = Work(near=True)
        """Threads for spools, which are on this machine: they never wait for the store."""

    def keep(self, holder: Holder, segment: Segment, text: bytes) -> None:
        """Hold `text` as the text of `segment`, making room for it."""
        self.bytes += len(text) - self._size(segment)
        segment.text = text
        self._held[segment] = holder
        self._held.move_to_end(segment)
        self._make_room(segment, holder)

    async def settle(self) -> None:
        """Spool the text that is owed, so that memory is within its limit again."""
        while self._owed and self.bytes > self.limit:
            async with self._spooling:
                if self._owed:
                    segment = next(iter(self._owed))
                    await self._spool(self._owed.pop(segment), segment)

    async def text(self, holder: Holder, segment: Segment) -> bytes | None:
        """The text of `segment` if it is in memory or spooled."""
        if segment.text is not None:
            self.hits += 1
            if segment in self._held:
                self._held.move_to_end(segment)
            return segment.text
        self.misses += 1
        at, length, spool = segment.spooled_at, segment.length, holder.spool
        if at is None or spool is None:
            return None
        with spool:
            text = await self._work.long(spool, spool.read, at, length)
        if segment.spooled_at == at and segment.length == length:
            self.keep(holder, segment, text)
            await self.settle()
        return text

    def drop(self, holder: Holder, segments: Sequence[Segment] | None = None) -> None:
        """Drop the text of `segments`; if None, of all the holder's, and its spool."""
        self.lost += 1
        for segment in holder.segments if segments is None else segments:
            self._let_go(segment)
        if segments is None and holder.spool is not None:
            self._close_spool(holder)

    def unpinned(self, holder: Holder) -> None:
        """The holder's last file was closed: its spool may be dropped when room is needed."""
        for segment in holder.segments:
            if segment in self._owed:
                self._let_go(segment)
                self.lost += 1
        if holder.spool is not None:
            self._limit_spools(holder)

    def _let_go(self, segment: Segment) -> None:
        self.bytes -= self._size(segment)
        self._held.pop(segment, None)
        self._owed.pop(segment, None)
        segment.text = None

    def _size(self, segment: Segment) -> int:
        held = self._holder(segment) is not None
        return len(segment.text) if held and segment.text is not None else 0

    def hand_over(self, holder: Holder, successor: Holder) -> None:
        """Give the spool of `holder` to `successor`, which has its segments by now and no spool."""
        successor.spool, holder.spool = holder.spool, None
        if holder in self._spooled:
            del self._spooled[holder]
            self._spooled[successor] = None

    def _limit_spools(self, latest: Holder) -> None:
        """Drop spools of holders without open files, the oldest first; `latest` has the newest."""
        self._spooled[latest] = None
        self._spooled.move_to_end(latest)
        idle = [
            (old, old.spool) for old in self._spooled if not old.pinned and old.spool is not None
        ]
        over = sum(spool.size for _, spool in idle) - SPOOL_FACTOR * self.limit
        for old, spool in idle:
            if over <= 0:
                break
            over -= spool.size
            self._close_spool(old)

    def _make_room(self, spared: Segment, growing: Holder) -> None:
        self._owed.pop(spared, None)
        over = self.bytes - sum(len(s.text) for s in self._owed if s.text is not None)
        while over > self.limit and len(self._held) > 1:
            segment, holder = self._held.popitem(last=False)
            if segment is spared:
                self._held[segment] = holder
                continue
            assert segment.text is not None
            over -= len(segment.text)
            if segment.spooled_at is None and (holder.pinned or self._exceeds(holder, growing)):
                self._owed[segment] = holder
                continue
            self.bytes -= len(segment.text)
            segment.text = None
            self.lost += segment.spooled_at is None

    def _exceeds(self, holder: Holder, growing: Holder) -> bool:
        """Whether the text of `holder` does not fit into memory even alone, but into a spool."""
        if holder is not growing:
            return False
        if holder.spool is None:  # so few have one that descriptors do not run out
            return sum(segment.length for segment in holder.segments) > self.limit
        return holder.spool.size < SPOOL_FACTOR * self.limit

    async def _spool(self, holder: Holder, segment: Segment) -> None:
        """Spool the text of a segment; if that fails it stays in memory as long as a file is open.

        Meanwhile the segment may grow, be dropped, or be handed over with the spool to another holder.
        """
        text = segment.text
        assert text is not None
        self._held[segment] = holder
        spool = holder.spool = holder.spool or Spool()
        try:
            with spool:
                at = await self._work.long(spool, spool.write, text)
        except OSError as error:
            self._not_spooled(segment, error)
            return
        owner = self._holder(segment)
        if owner is not None and owner.spool is spool and segment.text is text:
            segment.spooled_at = at
            self._let_go(segment)
            if not owner.pinned:
                self._limit_spools(owner)

    def _not_spooled(self, segment: Segment, error: OSError) -> None:
        holder = self._holder(segment)
        if holder is None:
            return
        if not holder.pinned:
            self._let_go(segment)
            self.lost += 1
            return
        log.warning("text of an open file stays in memory, it could not be spooled: %s", error)
        self._held.update(self._owed)
        self._owed.clear()

    def _holder(self, segment: Segment) -> Holder | None:
        """Whose segment it is by now; None if its text is not in memory any more."""
        return self._held.get(segment) or self._owed.get(segment)

    def _close_spool(self, holder: Holder) -> None:
        assert holder.spool is not None
        self.lost += 1
        holder.spool.close()
        holder.spool = None
        self._spooled.pop(holder, None)
        for segment in holder.segments:
            segment.spooled_at = None
