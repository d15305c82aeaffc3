"""Writing: many lines at once, one message at a time, and in sessions of any length."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

from tests.bench import data
from tests.bench.floor import floor
from tests.bench.image import can_mount, fresh_filesystem
from tests.bench.rows import Row, compared, percentile
from tests.bench.timing import Measure, interleaved, read, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk

LINES = 10_000
OTHERS = 50


def claim_all(directory: Path, sync: bool) -> None:
    """The fastest way to store 10,000 steps: link unnamed files, then optionally sync once."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(1, LINES + 1):
        step = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o644)
        os.write(step, data.LINE)
        name = f"step-{number:06}"
        os.link(f"/proc/self/fd/{step}", name, dst_dir_fd=fd, follow_symlinks=True)
        os.close(step)
    if sync:
        os.sync()
    os.close(fd)


def rename_one(directory: Path, number: int) -> None:
    """How to store one step durably without the mount: write, sync, rename, sync the directory."""
    fd = os.open(directory / "temporary", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, data.LINE)
    os.fdatasync(fd)
    os.close(fd)
    os.rename(directory / "temporary", directory / f"step-{number:06}")
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def append_one(control: Path) -> None:
    """Open, write, close."""
    fd = os.open(control, os.O_WRONLY)
    os.write(fd, data.LINE + b"\n")
    os.close(fd)


def bulk(place: Path, quick: bool) -> Iterator[Row]:
    """10,000 lines written into `append` by `cat`."""
    lines = place / "lines"
    lines.write_bytes((data.LINE + b"\n") * LINES)
    for sync in ("never", "close"):
        store = StoreOnDisk(place / f"store-{sync}")
        with mounted(store.path, place, f"sync={sync}") as mount:
            rounds = 2 if quick else 9
            cats = (_cat(lines, mount.path, store, n) for n in count(1))
            loops = (_claims(place / f"plain-{sync}-{n}", sync == "close") for n in count(1))
            ours, plain = interleaved(rounds, partial(next, cats), partial(next, loops))
        loop = "bare claim loop" + (" + syncfs" if sync == "close" else "")
        yield compared(f"10,000 lines by cat, sync={sync} / {loop}", ours, plain, 1.6)


def beside(place: Path, quick: bool) -> Iterator[Row]:
    """Opens and reads of other sessions during a bulk append of 20,000 lines."""
    yield _beside(place / "plain", quick, "", 10)
    if can_mount():
        with fresh_filesystem(place / "slow", "sync") as slow:
            yield _beside(slow / "store", quick, " on a disk where each claim waits", 20)


def _beside(place: Path, quick: bool, where: str, goal: float) -> Row:
    place.mkdir()
    lines = place / "lines"
    lines.write_bytes((data.LINE + b"\n") * (2000 if quick else 20_000))
    store = data.sessions(place, OTHERS, 10)
    busy = data.session(store, "crab_busy_1")
    times: list[float] = []
    with mounted(store.path, place, "sync=never") as mount:
        histories = [mount.path / data.slug_of(n) / "history.jsonl" for n in range(1, OTHERS + 1)]
        for history in histories:
            read(history)
        with (mount.path / busy.name / "append").open("wb") as append:
            with subprocess.Popen(["cat", str(lines)], stdout=append) as cat:
                while cat.poll() is None:
                    times += [timed(partial(read, history))() for history in histories[:10]]
            assert cat.returncode == 0
    title = f"open and read elsewhere during a bulk append{where}, p99"
    return Row(title, percentile(times, 99) * 1e3, None, goal, of_ratio=False)


def one(place: Path, quick: bool) -> Iterator[Row]:
    """One message: open, write, close."""
    rounds = 100 if quick else 1000
    nothing = place / "nothing"
    nothing.mkdir()
    (nothing / "append").touch()
    with floor(nothing, place / "floor") as served:
        yield _one(place, rounds, "never", "floor", lambda: append_one(served / "append"), 1.6)
    plain, numbers = place / "plain", count(1)
    plain.mkdir()
    script = "write, fdatasync, rename, fsync of the directory"
    yield _one(place, rounds, "close", script, lambda: rename_one(plain, next(numbers)), 1.3)


def _one(
    place: Path, rounds: int, sync: str, beside: str, other: Callable[[], None], goal: float
) -> Row:
    store = StoreOnDisk(place / f"store-{sync}")
    session = data.session(store, "crab_tg-42_1")
    with mounted(store.path, place, f"sync={sync}") as mount:
        control = mount.path / session.name / "append"
        ours, others = interleaved(rounds, timed(lambda: append_one(control)), timed(other))
    return compared(f"one append, sync={sync} / {beside}", ours, others, goal)


def length(place: Path, quick: bool) -> Iterator[Row]:
    """The same operations in a session of a million steps and in one of a hundred."""
    store = StoreOnDisk(place / "store")
    steps = 200_000 if quick else 1_000_000
    long = data.compacted(store, "crab_tg-42_1", steps)
    short = data.compacted(store, "crab_tg-42_2", 100)
    with mounted(store.path, place, "sync=never") as mount:
        for session in (long, short):
            read(mount.path / session.name / "history.jsonl")
        series: list[list[float]] = interleaved(
            50 if quick else 400,
            *(
                timed(partial(work, mount.path / session.name / name))
                for name, work in (
                    ("append", append_one),
                    ("history.jsonl", os.stat),
                    ("history.jsonl", _open),
                )
                for session in (long, short)
            ),
        )
    for name, at in (("append to", 0), ("stat of", 2), ("open of", 4)):
        title = f"{name} a session of {steps:,} steps / of 100"
        yield compared(title, series[at], series[at + 1], 1.5)


def _cat(lines: Path, mountpoint: Path, store: StoreOnDisk, number: int) -> float:
    session = data.session(store, f"crab_tg-42_{number}")

    def cat() -> None:
        with (mountpoint / session.name / "append").open("wb") as append:
            subprocess.run(["cat", lines], stdout=append, check=True)

    taken = timed(cat)()
    stored = sum(name.startswith("step-") for name in os.listdir(session))
    assert stored == LINES, f"{stored} steps are stored"
    return taken


def _claims(directory: Path, sync: bool) -> float:
    directory.mkdir()
    measure: Measure = timed(partial(claim_all, directory, sync))
    return measure()


def _open(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))
