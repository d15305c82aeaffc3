"""A store, a file system on it, programs, a daemon and accidents, run in one chosen interleaving.

What must hold in every interleaving is checked here, against `tests.support.model`: nothing that was
acknowledged is lost or duplicated, lines keep their order, no step of the daemon is ever missing from
its name, an open shows what the store held at some moment since it was called, and the contents of an
open file never change.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs import config
from fusefs.filesystem import FileSystem
from fusefs.inotify import EventsLostError
from fusefs.session.means import INLINE_STEPS
from fusefs.superblock import Superblock
from storage.errors import StoreError
from storage.store import Store
from tests.support.logged import Logged
from tests.support.model import VIEWS, Past
from tests.support.model_kernel import Caches, ModelKernel
from tests.support.stage import Stage, staged
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

SLUG = "crab_tg-42_1"
REST_SECONDS = 0.03
"""A daemon that has not written for this long may be taken for idle."""
QUIET_SECONDS = 4.0
"""After this long without changes, everything is published, restored and counted."""


@dataclass(frozen=True)
class Story:
    """Who does what, and in which order."""

    programs: tuple[tuple[str, ...], ...] = ()
    """The calls of each program: append, append 3, compact, look VIEW, hold VIEW, stat VIEW, meta."""
    daemon: tuple[str, ...] = ()
    """says, compacts, rests"""
    outside: tuple[str, ...] = ()
    """adds, compacts, moves away, edits, removes, uncompacts, hides, brings back"""
    accidents: tuple[str, ...] = ()
    """overflow, let go, full"""
    steps: int = 2
    """Number of steps at the beginning."""
    options: str = "sync=never"
    wait: bool = True
    """Whether to unmount only once everything is idle."""
    pass_steps: int = 2048
    """Number of steps that a pass reads at most."""
    threads: bool = False
    """Whether every pass runs in a thread, however short."""
    schedule: bytes = b""


@dataclass
class Held:
    """A file that a program keeps open."""

    handle: int
    view: str
    seen: bytes


@dataclass
class Told:
    """What a program knows to be stored: its lines and archives, in the order in which it wrote them."""

    lines: list[bytes] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)


class World:
    """One run of a story."""

    def __init__(self, story: Story, place: Path) -> None:
        self.story = story
        self.store = StoreOnDisk(place / "store")
        first = [entry(f"before {number}") for number in range(story.steps)]
        self.session: SessionOnDisk = self.store.session(SLUG, *first)
        self.past = Past(self.session)
        self.of_daemon: dict[int, bytes] = {}
        """The steps that the daemon has written, by number."""
        self.spoilt: Counter[bytes] = Counter()
        """Steps that others edited or removed."""
        self.told = [Told() for _ in story.programs]
        self.running = 0
        self.ended = False

    # --- the run -----------------------------------------------------------------------------------

    async def run(self, stage: Stage) -> None:
        """Play the story."""
        self.stage = stage
        caches = Caches()
        options = config.parse([self.story.options])
        self.superblock = Superblock(Store(str(self.store.path)), options, caches)
        self.kernel = ModelKernel(FileSystem(self.superblock), caches)
        stage.after.append(self._look_at_store)
        stage.between = {"daemon", "outside"}
        stage.queued = self.superblock.events.watcher._queued
        stage.actors = {
            name: actor
            for name, actor in (
                ("daemon", self._daemon()),
                ("outside", self._outside()),
                ("accident", self._accidents()),
            )
            if getattr(self.story, f"{name}s" if name == "accident" else name)
        }
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._life)
                await stage.conduct(lambda: self.ended)
        finally:
            self.superblock.close()
        self._judge()

    async def _life(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.superblock.run)
            async with trio.open_nursery() as programs:
                for number, calls in enumerate(self.story.programs):
                    programs.start_soon(self._program, number, calls)
            await self.stage.alone.wait()
            if self.story.wait:
                self.stage.calm()
                await trio.sleep(QUIET_SECONDS)
                await self._every_name_shows_the_store()
            self.stage.patient = True
            await self.superblock.finish()
            await self.kernel.forget_everything()
            nursery.cancel_scope.cancel()
        self.ended = True

    # --- programs ------------------------------------------------------------------------------------

    async def _program(self, number: int, calls: tuple[str, ...]) -> None:
        held: list[Held] = []
        for at, call in enumerate(calls):
            await self.stage.gate(f"program {number}: {call}")
            word, _, rest = call.partition(" ")
            try:
                match word:
                    case "append":
                        await self._append(number, at, int(rest or 1))
                    case "compact":
                        await self._compact(number, at)
                    case "meta":
                        await self._put("meta.json", b'{"title":"%d"}' % at)
                    case "stat":
                        await self._stat(rest)
                    case _:
                        await self._open(rest, held if word == "hold" else None)
            except StoreError as error:
                # Only an injected failure may cause an error.
                assert self.stage.failed, f"{call}: {error.sentence}"
            for file in held:
                await self._still_shows(file)
        for file in held:
            await self._still_shows(file)
            await self.kernel.close(file.handle)

    async def _append(self, program: int, at: int, count: int) -> None:
        lines = [entry(f"program {program} call {at} line {number}") for number in range(count)]
        handle = await self.kernel.open(f"{SLUG}/append", os.O_WRONLY)
        try:
            left = lines
            while left:
                data = b"".join(line + b"\n" for line in left)
                taken = await self.kernel.write(handle, data)
                stored = data[:taken].count(b"\n")
                self.told[program].lines += left[:stored]
                left = left[stored:]
        finally:
            await self._close(handle)

    async def _compact(self, program: int, at: int) -> None:
        name = f"program-{program}-call-{at}"
        await self._put("compact", name.encode() + b"\n")
        self.told[program].archives.append(name)

    async def _put(self, name: str, data: bytes) -> None:
        handle = await self.kernel.open(f"{SLUG}/{name}", os.O_WRONLY)
        try:
            assert await self.kernel.write(handle, data) == len(data)
        finally:
            await self._close(handle)

    async def _close(self, handle: int) -> None:
        try:
            await self.kernel.close(handle)
        except StoreError:
            assert self.stage.failed

    async def _stat(self, view: str) -> None:
        """A size must be one that the view has had (G3)."""
        mark = self.past.count(view)
        size = (await self.kernel.stat(f"{SLUG}/{view}")).size
        # Any past size will do: the clock may stand still, and so the kernel's cache stays valid.
        sizes = {len(text) for text in self.past.since(view, 1)}
        assert size in sizes, f"{view} never had {size} bytes, since {mark}: {sorted(sizes)}"

    async def _open(self, view: str, held: list[Held] | None) -> None:
        """An open shows what the store held at some moment since the open was called (G12, G13)."""
        mark = self.past.count(view)
        handle = await self.kernel.open(f"{SLUG}/{view}")
        text = await self._text(handle)
        states = self.past.since(view, mark)
        assert text in states, _differ(view, text, states)
        if held is None:
            await self.kernel.close(handle)
        else:
            held.append(Held(handle, view, text))

    async def _still_shows(self, file: Held) -> None:
        """An open file may only grow (G13)."""
        text = await self._text(file.handle)
        assert text.startswith(file.seen), f"{file.view} changed while it was open"
        file.seen = text

    async def _text(self, handle: int) -> bytes:
        text = b""
        while part := await self.kernel.read(handle, len(text)):
            text += part
        return text

    async def _every_name_shows_the_store(self) -> None:
        for view in VIEWS:
            handle = await self.kernel.open(f"{SLUG}/{view}")
            text = await self._text(handle)
            await self.kernel.close(handle)
            assert text == self.past.now(view), _differ(view, text, [self.past.now(view)])

    # --- others --------------------------------------------------------------------------------------

    def _daemon(self) -> Iterator[str]:
        """The daemon counts in memory, and renames over whatever is there."""
        number = max(self.session.numbers(), default=0)
        for at, does in enumerate(self.story.daemon):
            if does == "rests":
                self.stage.rest(REST_SECONDS)
                yield "daemon rests"
                continue
            number += 1
            data = (
                compaction(f"daemon-{at}")
                if does == "compacts"
                else entry(f"daemon {at}", "assistant")
            )
            temporary = self.session.path / f"step-{number:06}.tmp.daemon{at}"
            temporary.write_bytes(data)
            yield f"daemon writes {temporary.name}"
            temporary.rename(self.session.path / f"step-{number:06}")
            self.of_daemon[number] = data
            yield f"daemon has step {number}"

    def _outside(self) -> Iterator[str]:
        for at, does in enumerate(self.story.outside):
            numbers = [n for n in self.session.numbers() if n not in self.of_daemon]
            target = numbers[at % len(numbers)] if numbers else 0
            if does == "adds":
                yield f"outside adds {self._added(entry(f'outside {at}'))}"
            elif does == "compacts":
                yield f"outside compacts at {self._added(compaction(f'outside-{at}'))}"
            elif does == "moves away":  # as another mount moves a step up: the number is free again
                number = self._added(entry(f"outside {at}"))
                os.unlink(self.session.path / f"step-{number:06}")
                yield f"outside had step {number} for a moment"
            elif does == "uncompacts":
                yield f"outside removes the compaction {self._uncompacted()}"
            elif does == "brings back":
                back = [
                    hidden.name
                    for hidden in self.session.path.glob(".hidden-*")
                    if self._back(hidden)
                ]
                yield f"outside brings back {' '.join(back)}"
            elif target:
                self.spoilt[self.session.step(target)] += 1
                path = self.session.path / f"step-{target:06}"
                if does == "edits":
                    path.with_name(".edited").write_bytes(entry(f"edited {at}"))
                    path.with_name(".edited").rename(path)
                elif does == "hides":
                    path.rename(path.with_name(f".hidden-{path.name}"))
                else:
                    path.unlink()
                yield f"outside {does} {target}"

    def _uncompacted(self) -> int | None:
        numbers = [n for n in self.session.numbers() if n not in self.of_daemon]
        found = [n for n in numbers if b"archive_name" in self.session.step(n)]
        if not found:
            return None
        self.spoilt[self.session.step(found[-1])] += 1
        os.unlink(self.session.path / f"step-{found[-1]:06}")
        return found[-1]

    def _back(self, hidden: Path) -> bool:
        path = hidden.with_name(hidden.name.removeprefix(".hidden-"))
        free = not path.exists()
        if free:
            hidden.rename(path)
        return free

    def _added(self, data: bytes) -> int:
        """Link the next step as another mount does: only the daemon counts in memory."""
        number = max(self.session.numbers(), default=0) + 1
        temporary = self.session.path / f".other-{number}"
        temporary.write_bytes(data)
        os.link(temporary, self.session.path / f"step-{number:06}")
        temporary.unlink()
        return number

    def _accidents(self) -> Iterator[str]:
        for does in self.story.accidents:
            if does == "overflow":
                self._lose_events()
            elif does == "let go":
                self.superblock.pool.let_go()
            else:
                self.stage.failing.append(errno.ENOSPC)
            yield does

    def _lose_events(self) -> None:
        watcher = self.superblock.events.watcher
        drain = watcher.drain

        def drain_late() -> list[object]:
            watcher.drain = drain  # type: ignore[method-assign]
            drain()
            raise EventsLostError

        watcher.drain = drain_late  # type: ignore[method-assign, assignment]

    # --- what must hold --------------------------------------------------------------------------------

    def _look_at_store(self) -> None:
        """Called after each act and each system call."""
        self.past.note()
        for number, data in self.of_daemon.items():
            path = self.session.path / f"step-{number:06}"
            if path.name in self.stage.renamed and not path.exists():
                continue  # displaced between a check and the rename: it has to come back
            assert path.exists(), f"the daemon's step {number} is missing from its name"
            assert path.read_bytes() == data, f"the daemon's step {number} is another's"

    def _judge(self) -> None:
        """At the end, everything acknowledged is there exactly once and in order (G15, G16)."""
        self.stage.renamed.clear()
        self._look_at_store()
        steps = self.session.steps()
        times = Counter(steps)
        said = [json.loads(line) for line in self.superblock.failures.text().splitlines()]
        for told in self.told:
            for line in told.lines:
                assert times[line] <= 1, f"twice: {line!r}"
                is_late = any(failure["code"] == "steps-lost" for failure in said)
                assert times[line] or self.spoilt[line] or is_late, f"lost: {line!r}"
            kept = [step for step in steps if step in told.lines]
            assert kept == [line for line in told.lines if times[line]], "out of order"
            archives = [json.loads(step).get("archive_name") for step in steps]
            for name in told.archives:
                assert archives.count(name) <= 1
                is_told = any(name in line["error"] for line in said)
                assert name in archives or is_told or self.spoilt, f"lost silently: {name}"
        told_lines = {line for told in self.told for line in told.lines}
        strays = [s for s in steps if b"program" in s and b"message" in s and s not in told_lines]
        assert strays == [], "refused, but stored"
        left = [name for name in os.listdir(self.session.path) if name.startswith(".stepfs")]
        assert left == []


def _differ(view: str, text: bytes, states: list[bytes]) -> str:
    return f"{view} shows\n{text.decode()}\nand none of\n" + "\n".join(s.decode() for s in states)


def play(story: Story) -> list[str]:
    """Play a story and return its trace. Raises `AssertionError`, with the trace as a note."""
    place = Path(tempfile.mkdtemp(prefix="stepfs-stage-", dir=_memory()))
    clock = trio.testing.MockClock()
    logged = Logged()
    try:
        world = World(story, place)
        with (
            staged(story.schedule, clock) as stage,
            patch("fusefs.session.building.PASS_STEPS", story.pass_steps),
            patch("fusefs.session.means.INLINE_STEPS", -1 if story.threads else INLINE_STEPS),
        ):
            try:
                trio.run(world.run, stage, clock=clock)
            except BaseException as error:
                gc.collect()  # leftover tasks must not be finalized during another run
                first = _first(error)
                again = "from tests.support.interleaving import Story, replay"
                first.add_note("\n".join([*stage.trace, "", again, f"replay({story!r})"]))
                raise first from None
        if not stage.failed:
            strange = [line for line in logged.lines if not _is_fine(line)]
            assert strange == [], "\n".join(["logged", *strange, *stage.trace])
        return stage.trace
    finally:
        logged.stop()
        shutil.rmtree(place, ignore_errors=True)


def replay(story: Story) -> list[str]:
    """Play a story again; return its trace.

    Runs under Hypothesis, because only there is trio's scheduling deterministic.
    """
    found: list[str] = []

    @settings(max_examples=1, deadline=None, database=None)
    @given(st.just(story))
    def once(story: Story) -> None:
        found[:] = play(story)

    once()
    return found


def _first(error: BaseException) -> BaseException:
    """The first error of a group; the others are its consequences."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_fine(line: str) -> bool:
    """Whether a line is expected: a displaced compaction is reported, and time may pass before a count
    is written or a step stored."""
    late = ("could not be written in time", "the mount ended before they could be stored")
    return "replaced the compaction" in line or any(words in line for words in late)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
