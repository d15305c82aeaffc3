"""A stage: everything that could run concurrently runs one at a time, in an order chosen from outside.

Tasks wait at gates, threads before the system calls of certain modules; actors, which stand for other
processes such as a daemon, are generators whose every step is one act. Whenever nothing runs any more,
one of the candidates is chosen and runs alone; before a system call on the loop, actors that are other
processes may act. The clock advances only when that is chosen. Only the order is artificial: the files,
the inotify queue and the threads are real.

A schedule is a string of bytes, and each choice consumes one; once it is used up, the first candidate
goes on. So the same schedule gives the same run, and a shorter schedule is a simpler run.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from unittest.mock import patch

import trio
import trio.testing

from storage.posix import rename_new

T = TypeVar("T")
STAGED: Final = ("storage.session.", "fusefs.session.")
"""The modules that check, claim, move and restore steps; `meta` has a test of its own."""
CALLS: Final = ("open", "link", "rename", "unlink", "stat", "scandir", "fsync", "fdatasync")
ACTS_FROM: Final = 176
"""Before a system call on the loop, a byte lets an actor act only if it is at least this."""
EVENTS: Final = "events"
MOVES_MAX: Final = 4000
ACTOR_SECONDS: Final = 20.0


class StuckError(AssertionError):
    """Nothing can proceed, or the run does not end."""


Actor = Iterator[str]
"""Performs one act for each `next`, and yields a description of it."""


@dataclass(eq=False)
class _Gate:
    label: str
    opened: trio.Event = field(default_factory=trio.Event)


class _Thread:
    """Work in a thread; the loop stands still while it runs to its next system call or its end."""

    def __init__(self, stage: Stage, work: Callable[[], Any]) -> None:
        self.label = "begins"
        self.done = trio.Event()
        self.outcome: Callable[[], Any]
        self._work = work
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._stage = stage
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def proceed(self) -> bool:
        """Run up to the next system call; return whether the work is done."""
        self._go.release()
        if not self._back.acquire(timeout=ACTOR_SECONDS):
            raise StuckError(f"a thread does not come back: {self.label}")
        return not self.label

    def pause(self, label: str) -> None:
        """Called in the thread: wait until it is chosen."""
        self.label = label
        self._back.release()
        self._go.acquire()

    def let_go(self) -> None:
        """Let the work run to its end."""
        self._go.release()
        self._thread.join(ACTOR_SECONDS)

    def _run(self) -> None:
        self._go.acquire()
        self._stage.current.thread = self
        try:
            found = self._work()
        except BaseException as error:
            self.outcome = functools.partial(_raise, error)
        else:
            self.outcome = lambda: found
        if not self._stage.over:
            self.pause("ends")
        self.label = ""
        self._back.release()


def _raise(error: BaseException) -> None:
    raise error


class Stage:
    """Runs one thing after another. Used within the loop that it orders."""

    def __init__(self, schedule: bytes, clock: trio.testing.MockClock) -> None:
        self.actors: dict[str, Actor] = {}
        """The actors by name; an exhausted one is removed."""
        self.between: set[str] = set()
        """The actors that are other processes, and so may act between any two system calls."""
        self.alone = trio.Event()
        """Set once no actor has anything left to do."""
        self.after: list[Callable[[], None]] = []
        """Called after each act and each system call that may change the store."""
        self.trace: list[str] = []
        self.failing: list[int] = []
        """The errnos with which the next system calls that change the store fail."""
        self.failed = 0
        self.queued: Callable[[], int] = lambda: 0
        """The number of bytes of events that are queued."""
        self.renamed: set[str] = set()
        """Names that files were renamed from, and that were not reused since."""
        self.patient = False
        """Let time pass only when nothing else can proceed."""
        self.current = threading.local()
        self.over = False
        """The run is over: whatever is unfinished runs to its end, in no particular order."""
        self._schedule = list(reversed(schedule))
        self._clock = clock
        self._loop = threading.current_thread()
        self._gates: list[_Gate] = []
        self._threads: list[_Thread] = []

    # --- who waits ---------------------------------------------------------------------------------

    async def gate(self, label: str) -> None:
        """Wait until this task is chosen."""
        if self.over:
            await trio.lowlevel.checkpoint()
            return
        gate = _Gate(label)
        self._gates.append(gate)
        try:
            await gate.opened.wait()
        finally:
            if gate in self._gates:
                self._gates.remove(gate)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Replaces `trio.to_thread.run_sync`."""
        if self.over:
            return work(*args)
        thread = _Thread(self, functools.partial(work, *args))
        self._threads.append(thread)
        with trio.CancelScope(shield=True):
            await thread.done.wait()
        found: T = thread.outcome()
        return found

    def call(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A system call of the mount: others may run before it."""
        label = f"{name} {_shown(args)}"
        if self.over:
            return function(*args, **kwargs)
        thread = getattr(self.current, "thread", None)
        if thread is not None:
            thread.pause(label)
        elif threading.current_thread() is self._loop:  # not a helper thread that only reads ahead
            self._let_act(label)
        changes = name in ("link", "rename", "unlink") or (
            name == "open" and any(isinstance(arg, int) and arg & os.O_WRONLY for arg in args)
        )
        if changes and self.failing:
            self.failed += 1
            number = self.failing.pop(0)
            self.trace.append(f"    {label} fails: {os.strerror(number)}")
            raise OSError(number, os.strerror(number))
        try:
            done = function(*args, **kwargs)
            if name == "rename":
                self.renamed.add(args[0])
            if name in ("link", "rename"):
                self.renamed.discard(args[1])
            return done
        finally:
            self.trace.append(f"    {label}")
            if changes:
                self._changed()

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.jump(seconds)

    def calm(self) -> None:
        """Always choose the first candidate; let time pass only when nothing else can proceed."""
        self._schedule.clear()

    def end(self) -> None:
        """Stop ordering: whatever waits runs to its end."""
        self.over = True
        for gate in self._gates:
            gate.opened.set()
        for thread in self._threads:
            thread.let_go()
            thread.done.set()
        self._threads.clear()

    # --- who goes on ---------------------------------------------------------------------------------

    async def conduct(self, until: Callable[[], bool]) -> None:
        """Let one after another proceed, until `until()` holds."""
        try:
            for _ in range(MOVES_MAX):
                self._see_who_is_left()
                await trio.testing.wait_all_tasks_blocked()
                if until():
                    return
                self._go_on()
            raise StuckError("the run does not end")
        finally:
            self.end()

    def _go_on(self) -> None:
        moves = self._moves()
        if not moves:
            raise StuckError("nothing can proceed")
        label, move = moves[self._choose(len(moves))]
        self.trace.append(label)
        move()

    def _moves(self) -> Sequence[tuple[str, Callable[[], None]]]:
        moves: list[tuple[str, Callable[[], None]]] = [
            *((g.label, functools.partial(self._open, g)) for g in self._gates if self._may(g)),
            *((f"thread: {t.label}", functools.partial(self._proceed, t)) for t in self._threads),
            *((f"{name} acts", functools.partial(self._act, name)) for name in self.actors),
        ]
        left = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if left != float("inf") and not (self.patient and moves):
            moves.append(
                (f"{left:.3f} s pass", functools.partial(self._clock.jump, max(left, 1e-6)))
            )
        return moves

    def _may(self, gate: _Gate) -> bool:
        return gate.label != EVENTS or self.queued() > 0

    def _open(self, gate: _Gate) -> None:
        self._gates.remove(gate)
        gate.opened.set()

    def _proceed(self, thread: _Thread) -> None:
        if thread.proceed():
            self._threads.remove(thread)
            thread.done.set()
        else:  # at the end of the queue: others that wait go first
            self._threads.remove(thread)
            self._threads.append(thread)

    def _let_act(self, label: str) -> None:
        while (names := [name for name in self.actors if name in self.between]) and (
            choice := self._byte()
        ) >= ACTS_FROM:
            name = names[(choice - ACTS_FROM) % len(names)]
            self.trace.append(f"before {label}: {name} acts")
            self._act(name)

    def _act(self, name: str) -> None:
        try:
            self.trace.append(f"    {next(self.actors[name])}")
        except StopIteration:
            del self.actors[name]
            self._see_who_is_left()
        self._changed()

    def _see_who_is_left(self) -> None:
        if not self.actors:
            self.alone.set()

    def _changed(self) -> None:
        for noted in self.after:
            noted()

    def _choose(self, count: int) -> int:
        return self._byte() % count if count > 1 else 0

    def _byte(self) -> int:
        return self._schedule.pop() if self._schedule else 0


class _StagedOs(types.ModuleType):
    """`os`, with calls on files that wait for their turn."""

    def __init__(self, stage: Stage) -> None:
        super().__init__("os")
        for name, value in vars(os).items():
            if name in CALLS:
                value = functools.partial(stage.call, name, value)
            self.__dict__[name] = value


def _shown(args: Sequence[Any]) -> str:
    """The names among the arguments, without the parts that differ in every run."""
    names = " ".join(arg for arg in args if isinstance(arg, str))
    return re.sub(r"[0-9a-f]{16}|(?<=/fd/)\d+", "*", names)


@contextmanager
def staged(schedule: bytes, clock: trio.testing.MockClock) -> Iterator[Stage]:
    """A stage for a trio loop that uses this clock."""
    stage = Stage(schedule, clock)
    own_os = _StagedOs(stage)

    async def in_thread(work: Callable[..., Any], *args: Any, **_options: Any) -> Any:
        return await stage.in_thread(work, *args)

    async def readable(_fd: object) -> None:
        await stage.gate(EVENTS)

    with (
        patch("trio.to_thread.run_sync", in_thread),
        patch("trio.lowlevel.wait_readable", readable),
        patch("time.monotonic", clock.current_time),
        patch("storage.session.reader.monotonic", clock.current_time),
        patch("time.sleep", lambda _: None),
        patch(
            "storage.session.moving.rename_new",
            functools.partial(stage.call, "rename", rename_new),
        ),
    ):
        changed = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith(STAGED) and vars(module).get("os") is os and "meta" not in name
        ]
        for module in changed:
            module.__dict__["os"] = own_os
        try:
            yield stage
        finally:
            stage.end()
            for module in changed:
                module.__dict__["os"] = os
