"""The epochs of a session: its history before each of its compactions (G29, G30).

A history is the entries after the last compaction, so a session with *k* compactions has had *k* + 1
histories. These are its epochs, counted from 1; the last one is the present history. A closed epoch is
the history just before the compaction that ended it: the replay of all steps with lower numbers, for
which `replay` only needs the numbers of the compactions. This module finds them.
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
"""If more steps than this have changed, they are not tracked one by one: all are examined again."""


@dataclass(slots=True)
class Epochs:
    """The numbers of a session's compactions, found once and kept up to date.

    State with one owner, like the index; between `next_pass` and `found` a thread may read:

        while look := epochs.next_pass(index):
            epochs.found(look, compactions(reader, look.numbers, index.odd))

    Steps do not normally change, so only new ones are examined (G24). A caller that learns that one
    was removed, replaced or back-filled calls `changed` (G13).
    """

    _compactions: array[int] = field(default_factory=lambda: array("Q"))
    """Numbers of the compactions found so far, ascending."""
    _reached: int = 0
    """Steps up to this number have been examined, or are in `_doubtful`."""
    _doubtful: set[int] = field(default_factory=set)
    """Numbers of steps that have changed since they were examined."""
    _generation: int = 0
    """Counts calls of `forget`, so that the result of a pass that began before one is dropped."""

    def next_pass(self, index: Index) -> Look | None:
        """The steps to examine next; None if the epochs are up to date with the index."""
        if numbers := index.between(self._reached + 1, index.greatest, PASS_STEPS):
            self._reached = numbers[-1]
            return Look(self._generation, numbers, again=False)
        if not self._doubtful:
            return None
        numbers = sorted(self._doubtful)[:PASS_STEPS]
        self._doubtful.difference_update(numbers)
        return Look(self._generation, numbers, again=True)

    @property
    def begun(self) -> bool:
        """Whether any step has been examined, so that changes must be reported."""
        return self._reached > 0

    def found(self, look: Look, seen: Seen) -> None:
        """Record what a pass over the steps of `look` has seen."""
        if look.generation != self._generation:
            return
        for number in look.numbers[: seen.steps]:
            self._remove(number)
        for number in seen.compactions:
            insort(self._compactions, number)
        left = look.numbers[seen.steps :]
        if left and not look.again and self._reached == look.numbers[-1]:
            self._reached = left[0] - 1  # they are next
        else:
            self._doubtful.update(left)

    def failed(self, look: Look) -> None:
        """The steps of `look` could not be read: have them examined again."""
        self.found(look, Seen(0, ()))

    def changed(self, number: int) -> None:
        """Step `number` was added, replaced or removed."""
        if number > self._reached:
            return
        self._doubtful.add(number)
        if len(self._doubtful) > DOUBTFUL_STEPS:
            self.forget()

    def forget(self) -> None:
        """Start over: it is not known which steps have changed."""
        self._compactions = array("Q")
        self._reached = 0
        self._doubtful.clear()
        self._generation += 1

    def __len__(self) -> int:
        """The number of epochs: one more than there are compactions."""
        return len(self._compactions) + 1

    def last_step(self, epoch: int) -> int | None:
        """The greatest step number in a closed epoch; None for the present one.

        Raises `LookupError` if there is no such epoch.
        """
        if not 1 <= epoch <= len(self):
            raise LookupError(epoch)
        return None if epoch == len(self) else self._compactions[epoch - 1] - 1

    def begins_after(self, epoch: int) -> int:
        """The number of the compaction after which an epoch begins; 0 for the first one.

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
    """The steps to examine in one pass."""

    generation: int
    numbers: Sequence[int]
    again: bool
    """Whether they have changed since they were examined."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of one bounded pass: the compactions among the first `steps` steps of the look."""

    steps: int
    compactions: Sequence[int]


def compactions(reader: Reader, numbers: Iterable[int], odd: Mapping[int, Sequence[str]]) -> Seen:
    """Find compactions of either kind among `numbers`, in one bounded pass; safe in a thread.

    Raises `OSError` if a step cannot be read, so that no epoch is silently missing.
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
    """Find all epochs of a session at once."""
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
    # Most steps need not be parsed: a compaction's keys do not occur in them, plain or escaped.
    if b'"archive_name"' not in data and b'"compact"' not in data and b"\\u" not in data:
        return False
    try:
        if len(data) > LONG_BYTES:
            met = reader.meet(reader.ahead([name]), name, nothing, [])
            return met is not None and met[0].kind.is_compaction
        return classify(data).kind.is_compaction
    except NotAStep:
        return False
