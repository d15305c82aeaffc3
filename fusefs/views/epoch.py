"""An epoch: the bytes of one inode of a view, which only ever grow (G13).

The states of an epoch, and what leads from one to the next:

             begin              complete               doubt
     EMPTY --------> BUILDING ------------> CURRENT --------> SUSPECT
       ^                |                   |  ^                |  |
       +----------------+                   |  +----------------+  |
             doubt                          |        adopt         |
                                            +----------+-----------+
                                                       | supersede
                                                       v
                                                  SUPERSEDED

- EMPTY: it shows nothing. A history is first built backwards from its end: then it is CURRENT at once.
- BUILDING: it has its lead and perhaps some lines. Nobody has seen it, so it is rebuilt from its start
  if one of its steps changes or the history turns out to begin elsewhere.
- CURRENT: it shows everything it must up to step `last`.
- SUSPECT: a step that it shows may have changed. A draft is built beside it, which it adopts if what it
  has shown is a prefix of the draft. An EMPTY epoch whose steps change faster than they are read is
  handled the same way.
- SUPERSEDED: what it showed was not a prefix. The view's name leads to its successor; it never changes
  again, and keeps its contents for those who have it open.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, Protocol

from fusefs.views.formats import View
from fusefs.views.spool import Spool
from fusefs.views.text_cache import Segment, TextCache
from storage.session.replay import START, TEXT_BYTES, Boundary, Text, fingerprint

NO_LEAD: Final = fingerprint(b"")
UNDATED: Final = -1


class State(Enum):
    """How far an epoch's bytes can be trusted."""

    EMPTY = "empty"
    BUILDING = "building"
    CURRENT = "current"
    SUSPECT = "suspect"
    SUPERSEDED = "superseded"


class Follower(Protocol):
    """An open file that is notified when an epoch grows or is superseded."""

    @property
    def waits(self) -> bool:
        """Whether it waits for a notification."""

    def grown(self) -> None:
        """The epoch has grown or was superseded."""


_NOBODY: Final[frozenset[Follower]] = frozenset()


class Epoch:
    """The bytes of one inode of one view, as segments.

    Loop-owned. It knows what it shows and up to which step; `fusefs.session.refresh` keeps it up to date
    with the store.
    """

    __slots__ = (
        "_cache", "_followers", "_offsets", "boundary", "dated", "held_as_of", "last",
        "lead_digest", "lead_version", "mtime_ns", "opens", "segments", "size", "spool",
        "state", "view",
    )  # fmt: skip

    def __init__(self, view: View, cache: TextCache) -> None:
        self.view = view
        self.state = State.EMPTY
        self.segments: list[Segment] = []
        self.spool: Spool | None = None
        self.size = 0
        self.boundary: Boundary = START
        """Where the history began when the epoch was last built or extended."""
        self.lead_digest = NO_LEAD
        self.lead_version: Hashable = None
        """The version of the archives from which the lead was last rendered."""
        self.last = 0
        """The number of the last step that was examined."""
        self.mtime_ns = 0
        self.dated = UNDATED
        """Step whose mtime is cached in `mtime_ns`; `UNDATED` if none is."""
        self.opens = 0
        """Open files that show it."""
        self._followers = _NOBODY
        self.held_as_of = -1
        """The value of `TextCache.lost` when all segments were last known to be held."""
        self._cache = cache
        self._offsets: list[int] = []

    @property
    def pinned(self) -> bool:
        """Whether an open file needs the text, whatever happens to the store."""
        return self.opens > 0

    @property
    def last_shown(self) -> int:
        """The number of the last step shown; 0 if there is none."""
        return next((s.shown[-1] for s in reversed(self.segments) if s.shown), 0)

    @property
    def lines(self) -> int:
        """The number of lines it shows."""
        return sum(len(segment.shown) for segment in self.segments)

    @property
    def built(self) -> bool:
        """Whether its contents may be shown."""
        return self.state not in (State.EMPTY, State.BUILDING)

    @property
    def grows(self) -> bool:
        """Whether lines may be appended to it."""
        return self.state in (State.BUILDING, State.CURRENT)

    @property
    def superseded(self) -> bool:
        """Whether the view's name refers to a newer epoch by now."""
        return self.state is State.SUPERSEDED

    def doubt(self) -> None:
        """Something it shows may have changed: compare it before it is shown again."""
        if self.state is State.CURRENT:
            self.state = State.SUSPECT
        elif self.state is State.BUILDING:
            self.reset()

    def reset(self) -> None:
        """Drop its unfinished contents, which nobody has seen."""
        assert not self.built
        self._cache.drop(self)
        self.segments, self._offsets, self.size = [], [], 0
        self._led(START, b"", None)
        self.last = 0
        self.state = State.EMPTY

    def supersede(self) -> None:
        """What it has shown is no longer a prefix of what its view must show."""
        assert self.built
        self.state = State.SUPERSEDED

    def tell(self) -> None:
        """Notify its followers that it has grown or was superseded."""
        for follower in self._followers:
            follower.grown()

    def follow(self, follower: Follower) -> None:
        """Add a follower."""
        self._followers |= {follower}

    def unfollow(self, follower: Follower) -> None:
        """Remove a follower."""
        self._followers = self._followers - {follower} or _NOBODY

    @property
    def waited_for(self) -> bool:
        """Whether a follower waits for a notification."""
        return any(follower.waits for follower in self._followers)

    def extend(self, texts: Iterable[Text]) -> None:
        """Append lines."""
        for text in texts:
            tail = self.segments[-1] if self.segments else None
            if tail is not None and tail.text is not None and self._fits(tail, text):
                whole = tail.text + text.text
                tail.note(text, whole)
                self._cache.keep(self, tail, whole)
            else:
                segment = Segment(self.size, text)
                self.segments.append(segment)
                self._offsets.append(segment.offset)
                self._cache.keep(self, segment, text.text)
            self.size += len(text.text)

    def adopt(self, other: Epoch) -> None:
        """Show what `other` shows, whose bytes begin with this epoch's."""
        assert not self.superseded
        self._cache.drop(self)
        for segment in other.segments:
            text = segment.text
            self._cache.drop(other, [segment])
            if text is not None:
                self._cache.keep(self, segment, text)
        self.segments, self._offsets, self.size = other.segments, other._offsets, other.size
        self.boundary, self.last = other.boundary, other.last
        self.lead_digest, self.lead_version = other.lead_digest, other.lead_version
        self._cache.hand_over(other, self)
        self.dated = UNDATED
        self.state = State.CURRENT

    def begin(self, boundary: Boundary, lead: bytes, version: Hashable) -> None:
        """Start building it after `boundary`, with `lead` and the version from which that comes."""
        self.reset()
        self._led(boundary, lead, version)
        self.last = boundary.number
        self.state = State.BUILDING
        if lead:
            self.extend([Text(boundary.number, boundary.number, array("Q"), lead)])

    def complete(self) -> None:
        """It shows everything that it must: it may be shown to others."""
        assert self.grows
        self.state = State.CURRENT

    def extend_backwards(self, texts: Sequence[Text]) -> None:
        """Prepend lines; `end_backwards` makes it readable."""
        for text in reversed(texts):
            segment = Segment(0, text)
            self.segments.append(segment)
            self._cache.keep(self, segment, text.text)

    def end_backwards(self, boundary: Boundary, lead: bytes, version: Hashable, last: int) -> None:
        """It is complete, up to step `last`: it begins after `boundary` with `lead`."""
        assert self.state is State.EMPTY
        if lead:
            leading = Segment(0, Text(boundary.number, boundary.number, array("Q"), lead))
            self.segments.append(leading)
            self._cache.keep(self, leading, lead)
        self.segments.reverse()
        for segment in self.segments:
            segment.offset = self.size
            self._offsets.append(segment.offset)
            self.size += segment.length
        self._led(boundary, lead, version)
        self.last = last
        self.state = State.CURRENT

    def _led(self, boundary: Boundary, lead: bytes, version: Hashable) -> None:
        self.boundary, self.lead_version = boundary, version
        self.lead_digest = fingerprint(lead)

    def leads_with(self, lead: bytes) -> bool:
        """Whether it begins with `lead`."""
        return fingerprint(lead) == self.lead_digest

    def overlapping(self, start: int, end: int) -> Sequence[Segment]:
        """The segments that hold the bytes from `start` to `end`."""
        first = max(0, bisect_right(self._offsets, start) - 1)
        return self.segments[first : bisect_right(self._offsets, max(start, end - 1))]

    def ranges(self) -> list[tuple[int, int]]:
        """The numbers of the steps shown, in order, as runs."""
        runs: list[tuple[int, int]] = []
        for segment in self.segments:
            for first, last in _runs(segment.shown):
                if runs and runs[-1][1] == first - 1:
                    runs[-1] = (runs[-1][0], last)
                else:
                    runs.append((first, last))
        return runs

    @staticmethod
    def _fits(tail: Segment, text: Text) -> bool:
        """Whether lines may join this segment. The lead stays apart, since it comes from no steps: what
        is rendered again after an eviction is either the lead or lines."""
        return bool(tail.shown) and tail.length + len(text.text) <= TEXT_BYTES


class PrefixCheck:
    """Whether a stream of text begins with what an epoch shows, by the digests of its segments."""

    def __init__(self, epoch: Epoch) -> None:
        self.holds = True
        self._expected = [(segment.length, segment.fingerprint()) for segment in epoch.segments]
        self._expected.reverse()
        self._buffer = b""

    def feed(self, text: bytes) -> None:
        """Take the next bytes of the stream."""
        self._buffer += text
        while self._expected and len(self._buffer) >= self._expected[-1][0]:
            length, digest = self._expected.pop()
            self.holds = self.holds and fingerprint(self._buffer[:length]) == digest
            self._buffer = self._buffer[length:]
        if not self._expected:
            self._buffer = b""

    @property
    def passed(self) -> bool:
        """Whether the stream contained the whole epoch, byte for byte."""
        return self.holds and not self._expected


def _runs(numbers: array[int]) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(numbers):
        first = numbers[at]
        if numbers[-1] - first == len(numbers) - 1 - at:
            end = len(numbers)
        else:
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
                end += 1
        yield first, numbers[end - 1]
        at = end
