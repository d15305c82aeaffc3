"""Opens of views on a far store, between whose system calls other hosts act, and what they may show.

The store has no events, a listing is not atomic, and nothing that a call returned need still be true at
the next one. `tests.support.interleaving` has the orders of what happens within one host.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import trio

from fusefs.config import Sync
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.session.writer import Writer
from fusefs.views.epoch import Epoch
from fusefs.views.formats import View
from storage import ahead
from storage.formats.kinds import classify
from storage.session import reader
from tests.support.live import Live, leased
from tests.support.model import Past
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

DOES = (
    "adds", "adds", "tells", "compacts", "edits", "replaces", "removes", "hides", "brings back", "dates",
)  # fmt: skip
"""What another host may do."""


@dataclass(frozen=True)
class Act:
    """What another host does, and to which step."""

    does: str
    which: int


@dataclass(frozen=True)
class Round:
    """What happens before and during one open of a view."""

    view: View
    before: tuple[Act, ...]
    during: tuple[tuple[int, Act], ...]
    """Each after that many system calls of the open."""
    own: bool
    """This mount appends a step first."""
    stat: bool
    """Somebody calls stat before the open."""


@dataclass(frozen=True)
class Story:
    """How many steps a session has at first, and what happens then."""

    steps: int
    rounds: tuple[Round, ...]
    seed: int
    """Decides the order of listings, and which steps created meanwhile they have."""


class Others:
    """The other hosts, and what each view had to show after each of their acts."""

    def __init__(self, disk: SessionOnDisk) -> None:
        self.disk = disk
        self.past = Past(disk)
        self._count = 0
        self._hidden: list[tuple[int, bytes]] = []
        self._known: set[int] = set()
        self._there: set[int] = set()
        self._firm: set[str] = set()
        """What does nothing to steps that are not known, during an open."""

    def appended(self) -> None:
        """The mount has appended a step, and knows it without listing it."""
        self._there.add(self.disk.numbers()[-1])
        self.past.note()

    def opening(self, first: bool) -> None:
        """A program opens a view, for the first time or again.

        Meanwhile only steps are changed that the mount has listed before: one listing can tell neither
        that what it lacks has been removed nor what has happened to what it is the first to have (G13d).
        """
        self._known, self._there = self._there, set(self.disk.numbers())
        self._firm = {"removes", "hides"} if first else {"removes", "hides", "edits", "replaces"}

    def act(self, act: Act, meanwhile: bool = False) -> None:
        """Change the store, if there is something to be changed in that way; `meanwhile`: in an open."""
        numbers = self.disk.numbers()
        if meanwhile and act.does in self._firm:
            numbers = [number for number in numbers if number in self._known]
        number = numbers[-1 - act.which % len(numbers)] if numbers else 0
        self._count += (
            1  # each text is longer: an edit within a tick of the clock shows in the size
        )
        text = f"{act.does} {'x' * self._count}"
        step = self.disk.path / f"step-{number:06}"
        match act.does:
            case "adds":
                self.disk.add(entry(text))
            case "tells":
                self.disk.add(event(text))
            case "compacts":
                self.disk.add(compaction(text))
            case "edits" if numbers:
                step.write_bytes(entry(text))
            case "replaces" if numbers:
                self.disk.put(number, entry(text))
            case "removes" if numbers:
                step.unlink()
            case "hides" if found := self._compactions(numbers):
                self._hidden.append(found[-1])
                (self.disk.path / f"step-{found[-1][0]:06}").unlink()
            case "brings back" if self._hidden:
                self.disk.put(*self._hidden.pop())
            case "dates" if numbers:
                os.utime(step, (self._count, self._count))
        self.past.note()

    def _compactions(self, numbers: Sequence[int]) -> list[tuple[int, bytes]]:
        found = [(number, self.disk.step(number)) for number in numbers]
        return [(number, data) for number, data in found if b"archive_name" in data]


class Calls:
    """The system calls of an open on a far store: before each, others may act."""

    def __init__(self, others: Others, seed: int) -> None:
        self._others = others
        self._random = random.Random(seed)
        self._due: list[tuple[int, Act]] = []
        self._count = 0
        self._busy = False
        self._scandir = os.scandir

    @contextmanager
    def interrupted(self, acts: Sequence[tuple[int, Act]]) -> Iterator[None]:
        """Meanwhile these acts happen, each after so many calls, or at the end if there were fewer."""
        self._due, self._count = sorted(acts, key=lambda act: act[0]), 0
        with (
            patch.object(os, "stat", self._hooked(os.stat)),
            patch.object(os, "open", self._hooked(os.open)),
            patch.object(os, "fstat", self._hooked(os.fstat)),
            patch.object(os, "scandir", self._listed),
        ):
            yield
        for _, act in self._due:
            self._others.act(act)

    def _hooked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            self._called()
            return call(*args, **named)

        return called

    def _called(self) -> None:
        if self._busy:  # others' calls
            return
        self._busy = True
        self._count += 1
        while self._due and self._due[0][0] <= self._count:
            self._others.act(self._due.pop(0)[1], meanwhile=True)
        self._busy = False

    @contextmanager
    def _listed(self, directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        yield self._entries(directory)

    def _entries(self, directory: int) -> Iterator[os.DirEntry[str]]:
        """A listing that is not atomic: each entry is as of when it is taken."""
        left, seen = sorted(os.listdir(self._others.disk.path)), set()
        self._random.shuffle(left)
        while left:
            seen.add(name := left.pop())
            self._called()
            with self._scandir(directory) as found:
                now = {each.name: each for each in found}
            os.lseek(directory, 0, os.SEEK_SET)
            if name in now:
                yield now[name]
            new = sorted(now.keys() - seen - set(left))
            left += [name for name in new if self._random.random() < 0.5]
            seen.update(new)


def in_turn(call: Callable[[], ahead.R]) -> ahead.Outcome[ahead.R]:
    """Makes a call at once that is otherwise made in another thread."""
    outcome = ahead.Outcome(call)
    outcome.run()
    return outcome


def play(story: Story, disk: SessionOnDisk) -> None:
    """Let a story happen, and check what each open shows."""
    others = Others(disk)
    calls = Calls(others, story.seed)
    held: dict[Epoch, bytes] = {}

    async def main() -> None:
        async with leased(StoreOnDisk(disk.path.parent), watched=False) as (live, session):
            for number, round_ in enumerate(story.rounds):
                await one(live, session, number, round_)
            for epoch, text in held.items():
                assert (await live.text(session, epoch)).startswith(text), "an open file changed"

    async def one(live: Live, session: Session, number: int, round_: Round) -> None:
        if round_.own:
            step = classify(entry(f"own {number} {'y' * number}"))
            await Writer(live.means, Sync.NEVER).append(session, [step])
            others.appended()
        for act in round_.before:
            others.act(act)
        view, name = round_.view, round_.view.format.name
        if round_.stat:
            session.listed_at = 0.0  # however fast this machine is, the session is listed
            await refresh(live.means, session, view, exact=False)
        mark = others.past.count(name)
        others.opening(first=view not in session.epochs)
        with calls.interrupted(round_.during):
            epoch = await refresh(live.means, session, view)
            text = await live.text(session, epoch)
        allowed = others.past.since(name, mark)
        assert text in allowed, f"round {number} of {name}: {text!r} not in {allowed!r}"
        epoch.opens += 1
        held[epoch] = text

    with (
        patch.object(ahead._POOL, "start", in_turn),
        patch.object(reader, "is_near", lambda _: False),
    ):
        trio.run(main)
