"""Views: the files that show a session's steps as text that only ever grows (G13)."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fusefs.views.text_cache import Segment, Spool, TextCache
from storage.formats.kinds import Kind, Step
from storage.render import jsonl as lines
from storage.render import markdown
from storage.session.replay import START, TEXT_BYTES, Boundary, Text


@dataclass(frozen=True, slots=True)
class Manner:
    """How a kind of view makes text of steps."""

    name: str
    show: Callable[[Step], bytes | None]
    history: bool
    """Whether it begins after the last compaction; else it shows every step from the first."""
    lead: Callable[[str, str | None], bytes] | None = None
    """How it begins after a compaction, given the archive's name and its text if known."""


def _entry(show: Callable[[Step], bytes]) -> Callable[[Step], bytes | None]:
    return lambda step: show(step) if step.kind is Kind.ENTRY else None


HISTORY: Final = Manner("history.jsonl", _entry(lambda s: lines.log_line(s.data)), history=True)
MESSAGES: Final = Manner("messages.jsonl", _entry(lines.message_line), True, lines.archive_line)
MARKDOWN: Final = Manner("history.md", _entry(markdown.entry), True, markdown.archive)
LOG: Final = Manner("log.jsonl", lambda s: lines.log_line(s.data), history=False)


class View:
    """The bytes of one inode of one view, as segments.

    Loop-owned. It knows what it shows and up to which step; `fusefs.session.session` makes it follow the
    store.
    """

    def __init__(self, manner: Manner, cache: TextCache) -> None:
        self.manner = manner
        self.segments: list[Segment] = []
        self.spool: Spool | None = None
        self.size = 0
        self.boundary: Boundary = START
        self.lead = b""
        self.last = 0
        """The number of the last step that was examined."""
        self.mtime_ns = 0
        self.dated = -1
        """The number of the step that `mtime_ns` is of."""
        self.built = False
        self.suspect = False
        """Something it shows may have changed: it must be compared before it is shown again."""
        self.superseded = False
        self.opens = 0
        self.held_as_of = -1
        """What `TextCache.lost` was when the text of all segments was last known to be held."""
        self._cache = cache
        self._offsets: list[int] = []

    @property
    def pinned(self) -> bool:
        """Whether an open file needs the text, whatever becomes of the store."""
        return self.opens > 0

    @property
    def last_shown(self) -> int:
        """The number of the last step that is shown, 0 if none is."""
        return next((s.shown[-1] for s in reversed(self.segments) if s.shown), 0)

    def extend(self, texts: Iterable[Text]) -> None:
        """Append lines."""
        for text in texts:
            tail = self.segments[-1] if self.segments else None
            if tail is not None and tail.text is not None and self._fits(tail, text):
                whole = tail.text + text.text
                tail.note(text)
                self._cache.keep(self, tail, whole)
            else:
                segment = Segment(self.size, text)
                self.segments.append(segment)
                self._offsets.append(segment.offset)
                self._cache.keep(self, segment, text.text)
            self.size += len(text.text)

    def adopt(self, other: View) -> None:
        """Show what `other` shows, whose bytes begin with this view's."""
        self._cache.drop(self)
        for segment in other.segments:
            text = segment.text
            self._cache.drop(other, [segment])
            if text is not None:
                self._cache.keep(self, segment, text)
        self.segments, self._offsets, self.size = other.segments, other._offsets, other.size
        self.boundary, self.lead, self.last = other.boundary, other.lead, other.last
        self.spool, other.spool = other.spool, None
        self.dated = -1

    def begin(self, boundary: Boundary, lead: bytes) -> None:
        """Start empty, after `boundary`, with the text that leads the view."""
        self.boundary, self.lead, self.last = boundary, lead, boundary.number
        self._cache.drop(self)
        self.segments, self._offsets, self.size = [], [], 0
        if lead:
            self.extend([Text(boundary.number, boundary.number, array("Q"), lead)])

    def extend_backwards(self, texts: Sequence[Text]) -> None:
        """Put lines before what is shown; `end_backwards` makes the view readable."""
        for text in reversed(texts):
            segment = Segment(0, text)
            self.segments.append(segment)
            self._cache.keep(self, segment, text.text)

    def end_backwards(self, boundary: Boundary, lead: bytes, last: int) -> None:
        """The view is complete: it begins after `boundary` with `lead`."""
        if lead:
            leading = Segment(0, Text(boundary.number, boundary.number, array("Q"), lead))
            self.segments.append(leading)
            self._cache.keep(self, leading, lead)
        self.segments.reverse()
        for segment in self.segments:
            segment.offset = self.size
            self._offsets.append(segment.offset)
            self.size += segment.length
        self.boundary, self.lead, self.last = boundary, lead, last

    def overlapping(self, start: int, end: int) -> Sequence[Segment]:
        """The segments that hold the bytes from `start` to `end`."""
        first = max(0, bisect_right(self._offsets, start) - 1)
        return self.segments[first : bisect_right(self._offsets, max(start, end - 1))]

    def ranges(self) -> list[tuple[int, int]]:
        """The numbers of the steps that are shown, in order, as runs."""
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
        return tail.length + len(text.text) <= TEXT_BYTES


class PrefixCheck:
    """Whether a stream of text begins with what a view shows, told by the digests of its segments."""

    def __init__(self, view: View) -> None:
        self.holds = True
        self._expected = [(segment.length, segment.digest.digest()) for segment in view.segments]
        self._expected.reverse()
        self._buffer = b""

    def feed(self, text: bytes) -> None:
        """Take the next bytes of the stream."""
        self._buffer += text
        while self._expected and len(self._buffer) >= self._expected[-1][0]:
            length, digest = self._expected.pop()
            self.holds = self.holds and _digest(self._buffer[:length]) == digest
            self._buffer = self._buffer[length:]
        if not self._expected:
            self._buffer = b""

    @property
    def passed(self) -> bool:
        """Whether the whole of the view was met, byte for byte."""
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


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
