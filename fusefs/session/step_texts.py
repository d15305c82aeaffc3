"""The texts of steps that may have to be stored again, spooled to disk if they are many or long (G16).

All sessions of a mount share them: the latest are in memory, the rest in one unlinked spool file. A text
is identified by its address. Addresses ascend and are never reused, so that they also give the order of
texts.

The spool takes at most `SPOOL_BYTES` of disk. Beyond that, or if the disk is full, texts are kept in
memory up to `MEMORY_BYTES`, and further ones are dropped: if such a step is displaced it is lost, which
is reported.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fusefs.views.spool import Spool
from fusefs.work import Work

SETTLED_BYTES: Final = 4 << 20
"""Above this many bytes in memory, all texts are spooled."""
MEMORY_BYTES: Final = 32 << 20
"""Limit of bytes in memory if the spool takes no more."""
SPOOL_BYTES: Final = 8 << 30
"""Limit of bytes on disk."""

log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Extent:
    """A part of the spool that was written at once; it is freed when no text in it is needed."""

    start: int
    """Address of its first byte."""
    end: int
    """Address after its last byte."""
    live: int
    """Bytes of the texts in it that are still kept."""


class StepTexts:
    """Keeps texts under ascending addresses. Loop-owned."""

    def __init__(self, spool_bytes: int = SPOOL_BYTES) -> None:
        """`spool_bytes` limits the space taken on disk."""
        self._spool_bytes = spool_bytes
        self._end = 0
        """The address of the next text."""
        self._memory: dict[int, bytes] = {}
        """Texts in memory, by ascending address."""
        self._memory_bytes = 0
        """The bytes of all texts in memory."""
        self._extents: list[_Extent] = []
        """The parts of the spool in use, by ascending address."""
        self._spool = Spool()
        self._settling = False
        """Whether texts are being spooled."""
        self._failing = False
        """Whether the last attempt to spool failed."""
        self._work = Work(near=True)
        """Threads for the spool, which is on this machine: they never wait for the store."""

    @property
    def size(self) -> int:
        """Bytes kept, in memory and in the spool."""
        return self._memory_bytes + self._spooled

    @property
    def _spooled(self) -> int:
        return sum(extent.end - extent.start for extent in self._extents)

    def keep(self, text: bytes) -> int:
        """Keep a text if there is room, and return its address."""
        at = self._end
        self._end += len(text)
        if self._memory_bytes + len(text) <= MEMORY_BYTES or not self._memory:
            self._memory[at] = text
            self._memory_bytes += len(text)
        return at

    def free(self, at: int, length: int) -> None:
        """The text at this address, of this length, is no longer needed."""
        if self._memory.pop(at, None) is not None:
            self._memory_bytes -= length
        extent = self._extent(at)
        if extent is not None:
            extent.live -= length
            self._give_back(extent)

    async def read(self, places: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """The texts at these addresses, of these lengths; None for one that was dropped or freed."""
        found = [self._memory.get(at) for at, _ in places]
        spooled = [n for n, (at, _) in enumerate(places) if found[n] is None and self._extent(at)]
        if spooled:
            with self._spool as spool:
                texts = await self._work.long(self, _read, spool, [places[n] for n in spooled])
            for n, text in zip(spooled, texts, strict=True):
                found[n] = text
        return found

    async def settle(self) -> None:
        """Spool the texts in memory if they are too many. Callers of `keep` await this afterwards."""
        if self._memory_bytes <= SETTLED_BYTES or self._settling:
            return
        if self._spooled + self._memory_bytes > self._spool_bytes:
            return
        self._settling = True
        texts = dict(self._memory)
        extent = _Extent(min(texts), self._end, sum(map(len, texts.values())))
        self._extents.append(extent)
        try:
            await self._work.long(self, self._write, texts)
        except BaseException as error:
            self._extents.remove(extent)
            if not isinstance(error, OSError):
                raise
            if not self._failing:
                log.warning("texts of new steps stay in memory, not spooled: %s", error)
            self._failing = True
            return
        finally:
            self._settling = False
        self._failing = False
        for at, text in texts.items():
            if self._memory.pop(at, None) is not None:
                self._memory_bytes -= len(text)
        for unneeded in [extent for extent in self._extents if extent.live <= 0]:
            self._give_back(unneeded)

    def _give_back(self, extent: _Extent) -> None:
        if extent.live > 0 or self._settling:
            return
        self._extents.remove(extent)
        self._spool.punch(extent.start, extent.end - extent.start)

    def _write(self, texts: Mapping[int, bytes]) -> None:
        run: list[bytes] = []
        start = end = 0
        for at, text in texts.items():
            if at != end and run:
                self._spool.put(start, b"".join(run))
                run = []
            if not run:
                start = at
            run.append(text)
            end = at + len(text)
        self._spool.put(start, b"".join(run))

    def _extent(self, at: int) -> _Extent | None:
        place = bisect_right(self._extents, at, key=lambda extent: extent.start) - 1
        if place < 0 or at >= self._extents[place].end:
            return None
        return self._extents[place]

    def close(self) -> None:
        """Drop all texts and close the spool."""
        self._memory.clear()
        self._extents.clear()
        self._spool.close()


def _read(spool: Spool, places: Sequence[tuple[int, int]]) -> list[bytes | None]:
    texts: list[bytes | None] = []
    for at, length in places:
        text = spool.read(at, length)
        # A text that begins with a zero byte was freed: no document does.
        texts.append(text if len(text) == length and text[:1] != b"\0" else None)
    return texts
