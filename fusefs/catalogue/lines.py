"""The lines of `sessions.jsonl`; changing one costs time for one, not for all.

They are kept in the order of their slugs, in chunks of some hundred lines. After a change only its chunk
is joined again; readers share the chunks, since `bytes` are immutable.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

CHUNK_LINES: Final = 256


class Lines:
    """A line for each slug, sorted. For one thread at a time."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._firsts: list[str] = []

    def fill(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Replace all lines; the new ones are in the order of their slugs."""
        ordered = list(lines)
        starts = range(0, len(ordered), CHUNK_LINES // 2)
        self._chunks = [_Chunk(ordered[at : at + CHUNK_LINES // 2]) for at in starts]
        self._firsts = [chunk.slugs[0] for chunk in self._chunks]

    def put(self, slug: str, line: bytes) -> None:
        """Add or replace the line of a slug."""
        if not self._chunks:
            self.fill([(slug, line)])
            return
        at = self._chunk_of(slug)
        chunk = self._chunks[at]
        chunk.put(slug, line)
        self._firsts[at] = chunk.slugs[0]
        if len(chunk.slugs) > CHUNK_LINES:
            other = chunk.split()
            self._chunks.insert(at + 1, other)
            self._firsts.insert(at + 1, other.slugs[0])

    def discard(self, slug: str) -> None:
        """Remove the line of a slug, if it has one."""
        if not self._chunks:
            return
        at = self._chunk_of(slug)
        chunk = self._chunks[at]
        chunk.discard(slug)
        if chunk.slugs:
            self._firsts[at] = chunk.slugs[0]
        else:
            del self._chunks[at], self._firsts[at]

    def text(self) -> Text:
        """All lines, as they are now."""
        return Text([chunk.text() for chunk in self._chunks])

    def _chunk_of(self, slug: str) -> int:
        if slug >= self._firsts[-1]:
            return len(self._firsts) - 1
        return max(0, bisect_right(self._firsts, slug) - 1)


class Text:
    """An immutable text in pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        end = min(offset + size, len(self))
        if offset >= end:
            return b""
        first, last = bisect_right(self._ends, offset), bisect_left(self._ends, end)
        joined = b"".join(self._pieces[first : last + 1])
        start = offset - (self._ends[first] - len(self._pieces[first]))
        return joined[start : start + end - offset]


class _Chunk:
    """A chunk of neighbouring lines, separate while they change, joined once somebody reads them."""

    __slots__ = ("_joined", "_lengths", "_lines", "slugs")

    def __init__(self, lines: Sequence[tuple[str, bytes]]) -> None:
        self.slugs = [slug for slug, _ in lines]
        self._lines = [line for _, line in lines]
        """The separate lines; empty while they are joined, to save memory."""
        self._joined = b""
        self._lengths: array[int] = array("I")

    def put(self, slug: str, line: bytes) -> None:
        lines = self._apart()
        at = len(self.slugs) if slug > self.slugs[-1] else bisect_left(self.slugs, slug)
        if at < len(self.slugs) and self.slugs[at] == slug:
            lines[at] = line
        else:
            self.slugs.insert(at, slug)
            lines.insert(at, line)

    def discard(self, slug: str) -> None:
        at = bisect_left(self.slugs, slug)
        if at < len(self.slugs) and self.slugs[at] == slug:
            del self._apart()[at], self.slugs[at]

    def split(self) -> _Chunk:
        """Move the upper half to a new chunk."""
        lines, half = self._apart(), len(self.slugs) // 2
        other = _Chunk(list(zip(self.slugs[half:], lines[half:], strict=True)))
        del self.slugs[half:], lines[half:]
        return other

    def text(self) -> bytes:
        if self._lines:
            self._joined = b"".join(self._lines)
            self._lengths = array("I", map(len, self._lines))
            self._lines = []
        return self._joined

    def _apart(self) -> list[bytes]:
        if not self._lines:
            ends = list(accumulate(self._lengths, initial=0))
            self._lines = [self._joined[start:end] for start, end in pairwise(ends)]
            self._joined = b""
        return self._lines
