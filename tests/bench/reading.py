"""Reading histories: warm, for the first time, and long ones of which only the end matters."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import orjson

from tests.bench import data
from tests.bench.floor import floor
from tests.bench.resources import resident
from tests.bench.rows import Row, compared
from tests.bench.timing import interleaved, read, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk


def bare_loop(session: Path) -> None:
    """The fastest way to read all steps: open by descriptor, read, close, parse, and nothing else."""
    directory = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
    for name in sorted(os.listdir(directory)):
        if name.startswith("step-"):
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
            orjson.loads(os.read(fd, 1 << 16))
            os.close(fd)
    os.close(directory)


def sorted_listing(session: Path) -> None:
    """The minimum that any reader of a session has to do."""
    sorted(os.listdir(session))


def warm(place: Path, quick: bool) -> Iterator[Row]:
    """A second read of a history, against a server that does nothing else and against a plain file.

    Much depends on where in memory the pages are, so all are read in anew several times.
    """
    for mib, beside_floor in ((8, 1.1), (64, 1.1)):
        store = StoreOnDisk(place / f"store{mib}")
        session = data.session(store, "crab_tg-42_1")
        data.names(session, 1, mib << 8, data.entry_of(4096))
        times: list[list[float]] = [[], [], []]
        for _ in range(2 if quick else 6):
            rounds = _warm_rounds(store, place, session.name, mib << 20, 160 // mib)
            for taken, more in zip(times, rounds, strict=True):
                taken += more
        ours, floors, plains = times
        yield compared(f"warm read of {mib} MiB / floor", ours, floors, beside_floor)
        yield compared(f"warm read of {mib} MiB / plain file", ours, plains, None)


def _warm_rounds(
    store: StoreOnDisk, place: Path, slug: str, size: int, rounds: int
) -> list[list[float]]:
    plain = place / "plain"
    plain.mkdir(exist_ok=True)
    (plain / "file").unlink(missing_ok=True)
    (plain / "file").write_bytes(os.urandom(size))
    with floor(plain, place / "floor") as idle, mounted(store.path, place) as mount:
        files = (mount.path / slug / "history.jsonl", idle / "file", plain / "file")
        assert {read(path) for path in files} == {size}
        return interleaved(rounds, *(timed(partial(read, path)) for path in files))


def first(place: Path, quick: bool) -> Iterator[Row]:
    """The first read after mounting of 20,000 steps, without compactions."""
    steps = 4000 if quick else 20_000
    store = StoreOnDisk(place / "store")
    plain, tools = data.session(store, "crab_tg-42_1"), data.session(store, "crab_tg-42_2")
    data.files(plain, 1, steps, data.LINE)
    data.turns(tools, steps)
    for session, of in ((plain, "plain entries"), (tools, "entries with tools, and events")):
        name = f"first read of {steps:,} {of} / bare loop"
        yield _beside(store, place, 2 if quick else 9, session, name, bare_loop, 1.8)


def long(place: Path, quick: bool) -> Iterator[Row]:
    """The first read of 100,000 steps of which only the last 100 belong to the history."""
    steps = 20_000 if quick else 100_000
    store = StoreOnDisk(place / "store")
    session = data.compacted(store, "crab_tg-42_1", steps)
    name = f"last compaction 100 from the end of {steps:,} steps / listing and sorting"
    yield _beside(store, place, 2 if quick else 9, session, name, sorted_listing, 2.5)


def million(place: Path, quick: bool) -> Iterator[Row]:
    """The cost per step of reading all of 1,000,000 steps, against 20,000."""
    counts = (4000, 40_000) if quick else (20_000, 1_000_000)
    ours, loops, memory = [], [], 0.0
    for count in counts:
        store = StoreOnDisk(place / f"store-{count}")
        session = data.session(store, "crab_tg-42_1")
        data.names(session, 1, count, data.LINE)
        costs, loop_costs = [], []
        for _ in range(1 if count == counts[1] else 5):
            with mounted(store.path, place) as mount:
                path = mount.path / session.name / "history.jsonl"
                costs.append(timed(partial(read, path))() / count)
                memory = resident(mount)
            loop_costs.append(timed(partial(bare_loop, session))() / count)
        ours.append(statistics.median(costs))
        loops.append(statistics.median(loop_costs))
    yield Row(
        f"cost of a step of {counts[1]:,} / of {counts[0]:,}", ours[1] * 1e3, ours[0] * 1e3, 1.5
    )
    yield Row("the same of the bare loop", loops[1] * 1e3, loops[0] * 1e3, None)
    yield Row("resident memory after it", memory, None, 200, unit="MiB", of_ratio=False)


def _beside(
    store: StoreOnDisk,
    place: Path,
    rounds: int,
    session: Path,
    name: str,
    baseline: Callable[[Path], None],
    goal: float,
) -> Row:
    mounts = _first_reads(store, place, rounds, Path(session.name) / "history.jsonl")
    ours, theirs = interleaved(rounds, partial(next, mounts), timed(partial(baseline, session)))
    return compared(name, ours, theirs, goal)


def _first_reads(store: StoreOnDisk, place: Path, rounds: int, file: Path) -> Iterator[float]:
    for _ in range(rounds):
        with mounted(store.path, place) as mount:
            yield timed(partial(read, mount.path / file))()
