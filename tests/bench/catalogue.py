"""What covers all sessions: the listing of the mount, `sessions.jsonl`, `latest/`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson

from tests.bench import data
from tests.bench.resources import resident
from tests.bench.rows import Row, compared
from tests.bench.timing import interleaved, read, shell, timed
from tests.support.mounted import Mount, mounted
from tests.support.stores import META, StoreOnDisk


def bare_loop(store: Path) -> None:
    """The fastest way to read every meta: open by descriptor, parse and drop."""
    root = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    for name in sorted(os.listdir(root)):
        fd = os.open(f"{name}/meta", os.O_RDONLY, dir_fd=root)
        orjson.loads(os.read(fd, 1 << 16))
        os.close(fd)
    os.close(root)


def catalogue(place: Path, quick: bool) -> Iterator[Row]:
    """`sessions.jsonl` of a fresh mount."""
    count = 2000 if quick else 10_000
    store = data.sessions(place, count, 0)

    def cold() -> float:
        with mounted(store.path, place) as mount:
            return timed(
                partial(shell, 'cat "$1" >/dev/null', mount.path / ".stepfs/sessions.jsonl")
            )()

    rounds = 3 if quick else 7
    ours, loops = interleaved(rounds, cold, timed(partial(bare_loop, store.path)))
    yield compared(f"sessions.jsonl of {count:,}, cold / bare loop", ours, loops, 2.5)


def changes(place: Path, quick: bool) -> Iterator[Row]:
    """One change in a store of 100,000 sessions, and a second listing."""
    count = 5000 if quick else 100_000
    store = data.sessions(place, count, 0)
    rounds = 3 if quick else 9
    with mounted(store.path, place) as mount:
        read(mount.path / ".stepfs/sessions.jsonl")
        os.listdir(mount.path / ".stepfs/latest")
        lines = [_changed(store, mount, number) for number in range(1, rounds + 1)]
        links = [_made(store, mount, count + number) for number in range(1, rounds + 1)]
        shell('ls "$1"', mount.path)
        again, plain = interleaved(
            rounds,
            timed(partial(shell, 'ls "$1"', mount.path)),
            timed(partial(shell, 'ls "$1"', store.path)),
        )
        memory = resident(mount)
    at = len(lines) // 2
    title = f"sessions.jsonl of {count:,} after one change"
    yield Row(title, sorted(lines)[at] * 1e3, None, 20, of_ratio=False)
    title = f"latest/ of {count:,} after one new session"
    yield Row(title, sorted(links)[at] * 1e3, None, 100, of_ratio=False)
    yield compared(f"ls of {count:,} sessions again / ls of the store", again, plain, 3)
    yield Row("resident memory after it", memory, None, 200, unit="MiB", of_ratio=False)


def _changed(store: StoreOnDisk, mount: Mount, number: int) -> float:
    session, title = store.path / data.slug_of(number), f"changed {number}"
    (session / "meta.tmp").write_text(json.dumps({**META, "title": title}))
    (session / "meta.tmp").rename(session / "meta")
    path = mount.path / ".stepfs/sessions.jsonl"
    taken = timed(partial(read, path))()
    assert title in path.read_text()
    return taken


def _made(store: StoreOnDisk, mount: Mount, number: int) -> float:
    slug = f"crab_new-{number}_1"
    store.session(slug)
    link = mount.path / ".stepfs/latest" / slug.rpartition("_")[0]
    taken = timed(partial(os.readlink, link))()
    assert os.readlink(link).endswith(slug)
    return taken
