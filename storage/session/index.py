"""The index of a session: which step numbers its directory holds, in order.

An index is plain state with one owner; only the scanning functions may run in a thread. Steps do not
normally change, so the index is filled by one listing and then kept up to date by the names that change
(G24).
"""

from __future__ import annotations

import math
import os
import re
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.posix import reopened
from storage.session.stamps import InTurn, Stamps, look
from storage.session.steps import NUMBER_MAX, is_usual, step_name, step_number

_USUAL: Final = re.compile(r"step-(?!000000)([0-9]{6})", re.ASCII)
"""Step names with six digits, as `step_name` writes them."""


LISTINGS_MOST: Final = 8
"""If a directory changes faster than it can be listed, the last of this many repeats is accepted."""


@dataclass(slots=True)
class Index:
    """The numbers of a session's steps, sorted; one number may have several names (`step-1`)."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    odd: dict[int, list[str]] = field(default_factory=dict)
    """All names of each number that has a name other than the one `step_name` gives."""
    strange: list[tuple[str, str]] = field(default_factory=list)
    """Names of steps that are skipped unread, and why: not a regular file, or not a valid number."""
    stamps: Stamps | None = None
    """What identifies the contents of each step, kept only on stores without events."""

    @property
    def greatest(self) -> int:
        """The greatest number; 0 if there are no steps."""
        return self.numbers[-1] if self.numbers else 0

    def add(self, name: str) -> int | None:
        """Add a name; returns its number, or None if it was known or is not a valid step's name."""
        number = step_number(name)
        if number is None or number > NUMBER_MAX:
            return None
        if number > self.greatest and is_usual(name):
            self.numbers.append(number)
            return number
        known = self.has(number)
        if self.knows(name, number):
            return None
        if known or not is_usual(name):
            names = self.names(number) if known else []
            self.odd[number] = sorted([*names, name])
        if not known:
            insort(self.numbers, number)
        return number

    def discard(self, name: str) -> int | None:
        """Remove a name; returns its number, or None if it was not known."""
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
        """Whether there is a step with this number."""
        if number > self.greatest:
            return False
        at = bisect_left(self.numbers, number)
        return at < len(self.numbers) and self.numbers[at] == number

    def knows(self, name: str, number: int) -> bool:
        """Whether `name` is known as a name of this number."""
        return self.has(number) and name in self.names(number)

    def names(self, number: int) -> list[str]:
        """The names of a number that is in the index, in the order in which they are shown."""
        return self.odd.get(number) or [step_name(number)]

    def before(self, number: int, most: int) -> Sequence[int]:
        """The greatest `most` numbers less than `number`, ascending."""
        at = bisect_left(self.numbers, number)
        return self.numbers[max(0, at - most) : at]

    def lacks_above(self, number: int) -> bool:
        """Whether a number between `number` and the greatest is missing."""
        above = len(self.numbers) - bisect_right(self.numbers, number)
        return above > 0 and self.greatest - number != above

    def between(self, first: int, last: int, most: int) -> Sequence[int]:
        """The lowest `most` numbers from `first` to `last`, both included, ascending."""
        start = bisect_left(self.numbers, first)
        return self.numbers[start : min(start + most, bisect_right(self.numbers, last))]


def scan(session_fd: int) -> Index:
    """List a session's directory.

    Raises `OSError` as the listing does. Safe in a thread: it touches nothing shared.
    """
    with reopened(session_fd) as fd:
        return _listed(fd)


def scan_stamped(
    session_fd: int, known: Stamps | None, first: int = 0, seconds: float = math.inf
) -> Index:
    """As `scan`, and check for changes since `known` in the steps from number `first` on.

    If that would take longer than `seconds`, the last of them are checked, and others in turn. Raises
    `OSError`.
    """
    with reopened(session_fd) as fd:
        inodes: dict[str, int] = {}
        index = _listed(fd, inodes)
        turn = 0 if known is None else known.turn
        checked = InTurn(index.numbers, first, turn, seconds)
        names = (name for number in checked for name in index.names(number))
        index.stamps = look(fd, inodes, names, known)
        index.stamps.turn, index.stamps.extra_seconds = checked.turn, checked.extra_seconds
    return index


def scan_agreeing(
    session_fd: int,
    greatest: int,
    known: Stamps | None = None,
    first: int = 0,
    seconds: float = math.inf,
) -> Index:
    """List a session's directory on a store without events, as `scan_stamped` does.

    A listing is not atomic: it may have a step but lack one that was stored before it. If a number is
    missing above `greatest`, the greatest of the last listing, the directory is therefore listed until
    two listings agree, so that no history is shown that never existed (G13). Raises `OSError`.
    """
    index = scan_stamped(session_fd, known, first, seconds)
    for _ in range(LISTINGS_MOST):
        if not index.lacks_above(greatest):
            break
        again = seconds if seconds == math.inf else 0.0
        before, index = index, scan_stamped(session_fd, index.stamps, first, again)
        if before.stamps is not None and index.stamps is not None:
            index.stamps.follow(before.stamps)
        if before.numbers == index.numbers:
            break
    return index


def _listed(fd: int, inodes: dict[str, int] | None = None) -> Index:
    """The index of a directory; adds the inode number of each step's name to `inodes` if given."""
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
            if not usual and not is_usual(name):
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
    """The number in a name that `_USUAL` does not match; None if it is not a valid step's name.

    Notes in `index` the names that look like a step's but are not.
    """
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
