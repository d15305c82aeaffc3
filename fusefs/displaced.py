"""Steps that this mount stored lately, which a daemon that counts in memory may rename over (G16)."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.errors import StoreError
from storage.kinds import Step, classify
from storage.replay import Reader
from storage.steps import Claimer, Ownership, step_name

GAP: Final = 1000
"""How far above the greatest number a displaced step is stored, out of the daemon's reach."""
CEILING: Final = 999_000
"""The reference sorts names, so it loses the order past six digits: no gap leads beyond this."""
MOST_STEPS: Final = 8192
MOST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Relocation:
    """A remembered step that has to get another number."""

    number: int
    data: bytes
    displaced: bool
    """Whether it is lost from the store; else it is still there, and moved."""


@dataclass(slots=True)
class Relocated:
    """What became of a plan."""

    stored: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Old number, new number, bytes."""
    compactions: list[Step] = field(default_factory=list)
    """Displaced, and not stored again."""
    error: StoreError | None = None
    left: Sequence[Relocation] = ()


class Lately:
    """The numbers and bytes of one session's steps that a daemon may still displace, bounded.

    Loop-owned. The oldest are forgotten first; a step that is edited by other means, or that the
    daemon's count has passed, is forgotten at once.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._data: dict[int, bytes] = {}
        self._bytes = 0
        self._displaced: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._numbers) + len(self._displaced)

    @property
    def displaced(self) -> bool:
        """Whether there are steps that have to be stored again."""
        return bool(self._displaced)

    def remember(self, number: int, data: bytes) -> None:
        """A step was stored."""
        self.forget(number)
        insort(self._numbers, number)
        self._data[number] = data
        self._bytes += len(data)
        while len(self._numbers) > MOST_STEPS or self._bytes > MOST_BYTES:
            self.forget(self._numbers[0])

    def forget(self, number: int) -> bytes | None:
        """That step is no concern any more; its bytes if it was one."""
        data = self._data.pop(number, None)
        if data is not None:
            self._bytes -= len(data)
            del self._numbers[bisect_left(self._numbers, number)]
        return data

    def replaced(self, number: int, moved_from: str) -> bool:
        """The name of step `number` was moved over; whether that displaced a remembered step."""
        by_daemon = re.fullmatch(rf"{step_name(number)}\.tmp\..*", moved_from, re.DOTALL)
        data = self.forget(number)
        if not by_daemon:
            return False
        while self._numbers and self._numbers[0] < number:
            self.forget(self._numbers[0])
        if data is None:
            return False
        self._displaced[number] = data
        return True

    def unsure(self, reader: Reader) -> bool:
        """Events were missed: look at every remembered step; whether one was displaced.

        Nobody can tell then who replaced a step, so it counts as displaced: a message that is
        there twice is a lesser harm than one that is lost.
        """
        for number in list(self._numbers):
            try:
                same = reader.read(step_name(number)) == self._data[number]
            except OSError:
                self.forget(number)
                continue
            if not same:
                data = self.forget(number)
                assert data is not None
                self._displaced[number] = data
        return bool(self._displaced)

    def plan(self) -> list[Relocation]:
        """What has to be stored again, and what was stored after it, in order; empties the list."""
        if not self._displaced:
            return []
        after = self._numbers[bisect_left(self._numbers, min(self._displaced)) :]
        doing = [Relocation(n, data, True) for n, data in self._displaced.items()]
        doing += [Relocation(n, self._data[n], False) for n in after]
        self._displaced = {}
        return sorted(doing, key=lambda relocation: relocation.number)

    def put_back(self, relocations: Iterable[Relocation]) -> None:
        """What could not be stored again stays displaced, for another try."""
        self._displaced.update({r.number: r.data for r in relocations if r.displaced})


def relocate(
    claimer: Claimer, ownership: Ownership, plan: Sequence[Relocation], greatest: int, sync: bool
) -> Relocated:
    """Store displaced steps again and move those stored after them, in their order (G16).

    Compactions stay where they are, or lost: moved up, one would hide what came after it. Runs in
    a thread while the session's `writing` lock is held; never raises `StoreError` but returns it.
    """
    done = Relocated()
    target = greatest + GAP if greatest + GAP < CEILING else greatest + 1
    for at, relocation in enumerate(plan):
        step = classify(relocation.data)
        try:
            if step.kind.is_compaction:
                done.compactions += [step] if relocation.displaced else []
            elif relocation.displaced:
                target = claimer.claim(target, step.data, ownership, sync=sync).number
                done.stored.append((relocation.number, target, step.data))
            elif (moved := claimer.move(relocation.number, target, step.data)) is not None:
                target = moved
                done.stored.append((relocation.number, target, step.data))
        except StoreError as error:
            done.error, done.left = error, plan[at:]
            break
    return done
