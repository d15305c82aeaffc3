"""Steps that this mount stored lately, which a daemon that counts in memory may rename over (G16)."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from storage.errors import StoreError
from storage.formats.kinds import Step, classify
from storage.session.replay import Reader
from storage.session.steps import Claimer, Ownership, step_name

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
    order: int
    displaced: bool
    """Whether it is lost from the store; else it is still there, and moved."""


@dataclass(slots=True)
class Relocated:
    """What became of a plan."""

    stored: list[tuple[Relocation, int]] = field(default_factory=list)
    """With the new numbers."""
    compactions: list[Step] = field(default_factory=list)
    """Displaced, and not stored again."""
    error: StoreError | None = None
    left: Sequence[Relocation] = ()


@dataclass(slots=True)  # not frozen, which doubles the time that one takes to make
class Remembered:
    """A step that was stored, and the place in the order of all that the mount stored here."""

    data: bytes
    order: int


class Lately:
    """The numbers and bytes of one session's steps that a daemon may still displace, bounded.

    Loop-owned. The lowest are forgotten first; a step that is edited by other means, or that the
    daemon's count has passed, is forgotten at once.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._steps: dict[int, Remembered] = {}
        self._bytes = 0
        self._displaced: dict[int, Remembered] = {}
        self._next = 0
        self._early: dict[int, bool] | None = None
        """What befell steps while some are being claimed: whether a daemon displaced them."""

    def __len__(self) -> int:
        return len(self._numbers) + len(self._displaced)

    @property
    def displaced(self) -> bool:
        """Whether there are steps that have to be stored again."""
        return bool(self._displaced)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Steps are claimed, perhaps in a thread, and remembered before the context ends: what
        happens to them in between counts."""
        self._early = {}
        try:
            yield
        finally:
            self._early = None

    def remember(self, number: int, data: bytes) -> None:
        """A step was stored."""
        self._next += 1
        self._keep(number, Remembered(data, self._next))

    def relocated(self, relocation: Relocation, number: int) -> None:
        """A step was stored again, or moved, and has another number now; its order it keeps."""
        self._drop(relocation.number)
        self._keep(number, Remembered(relocation.data, relocation.order))

    def _keep(self, number: int, step: Remembered) -> None:
        self._drop(number)
        if self._early and number in self._early:
            if self._early[number]:
                self._displaced[number] = step
            return
        insort(self._numbers, number)
        self._steps[number] = step
        self._bytes += len(step.data)
        while len(self._numbers) > MOST_STEPS or self._bytes > MOST_BYTES:
            self._drop(self._numbers[0])

    def forget(self, number: int) -> None:
        """That step is no concern any more: it was edited or removed."""
        if self._drop(number) is None and self._early is not None:
            self._early.setdefault(number, False)

    def appeared(self, number: int) -> None:
        """A step of that number came into being: what happened to another before is past."""
        if self._early:
            self._early.pop(number, None)

    def _drop(self, number: int) -> Remembered | None:
        step = self._steps.pop(number, None)
        if step is not None:
            self._bytes -= len(step.data)
            del self._numbers[bisect_left(self._numbers, number)]
        return step

    def replaced(self, number: int, moved_from: str) -> bool:
        """The name of step `number` was moved over; whether that displaced a remembered step."""
        if not re.fullmatch(rf"{step_name(number)}\.tmp\..*", moved_from, re.DOTALL):
            self.forget(number)
            return False
        step = self._drop(number)
        while self._numbers and self._numbers[0] < number:
            self._drop(self._numbers[0])
        if step is not None:
            self._displaced[number] = step
        elif self._early is not None:
            self._early[number] = True
        return step is not None

    def remembered(self, numbers: Iterable[int] | None = None) -> dict[int, Remembered]:
        """The remembered steps of these numbers (all, if None), for `look`."""
        if numbers is None:
            return dict(self._steps)
        return {n: step for n in numbers if (step := self._steps.get(n)) is not None}

    def looked(self, gone: Mapping[int, Remembered], replaced: Mapping[int, Remembered]) -> None:
        """What `look` found: steps that are not there, and those of other contents.

        Nobody can tell then who replaced a step, so it counts as displaced: a message that is
        there twice is a lesser harm than one that is lost.
        """
        for number, step in gone.items():
            if self._steps.get(number) is step:
                self._drop(number)
        for number, step in replaced.items():
            if self._steps.get(number) is step:
                self._drop(number)
                self._displaced[number] = step

    def plan(self) -> list[Relocation]:
        """What has to be stored again, and what was stored after it, in order; empties the list."""
        if not self._displaced:
            return []
        first = min(step.order for step in self._displaced.values())
        doing = [Relocation(n, s.data, s.order, True) for n, s in self._displaced.items()]
        doing += [
            Relocation(n, s.data, s.order, False) for n, s in self._steps.items() if s.order > first
        ]
        self._displaced = {}
        return sorted(doing, key=lambda relocation: relocation.order)

    def put_back(self, relocations: Iterable[Relocation]) -> None:
        """What could not be stored again stays displaced, for another try."""
        self._displaced.update(
            {r.number: Remembered(r.data, r.order) for r in relocations if r.displaced}
        )


def look(
    reader: Reader, remembered: Mapping[int, Remembered]
) -> tuple[dict[int, Remembered], dict[int, Remembered]]:
    """Look at remembered steps, after events were missed: those that are not there, and those of
    other contents. It may run in a thread."""
    gone: dict[int, Remembered] = {}
    replaced: dict[int, Remembered] = {}
    for number, step in remembered.items():
        try:
            if reader.read(step_name(number)) != step.data:
                replaced[number] = step
        except OSError:
            gone[number] = step
    return gone, replaced


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
                done.stored.append((relocation, target))
            elif (moved := claimer.relink(relocation.number, target, step.data)) is not None:
                target = moved
                done.stored.append((relocation, target))
        except StoreError as error:
            done.error, done.left = error, plan[at:]
            break
    return done
