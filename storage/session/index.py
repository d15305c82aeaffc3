"""The index of a session: which step numbers its directory holds, in order.

It is plain state with one owner, the loop of whoever keeps it; `scan` alone may run in a thread.
Steps never change in the usual case, so the index is filled by one listing and then kept up to date
by the names that change (G24).
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.posix import reopened
from storage.session.stamps import IN_TURN, LAST, Stamps, look
from storage.session.steps import NUMBER_MAX, step_name, step_number

_USUAL: Final = re.compile(r"step-(?!000000)([0-9]{6})", re.ASCII)
"""The names of numbers of up to six digits, as `step_name` writes them."""


LISTINGS_MOST: Final = 8
"""A directory that changes faster than it is listed is taken as it was found after so many."""


@dataclass(slots=True)
class Index:
    """The numbers of a session's steps, sorted; one number may have several names (`step-1`)."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    odd: dict[int, list[str]] = field(default_factory=dict)
    """Every name of a number that has one not written as `step_name` writes it."""
    strange: list[tuple[str, str]] = field(default_factory=list)
    """Names of steps that are skipped unread, and why: no regular file, no number of the daemon's."""
    stamps: Stamps | None = None
    """What identifies the contents of each step, kept only where no events tell of changes."""

    @property
    def greatest(self) -> int:
        """The greatest number, 0 in an empty session."""
        return self.numbers[-1] if self.numbers else 0

    def add(self, name: str) -> int | None:
        """Take in a new name; its number if the index changed, None if it is known or no step's."""
        number = step_number(name)
        if number is None or number > NUMBER_MAX:
            return None
        if number > self.greatest and name == step_name(number):
            self.numbers.append(number)
            return number
        known = self.has(number)
        if self.knows(name, number):
            return None
        if known or name != step_name(number):
            names = self.names(number) if known else []
            self.odd[number] = sorted([*names, name])
        if not known:
            insort(self.numbers, number)
        return number

    def discard(self, name: str) -> int | None:
        """Take out a name that is gone; its number if the index changed."""
        number = step_number(name)
        if number is None or not self.knows(name, number):
            return None
        left = [other for other in self.names(number) if other != name]
        self.odd.pop(number, None)
        if not left:
            del self.numbers[bisect_left(self.numbers, number)]
        elif left != [step_name(number)]:
            self.odd[number] = left
        return number

    def has(self, number: int) -> bool:
        """Whether a step of that number is known."""
        if number > self.greatest:
            return False
        at = bisect_left(self.numbers, number)
        return at < len(self.numbers) and self.numbers[at] == number

    def knows(self, name: str, number: int) -> bool:
        """Whether `name`, a name of that number, is known."""
        return self.has(number) and name in self.names(number)

    def names(self, number: int) -> list[str]:
        """The names of a known number, in the order in which they are shown."""
        return self.odd.get(number) or [step_name(number)]

    def before(self, number: int, most: int) -> Sequence[int]:
        """At most `most` numbers less than `number`, the greatest ones, ascending."""
        at = bisect_left(self.numbers, number)
        return self.numbers[max(0, at - most) : at]

    def lacks_above(self, number: int) -> bool:
        """Whether a number between `number` and the greatest is missing."""
        above = len(self.numbers) - bisect_right(self.numbers, number)
        return above > 0 and self.greatest - number != above

    def between(self, first: int, last: int, most: int) -> Sequence[int]:
        """At most `most` numbers from `first` to `last`, both included, the lowest ones, ascending."""
        start = bisect_left(self.numbers, first)
        return self.numbers[start : min(start + most, bisect_right(self.numbers, last))]


def scan(session_fd: int) -> Index:
    """List a session's directory.

    Raises `OSError` as the listing does. Safe in a thread: it touches nothing shared.
    """
    with reopened(session_fd) as fd:
        return _listed(fd)


def scan_stamped(session_fd: int, known: Stamps | None, first: int | None = 0) -> Index:
    """As `scan`, and look at what may have changed since `known`: at the steps from number `first` on.

    Without `first` it looks at the last ones, and at some of the others in turn.
    """
    with reopened(session_fd) as fd:
        inodes: dict[str, int] = {}
        index = _listed(fd, inodes)
        turn = 0 if known is None else known.turn
        if first is not None:
            numbers = index.numbers[bisect_left(index.numbers, first) :]
        else:
            in_turn = index.between(turn, index.greatest, IN_TURN)
            turn = in_turn[-1] + 1 if len(in_turn) == IN_TURN else 0
            numbers = array("Q", [*in_turn, *index.numbers[-LAST:]])
        names = [name for number in numbers for name in index.names(number)]
        index.stamps = look(fd, inodes, names, known)
        index.stamps.turn = turn
    return index


def scan_agreeing(
    session_fd: int, greatest: int, known: Stamps | None = None, first: int | None = 0
) -> Index:
    """List a session's directory where nothing tells of changes, as `scan_stamped`.

    A listing is not atomic: it may hold a step and lack one that was there before it. Then a number is
    missing above `greatest`, the greatest that was listed before, and the directory is listed until two
    listings agree, so that no history is shown that never existed (G13). Raises `OSError` as `scan`.
    """
    index = scan_stamped(session_fd, known, first)
    for _ in range(LISTINGS_MOST):
        if not index.lacks_above(greatest):
            break
        before, index = index, scan_stamped(session_fd, index.stamps, first)
        if before.numbers == index.numbers:
            break
    return index


def _listed(fd: int, inodes: dict[str, int] | None = None) -> Index:
    """What the directory of that descriptor holds; the inode number of each step's name, if wanted."""
    index = Index()
    numbers: list[int] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            usual = _USUAL.fullmatch(name)
            number = int(usual[1]) if usual else _unusual(name, index)
            if number is None:
                continue
            if not entry.is_file(follow_symlinks=False):
                index.strange.append((name, "it is not a regular file"))
                continue
            if not usual and name != step_name(number):
                index.odd.setdefault(number, []).append(name)
            numbers.append(number)
            if inodes is not None:
                inodes[name] = entry.inode()
    numbers.sort()
    if index.odd:
        numbers = _settle_odd(numbers, index.odd)
    index.numbers = array("Q", numbers)
    return index


def _unusual(name: str, index: Index) -> int | None:
    """The number in a name that `_USUAL` is not; None if it is no step's, which `index` is told."""
    number = step_number(name)
    if number is None:
        if name.startswith("step-") and name[5:].isdecimal() and name.isascii():
            index.strange.append((name, "numbers begin at 1"))
    elif number > NUMBER_MAX:
        index.strange.append((name, f"its number is over {NUMBER_MAX}"))
        return None
    return number


def _settle_odd(numbers: list[int], odd: dict[int, list[str]]) -> list[int]:
    for number, names in odd.items():
        if numbers.count(number) > len(names):
            names.append(step_name(number))
        names.sort()
    return sorted(set(numbers))
