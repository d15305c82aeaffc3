"""Replay: from step files to the lines that a view shows.

The history begins after the last compaction, so that is searched from the greatest number down, and
steps before it are never opened (G24). Each pass is bounded in steps and bytes, so that a caller can
run it in a thread and do other work in between (G23). Nothing here keeps state between passes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from storage.formats.dialects import has_blocks
from storage.render.lines import nothing
from storage.session.index import Index
from storage.session.reader import Met, Read, Reader, Show, Skipped
from storage.session.steps import NUMBER_MAX, LongStep, step_name

PASS_STEPS: Final = 2048
PASS_BYTES: Final = 4 << 20
TEXT_BYTES: Final = 128 << 10
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a history begins: the number of the last compaction (0: none) and its archive's name."""

    number: int
    archive: str | None


START: Final = Boundary(0, None)


def fingerprint(text: bytes) -> bytes:
    """A digest that identifies a text."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


@dataclass
class Text:
    """Consecutive lines of a view, from the steps `first` to `last` (both examined)."""

    first: int
    last: int
    shown: array[int]
    """The number of the step behind each line."""
    text: bytes

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.text)
        """Computed here, in the thread that renders the text: a long one takes time."""


@dataclass(slots=True)
class Pass:
    """What one bounded pass over steps found."""

    texts: list[Text] = field(default_factory=list)
    """In step order."""
    boundary: Boundary | None = None
    """The compaction found; forwards, the last of several, and `texts` is what follows it."""
    reached: int | None = None
    """The number of the last step that was examined, in the direction of the pass."""
    skipped: Skipped = field(default_factory=list)


class _Gathering:
    """One pass: collects the lines of the steps it examines into texts of about `TEXT_BYTES`."""

    def __init__(
        self,
        reader: Reader,
        show: Show,
        odd: Mapping[int, Sequence[str]],
        *,
        backwards: bool,
    ) -> None:
        self.found = Pass()
        self.boundaries = True
        """Whether compactions count, or are shown like other steps."""
        self._reader = reader
        self._meet = reader.meet
        self._show = show
        self._odd = odd
        self._backwards = backwards
        self._lines: list[bytes] = []
        self._shown: array[int] = array("Q")
        self._edge: int | None = None
        self._held = 0
        self._bytes = 0

    def run(self, numbers: Sequence[int]) -> Pass:
        """Examine the steps in this order, until the pass is full."""
        read = self._reader.ahead(name for number in numbers for name in self._names(number))
        for number in numbers:
            if not self._examine(number, read):
                break
        self._close_text()
        if self._backwards:
            self.found.texts.reverse()
        return self.found

    def _names(self, number: int) -> Sequence[str]:
        names = self._odd.get(number)
        if names is None:
            return (step_name(number),)
        return names[::-1] if self._backwards else names

    def _examine(self, number: int, read: Read) -> bool:
        """Examine every name of `number`; whether the pass continues."""
        show, skipped = self._show, self.found.skipped
        try:
            if number in self._odd:
                met = [self._meet(read, name, show, skipped) for name in self._names(number)]
                # A boundary is a number, so what shares that of a compaction is before it.
                met = (self.boundaries and _compactions(met)) or met
            else:  # the usual case, kept fast since this runs for every step
                met = [self._meet(read, f"step-{number:06}", show, skipped)]
        except LongStep:
            if self.found.reached is None:
                raise
            return False
        for each in met:
            if each is None:
                continue
            step, line = each
            if step.kind.is_compaction and self.boundaries:
                self.found.boundary = Boundary(number, step.archive)
                if self._backwards:
                    return False
                self._start_again()
            elif line is not None:
                self._lines.append(line)
                self._shown.append(number)
                self._held += len(line)
        self.found.reached = number
        if self._edge is None:
            self._edge = number
        if self._held >= TEXT_BYTES:
            self._close_text()
        return self._held + self._bytes < PASS_BYTES

    def _close_text(self) -> None:
        """End a text. Allowed only when every name of the last number was examined."""
        if self._edge is None or self.found.reached is None:
            return
        if self._lines:
            if self._backwards:
                self._lines.reverse()
                self._shown.reverse()
            first, last = sorted((self._edge, self.found.reached))
            self.found.texts.append(Text(first, last, self._shown, b"".join(self._lines)))
        self._bytes += self._held
        self._lines, self._shown, self._edge, self._held = [], array("Q"), None, 0

    def _start_again(self) -> None:
        """Drop what was gathered: a compaction was found going forwards."""
        self._bytes += self._held
        self._lines, self._shown, self._held = [], array("Q"), 0
        self.found.texts.clear()


def _compactions(met: Sequence[Met | None]) -> list[Met | None]:
    return [each for each in met if each is not None and each[0].kind.is_compaction]


def forwards(
    reader: Reader,
    numbers: Sequence[int],
    odd: Mapping[int, Sequence[str]],
    show: Show,
    compactions: bool,
) -> Pass:
    """Read steps upwards, until the pass is full.

    With `compactions` a compaction starts the history over; without, it is shown like any step.
    Raises `OSError` if a step cannot be read, so that no view silently lacks one, and `LongStep` as
    `Reader.meet` does.
    """
    gathering = _Gathering(reader, show, odd, backwards=False)
    gathering.boundaries = compactions
    return gathering.run(numbers)


def backwards(
    reader: Reader, numbers: Sequence[int], odd: Mapping[int, Sequence[str]], show: Show
) -> Pass:
    """Read steps downwards, until a compaction is found or the pass is full. Raises as `forwards`."""
    return _Gathering(reader, show, odd, backwards=True).run(numbers[::-1])


def find_boundary(reader: Reader, index: Index, below: int | None = None) -> Boundary:
    """Find the last compaction of a session, or the last one before step `below`."""
    end = index.greatest + 1 if below is None else below
    while numbers := index.before(end, PASS_STEPS):
        found = backwards(reader, numbers, index.odd, nothing)
        if found.boundary is not None:
            return found.boundary
        end = numbers[0]
    return START


class Form(NamedTuple):
    """The form of the message that an archive becomes (G2)."""

    in_blocks: bool | None
    """Whether it should have content blocks; None if there is no entry that decides it."""
    reach: int
    """The number of the last step on which that depends; `NUMBER_MAX` without an entry."""


def archive_form(reader: Reader, index: Index, boundary: Boundary) -> Form:
    """The form of an archive's message, which is that of the last entry before the compaction, or if
    there is none of the first one after it (G2)."""
    before = _last_message(reader, index, boundary.number)
    if before is not None:
        return Form(has_blocks(before), boundary.number)
    numbers = index.between(boundary.number + 1, index.greatest, len(index.numbers))
    for number in numbers:
        if (after := _first_entry(reader, index.names(number))) is not None:
            return Form(has_blocks(after), number)
    return Form(None, NUMBER_MAX)


def _last_message(reader: Reader, index: Index, end: int) -> Any:
    while numbers := index.before(end, PASS_STEPS):
        names = (name for number in reversed(numbers) for name in reversed(index.names(number)))
        if (message := _first_entry(reader, names)) is not None:
            return message
        end = numbers[0]
    return None


def _first_entry(reader: Reader, names: Iterable[str]) -> Any:
    """The message of the first entry among these steps; None if there is none."""
    for name in names:
        try:
            met = reader.meet(reader.ahead([name]), name, nothing, [])
        except LongStep:
            continue  # any other entry will do
        if met is not None and met[0].kind.is_entry:
            return met[0].value["message"]
    return None
