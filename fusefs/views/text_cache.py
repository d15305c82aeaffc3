"""The text of views: segments, the memory they share, and what is spooled.

Memory is bounded (G23): text that is not used is let go, to be rendered from the steps again. Text
that an open file shows is written to an unlinked spool file instead, because the store may lose the
steps while the file must keep showing them (G13, G20).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from storage.session.replay import Text

SPOOL_FACTOR: Final = 16
"""Spools of files that nobody has open are kept up to this many times the memory limit."""

log: Final = logging.getLogger(__name__)


class Segment:
    """A stretch of a view's bytes: where it is, which steps it shows, and its text if it is held."""

    __slots__ = ("digest", "first", "last", "length", "offset", "shown", "spooled_at", "text")

    def __init__(self, offset: int, text: Text) -> None:
        self.offset = offset
        self.length = len(text.text)
        self.first = text.first
        self.last = text.last
        self.shown: array[int] = text.shown
        self.digest = hashlib.blake2b(text.text, digest_size=16)
        self.text: bytes | None = None
        self.spooled_at: int | None = None

    @property
    def held(self) -> bool:
        """Whether the text can be had without the store."""
        return self.text is not None or self.spooled_at is not None

    def is_text(self, text: bytes) -> bool:
        """Whether `text` is the text of this segment."""
        digest = hashlib.blake2b(text, digest_size=16).digest()
        return len(text) == self.length and digest == self.digest.digest()

    def note(self, text: Text) -> None:
        """Count in the lines that follow; `TextCache.keep` takes the text itself."""
        self.digest.update(text.text)
        self.length += len(text.text)
        self.last = text.last
        self.shown.extend(text.shown)
        self.spooled_at = None


class Spool:
    """An unlinked file that keeps the text of one view."""

    def __init__(self) -> None:
        self._fd, path = tempfile.mkstemp(prefix="stepfs-", dir=_spool_directory())
        os.unlink(path)
        self.size = 0

    def write(self, text: bytes) -> int:
        """Keep `text`; where it is. Raises `OSError`, such as ENOSPC."""
        at, view = self.size, memoryview(text)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            view, self.size = view[written:], self.size + written
        return at

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes kept at `at`."""
        return os.pread(self._fd, length, at)

    def close(self) -> None:
        """Let the text go."""
        os.close(self._fd)


def _spooled(holder: Holder, segment: Segment) -> bool:
    """Spool the text of a segment; where that fails it has to stay in memory."""
    assert segment.text is not None
    try:
        holder.spool = holder.spool or Spool()
        segment.spooled_at = holder.spool.write(segment.text)
    except OSError as error:
        log.warning("text of an open file stays in memory, it could not be spooled: %s", error)
        return False
    return True


def _spool_directory() -> str | None:
    # /tmp is often memory, which the spool is there to spare.
    return None if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK) else "/var/tmp"


class Holder(Protocol):
    """Who owns segments: a view."""

    segments: list[Segment]
    spool: Spool | None

    @property
    def pinned(self) -> bool:
        """Whether the text must outlive the store's own."""


class TextCache:
    """Which segments are in memory, least recently used first; loop-owned, nothing in it waits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.lost = 0
        """Grows whenever text is let go that only the store has then."""
        self.hits = 0
        self.misses = 0
        self._held: OrderedDict[Segment, Holder] = OrderedDict()
        self._spooled: OrderedDict[Holder, None] = OrderedDict()

    def keep(self, holder: Holder, segment: Segment, text: bytes) -> None:
        """Hold `text` as the text of `segment`, making room for it."""
        self.bytes += len(text) - self._size(segment)
        segment.text = text
        self._held[segment] = holder
        self._held.move_to_end(segment)
        self._make_room(segment)

    def text(self, holder: Holder, segment: Segment) -> bytes | None:
        """The text of `segment` if it is in memory or spooled."""
        if segment.text is not None:
            self.hits += 1
            if segment in self._held:
                self._held.move_to_end(segment)
            return segment.text
        self.misses += 1
        if segment.spooled_at is not None and holder.spool is not None:
            text = holder.spool.read(segment.spooled_at, segment.length)
            self.keep(holder, segment, text)
            return text
        return None

    def drop(self, holder: Holder, segments: Sequence[Segment] | None = None) -> None:
        """Let go of the text of `segments` (all of the holder's, with its spool, if None)."""
        self.lost += 1
        for segment in holder.segments if segments is None else segments:
            self.bytes -= self._size(segment)
            self._held.pop(segment, None)
            segment.text = None
        if segments is None and holder.spool is not None:
            self._close_spool(holder)

    def unpinned(self, holder: Holder) -> None:
        """Nobody has the holder's file open any more: its spool may go when room is needed."""
        if holder.spool is None:
            return
        self._spooled[holder] = None
        kept = sum(spool.spool.size for spool in self._spooled if spool.spool is not None)
        for old in list(self._spooled):
            if kept <= SPOOL_FACTOR * self.limit:
                break
            if not old.pinned and old.spool is not None:
                kept -= old.spool.size
                self._close_spool(old)

    def _size(self, segment: Segment) -> int:
        return len(segment.text) if segment in self._held and segment.text is not None else 0

    def _make_room(self, spared: Segment) -> None:
        while self.bytes > self.limit and len(self._held) > 1:
            segment, holder = self._held.popitem(last=False)
            if segment is spared:
                self._held[segment] = holder
                continue
            assert segment.text is not None
            if holder.pinned and segment.spooled_at is None and not _spooled(holder, segment):
                self._held[segment] = holder
                break
            self.bytes -= len(segment.text)
            segment.text = None
            self.lost += segment.spooled_at is None

    def _close_spool(self, holder: Holder) -> None:
        assert holder.spool is not None
        self.lost += 1
        holder.spool.close()
        holder.spool = None
        self._spooled.pop(holder, None)
        for segment in holder.segments:
            segment.spooled_at = None
