"""Steps that this mount stored, which a daemon that counts in memory may rename over (G16).

A step goes from state to state by what happens to its name:

    remember ──► KEPT ──(renamed over by a daemon)──► DISPLACED ──(stored again)──► KEPT, higher up
                  │ ▲                                     │
      (lost events) (looked at: it is there)              ├──(its name has it after all)──► KEPT
                  ▼ │                                     └──(compaction; no text)──► told, forgotten
                DOUBTED ──(looked at: another's)──► DISPLACED
                  │
                  └──(edited, removed, or every daemon's count is past it)──► forgotten, as from KEPT

Invariants:

- A step is in one state, and its text is kept for as long as it is in any.
- What was acknowledged is in the store exactly once while its step is KEPT, and not at all while it is
  DISPLACED. Only `looked` and `renamed_over` displace; only who has stored a step again says `restored`.
- A daemon renames over ascending numbers, each once. So a step is out of its reach when it has renamed
  to a higher number, and is forgotten when that is so of every daemon whose count was ever met here.
- The address of a text tells the order in which steps were stored, whatever numbers they get. Kept
  steps come to be in that order, but for compactions, which stay where they are.
- Nothing here takes longer the more steps there are, but for what is compacted now and then.
- An event may be taken in before the step that it is of is remembered (`claiming`), but never too late
  to be looked at: who stores a displaced step again looks at its name first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Final

from fusefs.session.reach import Reach
from fusefs.session.step_order import StepOrder
from fusefs.session.step_table import Remembered, StepTable
from fusefs.session.step_texts import StepTexts
from storage.session.steps import step_name, step_number

PASSED_STEPS: Final = 64
"""Steps out of every daemon's reach that are forgotten in one go."""


class RecentSteps:
    """What a mount remembers of the steps that it stored in one session. Loop-owned; nothing waits."""

    def __init__(self, texts: StepTexts) -> None:
        self._texts = texts
        self._kept = StepTable(Remembered, "number")
        self.order = StepOrder()
        """The order of the kept steps, compactions aside."""
        self._displaced = StepTable(Remembered, "at")
        self._moving: dict[int, Remembered] = {}
        """Kept ones that are being moved up just now, by address."""
        self._forgotten: Iterator[Remembered] | None = None
        """Those whose texts are to be let go of."""
        self._moves: dict[int, int] = {}
        """Where those went, by the number that they had; 0 while they are on their way."""
        self._archives: dict[int, str] = {}
        """The archives of those that are compactions, by address."""
        self._doubted: set[int] = set()
        self._doubted_after: int | None = None
        """All of greater numbers are doubted too."""
        self.reach = Reach()
        self._early: dict[int, bool] | None = None
        """What befell steps while some are being claimed: whether a daemon displaced them."""
        self._displaced_at: float | None = None
        """When displaced steps were first seen by `displaced_seconds`."""

    def __len__(self) -> int:
        return len(self._kept) + len(self._displaced) + len(self._moving)

    @property
    def displaced(self) -> int:
        """The number of steps to be stored again."""
        return len(self._displaced)

    @property
    def doubtful(self) -> bool:
        """Whether there are steps to be looked at."""
        return self._doubted_after is not None or bool(self._doubted)

    def displaced_seconds(self, now: float) -> float:
        """For how long there have been displaced steps, as far as this was asked."""
        if not self.displaced:
            self._displaced_at = None
            return 0
        if self._displaced_at is None:
            self._displaced_at = now
        return now - self._displaced_at

    @property
    def owed(self) -> bool:
        """Whether there is anything to be done."""
        if len(self._displaced) or self.order.broken or self._forgotten is not None:
            return True
        return bool(len(self._kept)) and self.doubtful

    # --- what this mount does ------------------------------------------------------------------

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Steps are claimed, perhaps in a thread, and remembered before the context ends: what
        happens to them in between counts."""
        self._early = {}
        try:
            yield
        finally:
            self._early = None
            self._moves.clear()

    def remember(self, number: int, identity: int, text: bytes, archive: str | None = None) -> None:
        """A step was stored; `archive` is the name that a compaction gives."""
        at = self._texts.keep(text)
        if archive is not None:
            self._archives[at] = archive
        self._keep(Remembered(number, identity, at, len(text)), anew=True)

    def take(self, numbers: Iterable[int]) -> list[Remembered]:
        """The kept ones of these steps, which are moved up while some are `claiming`; each is
        `restored` or given `back`."""
        steps = [step for number in numbers if (step := self._pop(number)) is not None]
        self._moving.update((step.at, step) for step in steps)
        self._moves.update((step.number, 0) for step in steps)
        return steps

    def back(self, step: Remembered) -> None:
        """A step that was taken was not moved: it has its name, or what befell that is known, or
        it has to be looked at."""
        if self._moving.pop(step.at, None) is not None:
            self._keep(step)
            self.doubt((step.number,))

    def restored(self, step: Remembered, number: int, identity: int) -> None:
        """A displaced step was stored again, or one that was taken was moved."""
        if self._moving.get(step.at) == step:
            self._moves[step.number] = number
        if self._displaced.pop(step.at) or self._moving.pop(step.at, None):
            self._keep(step._replace(number=number, identity=identity), anew=True)

    def found(self, step: Remembered) -> None:
        """A displaced step still has its name."""
        if self._displaced.pop(step.at) is not None:
            self._keep(step)

    def given_up(self, step: Remembered) -> None:
        """A displaced step is not stored again."""
        if self._displaced.pop(step.at) is not None:
            self._let_go(step)

    def clear(self) -> None:
        """Forget everything; `let_go` is owed then."""
        if not len(self):
            return
        steps = chain(self._kept, self._displaced, list(self._moving.values()))
        self._forgotten = chain(self._forgotten or (), steps)
        self._kept, self._displaced = StepTable(Remembered, "number"), StepTable(Remembered, "at")
        self.order = StepOrder()
        self._moving.clear()
        self._doubted.clear()
        self._doubted_after = None

    def let_go(self, most: int) -> None:
        """Let go of the texts of so many steps that were forgotten all at once."""
        if self._forgotten is None:
            return
        steps = list(islice(self._forgotten, most))
        for step in steps:
            self._let_go(step)
        if len(steps) < most:
            self._forgotten = None

    def _keep(self, step: Remembered, *, anew: bool = False) -> None:
        """Keep a step that has its number again, or `anew` one that has another than before."""
        befell = self._early.pop(step.number, None) if self._early else None
        if befell is False:
            self._let_go(step)
            return
        if befell is True:
            self._displaced.add(step)
            return
        if (old := self._pop(step.number)) is not None:
            self._let_go(old)  # its name was free, so it is gone
        greatest = self._kept.greatest()
        self._kept.add(step)
        if step.at in self._archives:
            return
        if anew:
            self.order.put_anew(step.at, step.number, 0 if greatest is None else greatest.number)
        else:
            self.order.put(step.at, step.number)

    def _pop(self, number: int) -> Remembered | None:
        step = self._kept.pop(number)
        if step is not None:
            self.order.pop(step.at)
        return step

    def _taken_out(self, step: Remembered) -> bool:
        kept = self._kept.get(step.number)
        return kept is not None and kept.at == step.at and self._pop(step.number) is not None

    def _let_go(self, step: Remembered) -> None:
        self._texts.free(step.at, step.length)
        self._archives.pop(step.at, None)

    # --- what happens to names -----------------------------------------------------------------

    def created(self, number: int) -> None:
        """A step of that number came into being: what happened to another before is past."""
        if self._early:
            self._early.pop(number, None)

    def moved_over(self, number: int, moved_from: str) -> None:
        """The name of step `number` was moved over from another name: by a daemon, or in an edit."""
        if moved_from.startswith(f"{step_name(number)}.tmp."):
            self._renamed_over(number)
        elif self._moves.get(step_number(moved_from) or 0) in (0, number):
            self.created(number)  # this mount moved a step to a free name
        else:
            self.forget(number)

    def _renamed_over(self, number: int) -> None:
        self.reach.renamed_over(number)
        step = self._pop(number)
        if step is not None:
            self._displaced.add(step)
        elif self._early is not None:
            self._early[number] = True
        if not self.doubtful:  # else a daemon may have renamed over some of them unseen
            self._forget_passed()

    def _forget_passed(self) -> None:
        for _ in range(PASSED_STEPS):
            least = self._kept.least()
            if least is None or least.number >= self.reach.passed:
                return
            self.forget(least.number)

    def forget(self, number: int) -> None:
        """That step is no concern any more: it was edited or removed."""
        step = self._pop(number)
        if step is not None:
            self._let_go(step)
        elif self._early is not None:
            self._early.setdefault(number, False)

    def doubt(self, numbers: Iterable[int] | None = None) -> None:
        """Events were lost that these steps may have been in (any, if None)."""
        if numbers is None:
            self._doubted_after = -1
        else:
            self._doubted.update(number for number in numbers if self._kept.get(number))

    # --- what is owed --------------------------------------------------------------------------

    def doubted(self, most: int) -> list[Remembered]:
        """Steps to be looked at, which are not doubted any more; none if there are no others."""
        steps: list[Remembered] = []
        while self._doubted and len(steps) < most:
            steps += self.kept((self._doubted.pop(),))
        if steps or self._doubted_after is None:
            return steps
        steps = list(islice(self._kept.after(self._doubted_after), most))
        self._doubted_after = steps[-1].number if steps else None
        return steps

    def looked(
        self,
        gone: Iterable[Remembered],
        others: Iterable[Remembered],
        same: Iterable[Remembered] = (),
    ) -> None:
        """What a look found: steps that are not there, and those whose names other files have; of
        these some have the `same` contents, and are given with the identity of that file.

        Nobody can tell then who replaced a step, so it counts as displaced: a message that is
        there twice is a lesser harm than one that is lost.
        """
        for step in gone:
            if self._taken_out(step):
                self._let_go(step)
        known = {step.at: step for step in same}
        for step in others:
            if not self._taken_out(step):
                continue
            if step.at in known:
                self._keep(known[step.at])
            else:
                self._displaced.add(step)
                self.reach.reached(step.number)

    def displaced_numbers(self) -> array[int]:
        """The numbers that displaced steps had."""
        return self._displaced.column("number")

    def to_restore(self, most: int) -> list[Remembered]:
        """The first displaced steps, in the order in which they were stored."""
        return list(islice(self._displaced, most))

    def kept(self, numbers: Iterable[int]) -> list[Remembered]:
        """The kept ones of these steps."""
        return [step for number in numbers if (step := self._kept.get(number)) is not None]

    def archive(self, step: Remembered) -> str | None:
        """The name that a compaction gives its archive; None for anything else."""
        return self._archives.get(step.at)

    def refuge(self, greatest: int) -> int:
        """Where steps are stored next, as `Reach.refuge`."""
        return self.reach.refuge(greatest, ours=self._kept.get(greatest) is not None)
