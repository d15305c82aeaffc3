"""A session's past: its epochs, the history as of a step or a time, and forks."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import data
from tests.bench.rows import Row
from tests.bench.timing import read, shell, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk, compaction

EPOCHS: Final = 200
SLUG: Final = "crab_tg-42_1"


def past(place: Path, quick: bool) -> Iterator[Row]:
    """The past of a session of 100,000 steps and 200 epochs."""
    steps = 10_000 if quick else 100_000
    store = StoreOnDisk(place / "store")
    session = data.session(store, SLUG)
    data.files(session, 1, steps, data.LINE)
    for end in range(steps // EPOCHS, steps, steps // EPOCHS):
        data.files(session, end, 1, compaction(f"archive-{end}"))
    rounds = [_looked(store, place) for _ in range(1 if quick else 5)]
    scan, again, epoch, history, first_time, time = map(
        statistics.median, zip(*rounds, strict=True)
    )
    of = f"of {steps:,} steps and {EPOCHS} epochs"
    yield Row(f"first listing of .epochs {of}", scan * 1e3, None, None)
    yield Row("listing .epochs again", again * 1e3, None, 10, of_ratio=False)
    yield Row("a closed epoch, cold / the history, cold", epoch * 1e3, history * 1e3, 1.5)
    yield Row(".at/<time>, the first one", first_time * 1e3, None, None)
    yield Row(".at/<time>, another", time * 1e3, None, None)
    yield _fork(store, place, session)


def _looked(store: StoreOnDisk, place: Path) -> list[float]:
    """Seconds of the first listing, another, an epoch, the history, the first time, another time."""
    with mounted(store.path, place) as mount:
        at = mount.path / SLUG
        listing = timed(partial(os.listdir, at / ".epochs"))
        scan = listing()
        again = statistics.median(listing() for _ in range(9))
        history = timed(partial(read, at / "history.jsonl"))()
        cold = [timed(partial(read, at / f".epochs/{n}/history.jsonl")) for n in (50, 100, 150)]
        epoch = statistics.median(look() for look in cold)
        times = [f".at/2099-01-01T00:00:0{n}Z/history.jsonl" for n in range(4)]
        first, *others = (timed(partial(read, at / time))() for time in times)
        return [scan, again, epoch, history, first, statistics.median(others)]


def _fork(store: StoreOnDisk, place: Path, session: Path) -> Row:
    """A fork of all steps, against `cp` of the directory and `sync` of the file system."""
    asked = json.dumps({"from": SLUG, "agent": "fork", "created_by": "bench"}).encode() + b"\n"

    def fork(path: Path) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            os.write(fd, asked)
            assert os.read(fd, 300)
        finally:
            os.close(fd)

    with mounted(store.path, place) as mount:
        ours = timed(partial(fork, mount.path / ".stepfs/create"))()
    copied = timed(partial(shell, 'cp -r "$1" "$2" && sync -f "$2"', session, place / "copy"))()
    return Row("fork of all steps / cp -r and sync", ours * 1e3, copied * 1e3, None)
