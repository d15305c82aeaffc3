"""Reading histories: warm, for the first time, and long ones of which little counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson

from tests.bench import data
from tests.bench.floor import floor
from tests.bench.rows import Row, compared
from tests.bench.timing import interleaved, timed
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk

BUFFER = 1 << 17
"""What `cat` reads at once."""


def read(path: Path) -> int:
    """Read a file to its end, keeping nothing; how many bytes it had."""
    fd, total, buffer = os.open(path, os.O_RDONLY), 0, bytearray(BUFFER)
    try:
        while got := os.readv(fd, [buffer]):
            total += got
    finally:
        os.close(fd)
    return total


def plain_loop(session: Path) -> None:
    """What a script does that wants all entries of a session."""
    for name in sorted(os.listdir(session)):
        if name.startswith("step-"):
            with open(session / name, "rb") as file:
                orjson.loads(file.read())


def sorted_listing(session: Path) -> None:
    """What any reader of a session has to do at the least."""
    sorted(os.listdir(session))


def warm(place: Path, quick: bool) -> Iterator[Row]:
    """A history that was read before, beside a server that does nothing and a plain file.

    Where in memory the pages come to lie counts for much, so all are read in anew several times.
    """
    for mib, beside_floor, beside_file in ((8, 1.1, 1.8), (64, 1.1, 1.4)):
        store = StoreOnDisk(place / f"store{mib}")
        session = data.session(store, "crab_tg-42_1")
        data.names(session, 1, mib << 8, data.entry_of(4096))
        times: list[list[float]] = [[], [], []]
        for _ in range(2 if quick else 6):
            rounds = _warm_rounds(store, place, session.name, mib << 20, 160 // mib)
            for taken, more in zip(times, rounds, strict=True):
                taken += more
        ours, floors, plains = times
        yield compared(f"warm read of {mib} MiB / idle server", ours, floors, beside_floor)
        yield compared(f"warm read of {mib} MiB / plain file", ours, plains, beside_file)


def _warm_rounds(
    store: StoreOnDisk, place: Path, slug: str, size: int, rounds: int
) -> list[list[float]]:
    plain = place / "plain"
    plain.unlink(missing_ok=True)
    plain.write_bytes(os.urandom(size))
    with floor(place, size) as idle, mounted(store.path, place) as mount:
        files = (mount.path / slug / "history.jsonl", idle, plain)
        assert {read(path) for path in files} == {size}
        return interleaved(rounds, *(timed(partial(read, path)) for path in files))


def first(place: Path, quick: bool) -> Iterator[Row]:
    """The first read after mounting of 20,000 entries, none of them compacted."""
    store = StoreOnDisk(place / "store")
    session = data.session(store, "crab_tg-42_1")
    data.files(session, 1, 20_000, data.LINE)
    rounds = 2 if quick else 7
    mounts = _first_reads(store, place, rounds, Path(session.name) / "history.jsonl")
    ours, loops = interleaved(rounds, partial(next, mounts), timed(partial(plain_loop, session)))
    yield compared("first read of 20,000 entries / plain loop", ours, loops, 1.5)


def long(place: Path, quick: bool) -> Iterator[Row]:
    """The first read of 200,000 steps of which the last 100 count."""
    store = StoreOnDisk(place / "store")
    session = data.compacted(store, "crab_tg-42_1", 200_000)
    rounds = 2 if quick else 7
    mounts = _first_reads(store, place, rounds, Path(session.name) / "history.jsonl")
    alone = timed(partial(sorted_listing, session))
    ours, listings = interleaved(rounds, partial(next, mounts), alone)
    yield compared("first read of 200,000 steps, 100 count / listdir, sort", ours, listings, 3)


def _first_reads(store: StoreOnDisk, place: Path, rounds: int, file: Path) -> Iterator[float]:
    for _ in range(rounds):
        with mounted(store.path, place) as mount:
            yield timed(partial(read, mount.path / file))()
