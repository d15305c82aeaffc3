"""Remembers the steps that this mount stored and a daemon that counts in memory may rename over (G16).

A step changes its state by what happens to its name:

    remember ──► KEPT ──(renamed over by a daemon)──► DISPLACED ──(stored again)──► KEPT, higher up
                  │ ▲                                     │
      (lost events) (examined: it is there)               ├──(its name has it after all)──► KEPT
                  ▼ │                                     └──(compaction; no text)──► reported, forgotten
                DOUBTED ──(examined: another's)──► DISPLACED
                  │
                  └──(edited, removed, or every daemon's count is past it)──► forgotten, as from KEPT

Invariants:

- A step is in one state, and its text is kept for as long as it is in any.
- An acknowledged step is in the store exactly once while it is KEPT, and not at all while it is
  DISPLACED. Only `looked` and `moved_over` displace; `restored` is called only after a step was stored
  again.
- A daemon renames over ascending numbers, each once. So a step is out of its reach once it has renamed
  to a higher number, and is forgotten once that holds for every daemon whose count was ever seen here.
- The address of a text gives the order in which steps were stored, whatever numbers they get. Kept
  steps are brought into that order, except compactions, which stay where they are.
- No operation takes longer the more steps there are, except for a compaction of the tables now and then.
- Between the claim of a step and its remembering all events are applied (`claiming`): one from before
  the claim is not about this step. A later event is never too late: before a displaced step is stored
  again, its name is examined.
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
"""Steps out of every daemon's reach that are forgotten at a time."""


class RecentSteps:
    """The steps that this mount stored in one session and still remembers. Loop-owned; nothing waits."""

    def __init__(self, texts: StepTexts) -> None:
        self._texts = texts
        self._kept = StepTable(Remembered, "number")
        """Steps in state KEPT or DOUBTED, by number."""
        self.order = StepOrder()
        """The order of the kept steps, except compactions."""
        self._displaced = StepTable(Remembered, "at")
        """Steps in state DISPLACED, by address."""
        self._moving: dict[int, Remembered] = {}
        """Kept steps that are being moved up, by address."""
        self._forgotten: Iterator[Remembered] | None = None
        """Steps whose texts are still to be freed."""
        self._moves: dict[int, int] = {}
        """New numbers of the moving steps by old number; 0 while a move is in progress."""
        self._archives: dict[int, str] = {}
        """Archive names of remembered compactions, by address."""
        self._doubted: set[int] = set()
        """Numbers of steps in state DOUBTED."""
        self._doubted_after: int | None = None
        """If set, all kept steps of greater numbers are doubted too."""
        self.reach = Reach()
        """What is known about the daemons."""
        self.early: dict[int, bool] | None = None
        """Within `claiming`: numbers whose names have changed, and whether a daemon displaced them."""
        self._displaced_at: float | None = None
        """When `displaced_seconds` first saw displaced steps."""

    def __len__(self) -> int:
        return len(self._kept) + len(self._displaced) + len(self._moving)

    @property
    def displaced(self) -> int:
        """The number of steps to be stored again."""
        return len(self._displaced)

    @property
    def doubtful(self) -> bool:
        """Whether there are doubted steps."""
        return self._doubted_after is not None or bool(self._doubted)

    def displaced_seconds(self, now: float) -> float:
        """For how long there have been displaced steps, since this first saw any."""
        if not self.displaced:
            self._displaced_at = None
            return 0
        if self._displaced_at is None:
            self._displaced_at = now
        return now - self._displaced_at

    @property
    def owed(self) -> bool:
        """Whether `Restorer` has anything to do."""
        if len(self._displaced) or self.order.broken or self._forgotten is not None:
            return True
        return bool(len(self._kept)) and self.doubtful

    # --- what this mount does ------------------------------------------------------------------

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """A context in which steps are claimed, perhaps in a thread, and then remembered. The caller
        drains the events in between: what befell a name since it was claimed is kept for its step."""
        self.early = {}
        try:
            yield
        finally:
            self.early = None
            self._moves.clear()

    def remember(self, number: int, identity: int, text: bytes, archive: str | None = None) -> None:
        """Remember a step that was stored; `archive` is the archive's name if it is a compaction."""
        at = self._texts.keep(text)
        if archive is not None:
            self._archives[at] = archive
        self._keep(Remembered(number, identity, at, len(text)), anew=True)

    def take(self, numbers: Iterable[int]) -> list[Remembered]:
        """Take the kept ones of these steps out, to move them up within `claiming`. Each must then be
        `restored` or given `back`."""
        steps = [step for number in numbers if (step := self._pop(number)) is not None]
        self._moving.update((step.at, step) for step in steps)
        self._moves.update((step.number, 0) for step in steps)
        return steps

    def back(self, step: Remembered) -> None:
        """A step that was taken was not moved. It is kept or displaced, as events have shown, and
        doubted if it is kept."""
        if self._moving.pop(step.at, None) is not None:
            self._keep(step)
            self.doubt((step.number,))

    def restored(self, step: Remembered, number: int, identity: int) -> None:
        """A displaced step was stored again, or a taken one was moved, under a new `number`."""
        if self._moving.get(step.at) == step:
            self._moves[step.number] = number
        if self._displaced.pop(step.at) or self._moving.pop(step.at, None):
            self._keep(step._replace(number=number, identity=identity), anew=True)

    def found(self, step: Remembered) -> None:
        """A displaced step has its name after all."""
        if self._displaced.pop(step.at) is not None:
            self._keep(step)

    def given_up(self, step: Remembered) -> None:
        """A displaced step will not be stored again: forget it."""
        if self._displaced.pop(step.at) is not None:
            self._let_go(step)

    def clear(self) -> None:
        """Forget all steps. Their texts are freed by `let_go`, which is owed then."""
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
        """Free the texts of up to `most` steps that `clear` forgot."""
        if self._forgotten is None:
            return
        steps = list(islice(self._forgotten, most))
        for step in steps:
            self._let_go(step)
        if len(steps) < most:
            self._forgotten = None

    def _keep(self, step: Remembered, *, anew: bool = False) -> None:
        """Keep a step under its old number, or `anew` under a new one."""
        befell = self.early.pop(step.number, None) if self.early else None
        if befell is False:
            self._let_go(step)
            return
        if befell is True:
            self._displaced.add(step)
            return
        if (old := self._pop(step.number)) is not None:
            self._let_go(old)  # its name was free, so it is gone
        greatest = self._kept.greatest
        self._kept.add(step)
        if step.at in self._archives:
            return
        if anew:
            self.order.put_anew(step.at, step.number, greatest or 0)
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
        """Step `number` was created: earlier events about that name no longer count."""
        if self.early and self.early.pop(number, None) is not None:
            self._doubted.add(number)  # in case that the claim came before them

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
        elif self.early is not None:
            self.early[number] = True
        if not self.doubtful:  # else a daemon may have renamed over some of them unseen
            self._forget_passed()

    def _forget_passed(self) -> None:
        for _ in range(PASSED_STEPS):
            least = self._kept.least
            if least is None or least >= self.reach.passed:
                return
            self.forget(least)

    def forget(self, number: int) -> None:
        """Forget a step that was edited or removed, or is out of reach."""
        step = self._pop(number)
        if step is not None:
            self._let_go(step)
        elif self.early is not None:
            self.early.setdefault(number, False)

    def doubt(self, numbers: Iterable[int] | None = None) -> None:
        """Doubt these steps, or all if None: events about them may have been lost."""
        if numbers is None:
            self._doubted_after = -1
            if self.early:
                self.early.clear()  # the claims that came after these events may be among the lost
        else:
            self._doubted.update(number for number in numbers if self._kept.get(number))

    # --- what is owed --------------------------------------------------------------------------

    def doubted(self, most: int) -> list[Remembered]:
        """Up to `most` doubted steps, which count as examined from now on; empty if there are none."""
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
        """Record what `looks` found: steps whose names are gone, and steps whose names have other files.
        Of the latter, those in `same` have the same content, and come with the identity of that file.

        It is unknown who replaced a step, so it counts as displaced: storing a message twice does less
        harm than losing it.
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
        """The former numbers of displaced steps."""
        return self._displaced.column("number")

    def to_restore(self, most: int) -> list[Remembered]:
        """The first displaced steps, in the order in which they were stored."""
        return list(islice(self._displaced, most))

    def kept(self, numbers: Iterable[int]) -> list[Remembered]:
        """Those of these steps that are kept."""
        return [step for number in numbers if (step := self._kept.get(number)) is not None]

    def archive(self, step: Remembered) -> str | None:
        """The archive's name if the step is a compaction, else None."""
        return self._archives.get(step.at)

    def refuge(self, greatest: int) -> int:
        """The number at which to store a step out of reach; see `Reach.refuge`."""
        return self.reach.refuge(greatest, ours=self._kept.get(greatest) is not None)
