"""The epochs of a session: what its history was before each of its compactions (G29, G30).

A history is the entries after the last compaction, so a session of *k* compactions has had *k* + 1
histories, its epochs, counted from 1. The last one is the present history. A closed one is what the
history was just before the compaction that ended it: the replay of all steps with lower numbers, which
`replay` does, given where to stop. What is left to know is the numbers of the compactions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.formats.kinds import NotAStep, classify
from storage.render.lines import nothing
from storage.session.index import Index
from storage.session.reader import LONG_BYTES, NO_STEP, Reader
from storage.session.replay import PASS_BYTES, PASS_STEPS
from storage.session.steps import step_name

DOUBTFUL_STEPS: Final = 4 * PASS_STEPS
"""More changed steps than these are not remembered one by one: everything is looked at again."""


@dataclass(slots=True)
class Epochs:
    """The numbers of a session's compactions, found once and kept as its steps change.

    State with one owner, as the index; between `next_pass` and `found` a thread may read:

        while look := epochs.next_pass(index):
            epochs.found(look, compactions(reader, look.numbers, index.odd))

    Steps never change in the usual case, so that only new ones are looked at (G24). Whoever learns
    that one was removed, replaced or back-filled says so by `changed` (G13).
    """

    _compactions: array[int] = field(default_factory=lambda: array("Q"))
    _reached: int = 0
    """Steps up to this number have been looked at, or are in `_doubtful`."""
    _doubtful: set[int] = field(default_factory=set)
    """Numbers of steps that changed since they were looked at."""
    _generation: int = 0
    """What was looked at before the last `forget` counts no more."""

    def next_pass(self, index: Index) -> Look | None:
        """Which steps to look at now; None if the epochs are those of the index."""
        numbers: Sequence[int]
        if self._doubtful:
            numbers = sorted(self._doubtful)[:PASS_STEPS]
            self._doubtful.difference_update(numbers)
        else:
            numbers = index.between(self._reached + 1, index.greatest, PASS_STEPS)
            if not numbers:
                return None
            self._reached = numbers[-1]
        return Look(self._generation, numbers)

    @property
    def begun(self) -> bool:
        """Whether any step has been looked at, so that what becomes of it must be told."""
        return self._reached > 0

    def found(self, look: Look, seen: Seen) -> None:
        """Take in what a pass over the steps of `look` saw."""
        if look.generation != self._generation:
            return
        for number in look.numbers[: seen.steps]:
            self._remove(number)
        for number in seen.compactions:
            insort(self._compactions, number)
        self._doubtful.update(look.numbers[seen.steps :])

    def failed(self, look: Look) -> None:
        """The steps of `look` could not be read: they are looked at again."""
        self.found(look, Seen(0, ()))

    def changed(self, number: int) -> None:
        """A step of that number was added, replaced or removed."""
        if number > self._reached:
            return
        self._doubtful.add(number)
        if len(self._doubtful) > DOUBTFUL_STEPS:
            self.forget()

    def forget(self) -> None:
        """Look at everything again: which steps changed is not known."""
        self._compactions = array("Q")
        self._reached = 0
        self._doubtful.clear()
        self._generation += 1

    def __len__(self) -> int:
        """How many epochs there are: one more than compactions."""
        return len(self._compactions) + 1

    def last_step(self, epoch: int) -> int | None:
        """The greatest number that belongs to a closed epoch; None for the present one.

        Raises `LookupError` if there is no such epoch.
        """
        if not 1 <= epoch <= len(self):
            raise LookupError(epoch)
        return None if epoch == len(self) else self._compactions[epoch - 1] - 1

    def begins_after(self, epoch: int) -> int:
        """The number of the compaction that an epoch begins after, 0 for the first one.

        Raises `LookupError` if there is no such epoch.
        """
        if not 1 <= epoch <= len(self):
            raise LookupError(epoch)
        return self._compactions[epoch - 2] if epoch > 1 else 0

    def _remove(self, number: int) -> None:
        at = bisect_left(self._compactions, number)
        if at < len(self._compactions) and self._compactions[at] == number:
            del self._compactions[at]


@dataclass(frozen=True, slots=True)
class Look:
    """Steps that are to be looked at."""

    generation: int
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one bounded pass saw: of so many steps, from the first on, these are compactions."""

    steps: int
    compactions: Sequence[int]


def compactions(reader: Reader, numbers: Iterable[int], odd: Mapping[int, Sequence[str]]) -> Seen:
    """Which steps are compactions of either kind; one bounded pass, safe in a thread.

    Raises `OSError` where a step cannot be read, so that no epoch is silently missing.
    """
    found: list[int] = []
    looked = size = 0
    for number in numbers:
        for name in odd.get(number) or (step_name(number),):
            data = _read(reader, name)
            size += len(data)
            if _is_compaction(reader, name, data):
                found.append(number)
                break
        looked += 1
        if size >= PASS_BYTES:
            break
    return Seen(looked, found)


def scan_epochs(reader: Reader, index: Index) -> Epochs:
    """The epochs of a session, all in one go."""
    epochs = Epochs()
    while look := epochs.next_pass(index):
        epochs.found(look, compactions(reader, look.numbers, index.odd))
    return epochs


def _read(reader: Reader, name: str) -> bytes:
    try:
        return reader.read(name)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno not in NO_STEP:
            raise
        return b""


def _is_compaction(reader: Reader, name: str, data: bytes) -> bool:
    # Most steps are none, and need not be parsed: their keys do not occur, written plainly or escaped.
    if b'"archive_name"' not in data and b'"compact"' not in data and b"\\u" not in data:
        return False
    try:
        if len(data) > LONG_BYTES:
            met = reader.meet(reader.ahead([name]), name, nothing, [])
            return met is not None and met[0].kind.is_compaction
        return classify(data).kind.is_compaction
    except NotAStep:
        return False
