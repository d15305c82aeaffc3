"""Writing: many lines at once, one message at a time, and in sessions of any length."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from tests.bench import data
from tests.bench.reading import read
from tests.bench.rows import Row, compared
from tests.bench.timing import Measure, interleaved, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk

LINES = 10_000


def claim_all(directory: Path, sync: bool) -> None:
    """What a script does at best that stores 10,000 steps: unnamed files, linked, one sync."""
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


def rename_one(directory: Path, number: int, sync: bool) -> None:
    """What a script does that stores one step: a temporary, renamed."""
    fd = os.open(directory / "temporary", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, data.LINE)
    if sync:
        os.fdatasync(fd)
    os.close(fd)
    os.rename(directory / "temporary", directory / f"step-{number:06}")


def append_one(control: Path) -> None:
    """Open, write, close."""
    fd = os.open(control, os.O_WRONLY)
    os.write(fd, data.LINE + b"\n")
    os.close(fd)


def bulk(place: Path, quick: bool) -> Iterator[Row]:
    """10,000 lines into `append`, by `cat`."""
    lines = place / "lines"
    lines.write_bytes((data.LINE + b"\n") * LINES)
    for sync in ("never", "close"):
        store = StoreOnDisk(place / f"store-{sync}")
        with mounted(store.path, place, f"sync={sync}") as mount:
            rounds = 2 if quick else 7
            cats = (_cat(lines, mount.path, store, n) for n in count(1))
            loops = (_claims(place / f"plain-{sync}-{n}", sync == "close") for n in count(1))
            ours, plain = interleaved(rounds, partial(next, cats), partial(next, loops))
        name = f"cat of 10,000 lines into append, sync={sync} / plain loop"
        yield compared(name, ours, plain, 1.5)


def one(place: Path, quick: bool) -> Iterator[Row]:
    """One message: open, write, close."""
    rounds = 100 if quick else 1000
    yield _one_message(place, rounds, "never", "temporary+write+rename", 3)
    yield _one_message(place, rounds, "close", "temporary+write+fdatasync+rename", 2)


def _one_message(place: Path, rounds: int, sync: str, script: str, limit: float) -> Row:
    store = StoreOnDisk(place / f"store-{sync}")
    session = data.session(store, "crab_tg-42_1")
    plain = place / f"plain-{sync}"
    plain.mkdir()
    with mounted(store.path, place, f"sync={sync}") as mount:
        control, numbers = mount.path / session.name / "append", count(1)
        ours, scripts = interleaved(
            rounds,
            timed(lambda: append_one(control)),
            timed(lambda: rename_one(plain, next(numbers), sync == "close")),
        )
    return compared(f"append of one message, sync={sync} / {script}", ours, scripts, limit)


def length(place: Path, quick: bool) -> Iterator[Row]:
    """The same things done in a session of a million steps and in one of a hundred."""
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
