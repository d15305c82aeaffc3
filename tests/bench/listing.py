"""Listing many sessions: their names, and what is said of each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import orjson

from tests.bench import data
from tests.bench.reading import read
from tests.bench.rows import Row, compared
from tests.bench.timing import Measure, interleaved, timed
from tests.support.mounted import mounted
from tests.support.stores import META, StoreOnDisk

CHANGES = 3


def plain_loop(store: Path) -> None:
    """What a script does that wants every meta."""
    for name in sorted(os.listdir(store)):
        with open(store / name / "meta", "rb") as file:
            orjson.loads(file.read())


def ls(place: Path, quick: bool) -> Iterator[Row]:
    """`ls` of a mount just made, beside `ls -l` of the store."""
    for count in (10_000,) if quick else (10_000, 100_000):
        store = data.many_sessions(place, count)
        cold = _cold(store, place, lambda mount: timed(partial(_ls, mount))())
        plain = timed(partial(_ls, store.path, "-l"))
        ours, theirs = interleaved(3 if quick else 5, cold, plain)
        yield compared(f"ls of {count:,} sessions, cold / ls -l of the store", ours, theirs, 3)


def catalogue(place: Path, quick: bool) -> Iterator[Row]:
    """`sessions.jsonl` of a mount just made, and again after one change."""
    for count in (10_000,) if quick else (10_000, 100_000):
        store = data.many_sessions(place, count)
        again: list[float] = []
        cold = _cold(store, place, partial(_read_catalogue, store=store, again=again))
        plain = timed(partial(plain_loop, store.path))
        ours, loops = interleaved(3 if quick else 5, cold, plain)
        yield compared(f"sessions.jsonl of {count:,}, cold / plain loop", ours, loops, 2)
        yield compared(f"sessions.jsonl of {count:,}, one changed / cold", again, ours, 0.1)


def _read_catalogue(mount: Path, store: StoreOnDisk, again: list[float]) -> float:
    """The time of the first read; those after a change go to `again`."""
    path = mount / ".stepfs/sessions.jsonl"
    first = timed(partial(read, path))()
    for number in range(1, CHANGES + 1):
        title = f"changed {len(again)}"
        _rename_meta(store.path / f"crab_tg-{number}_{number}", title)
        again.append(timed(partial(read, path))())
        assert title in path.read_text()
    return first


def _rename_meta(session: Path, title: str) -> None:
    (session / "meta.tmp").write_text(json.dumps({**META, "title": title}))
    (session / "meta.tmp").rename(session / "meta")


def _cold(store: StoreOnDisk, place: Path, work: Callable[[Path], float]) -> Measure:
    """A measure on a mount just made; what `work` returns is the time."""

    def measure() -> float:
        with mounted(store.path, place) as mount:
            return work(mount.path)

    return measure


def _ls(directory: Path, *options: str) -> None:
    subprocess.run(["ls", *options, directory], stdout=subprocess.DEVNULL, check=True)
