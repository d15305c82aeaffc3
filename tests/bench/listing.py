"""Looking at many sessions: `ls`, `ls -l` and `grep -r`, against a server that only serves the bytes.

The first pass over a fresh mount is called cold, the second "again".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import data
from tests.bench.floor import floor
from tests.bench.resources import processor_seconds, resident
from tests.bench.rows import Row, compared
from tests.bench.timing import shell, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk

LS_L: Final = 'ls -l "$1"/*'
GREP: Final = 'grep -r "no such words" "$1" || [ $? -eq 1 ]'
GREP_HISTORIES: Final = 'grep -r --include=history.jsonl "no such words" "$1" || [ $? -eq 1 ]'
CAT_STEPS: Final = 'find "$1" -name "step-*" -exec cat {} +'


def looks(place: Path, quick: bool) -> Iterator[Row]:
    """`ls -l` and `grep -r` over 1,000 sessions of 50 steps, cold and again."""
    count = 200 if quick else 1000
    store = data.sessions(place, count, 50)
    copy = _copied(store, place)
    rounds = 2 if quick else 7
    yield from _cold_and_again(f"ls -l of {count:,} sessions", LS_L, store, copy, rounds, (4, 1.5))
    name = f"grep -r over {count:,} sessions"
    yield from _cold_and_again(name, GREP, store, copy, rounds, (4, 1.5))
    yield from _histories(store, copy, place, rounds)


def many(place: Path, quick: bool) -> Iterator[Row]:
    """The server's CPU time per session in a later pass over 3,000 sessions, against one over 900."""
    small, large = (90, 300) if quick else (900, 3000)
    seconds = []
    for count in (small, large):
        store = data.sessions(place, count, 50)
        with mounted(store.path, place) as mount:
            shell(GREP_HISTORIES, mount.path)
            before = processor_seconds(mount)
            for _ in range(3):
                shell(GREP_HISTORIES, mount.path)
            seconds.append((processor_seconds(mount) - before) / 3 / count)
            memory = resident(mount)
    name = f"second grep over {large:,} histories / {small:,}, server's time a session"
    yield Row(name, seconds[1] * 1e3, seconds[0] * 1e3, 1.5)
    yield Row("resident memory after it", memory, None, 200, unit="MiB", of_ratio=False)


def _copied(store: StoreOnDisk, place: Path) -> Path:
    """Copy the files of the mount to plain files, for the floor to serve."""
    copy = place / "copy"
    with mounted(store.path, place) as mount:
        shutil.copytree(mount.path, copy, ignore=shutil.ignore_patterns(".stepfs"))
    return copy


def _cold_and_again(
    name: str,
    command: str,
    store: StoreOnDisk,
    copy: Path,
    rounds: int,
    goals: tuple[float, float],
) -> Iterator[Row]:
    ours: list[list[float]] = [[], []]
    floors: list[list[float]] = [[], []]
    for _ in range(rounds):
        with mounted(store.path, copy.parent) as mount:
            for times in ours:
                times.append(timed(partial(shell, command, mount.path))())
        # Cold, the floor is asked for everything; for "again", the kernel's caches have been filled.
        with floor(copy, copy.parent / "floor", ask=True) as served:
            floors[0].append(timed(partial(shell, command, served))())
        with floor(copy, copy.parent / "floor") as served:
            shell(command, served)
            floors[1].append(timed(partial(shell, command, served))())
    yield compared(f"{name}, cold / floor", ours[0], floors[0], goals[0])
    yield compared(f"{name}, again / floor", ours[1], floors[1], goals[1])


def _histories(store: StoreOnDisk, copy: Path, place: Path, rounds: int) -> Iterator[Row]:
    cold, again, cats, floors = [], [], [], []
    for _ in range(rounds):
        with mounted(store.path, place) as mount:
            cold.append(timed(partial(shell, GREP_HISTORIES, mount.path))())
            again.append(timed(partial(shell, GREP_HISTORIES, mount.path))())
        cats.append(timed(partial(shell, CAT_STEPS, store.path))())
        with floor(copy, place / "floor") as served:
            shell(GREP_HISTORIES, served)
            floors.append(timed(partial(shell, GREP_HISTORIES, served))())
    yield compared("grep of all histories, cold / cat of all steps", cold, cats, 1.5)
    yield compared("grep of all histories, again / floor", again, floors, 1.5)
