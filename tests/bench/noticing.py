"""How soon an outside change is seen, and how long others wait while the mount is busy."""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from inotify_simple import INotify, flags

from tests.bench import data
from tests.bench.rows import Row, percentile
from tests.bench.timing import timed
from tests.support.commands import PROJECT, environment
from tests.support.mounted import mounted
from tests.support.stores import SessionOnDisk, StoreOnDisk


def noticing(place: Path, quick: bool) -> Iterator[Row]:
    """How soon a poll waiter and a loop of stat see a step that another program stores."""
    store = StoreOnDisk(place / "store")
    session = store.session("crab_tg-42_1")
    rounds = 50 if quick else 500
    with mounted(store.path, place) as mount:
        history = mount.path / session.slug / "history.jsonl"
        polls, stats, alone = [], [], []
        with _waiter("poll", history) as poll, _waiter("inotify", session.path) as inotify:
            for _ in range(rounds):
                polls.append(poll(session))
                alone.append(inotify(session))
                stats.append(_stat_loop(session, history))
    base = percentile(alone, 99) * 1e3
    for name, times, limit in (("a poll waiter", polls, 10), ("a loop of stat", stats, 20)):
        title = f"an outside step seen by {name}, p99 / by an inotify waiter"
        best = statistics.median(times) / statistics.median(alone)
        yield Row(title, percentile(times, 99) * 1e3, base, limit, best, of_ratio=False)


def undisturbed(place: Path, quick: bool) -> Iterator[Row]:
    """stat and open of other files while a history of 200,000 entries is read for the first time."""
    store = StoreOnDisk(place / "store")
    long = data.session(store, "crab_tg-42_1")
    data.names(long, 1, 200_000, data.LINE)
    others = [store.session(f"crab_tg-7_{n}", data.LINE, data.LINE).slug for n in range(1, 301)]
    during: list[float] = []
    alone: list[float] = []
    with mounted(store.path, place) as mount:
        for _ in range(1 if quick else 3):
            alone += [t for slug in others for t in _stat_and_open(mount.path / slug)]
    for _ in range(1 if quick else 3):
        with mounted(store.path, place) as mount:
            command = ["cat", str(mount.path / long.name / "history.jsonl")]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as reader:
                at = 0
                while reader.poll() is None:
                    during += _stat_and_open(mount.path / others[at % len(others)])
                    at += 1
            assert reader.returncode == 0
    title = "stat and open elsewhere during a first read of 200,000 entries, p99 / when idle"
    base = percentile(alone, 99) * 1e3
    best = statistics.median(during) / statistics.median(alone)
    yield Row(title, percentile(during, 99) * 1e3, base, 20, best, of_ratio=False)


def _stat_and_open(session: Path) -> list[float]:
    history, about = session / "history.jsonl", session / "meta.json"
    return [
        timed(partial(os.stat, history))(),
        timed(lambda: os.close(os.open(history, os.O_RDONLY)))(),
        timed(partial(os.stat, about))(),
        timed(lambda: os.close(os.open(about, os.O_RDONLY)))(),
    ]


def _stat_loop(session: SessionOnDisk, history: Path) -> float:
    size = history.stat().st_size
    session.add(data.LINE)
    stored = time.perf_counter()
    while history.stat().st_size == size:
        pass
    return time.perf_counter() - stored


@contextmanager
def _waiter(kind: str, path: Path) -> Iterator[Callable[[SessionOnDisk], float]]:
    """Start a process that waits for a change; yield a measure of how soon it sees one."""
    command = [sys.executable, "-m", "tests.bench.noticing", kind, str(path)]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        telling, hearing = process.stdin, process.stdout

        def measure(session: SessionOnDisk) -> float:
            telling.write(b"\n")
            telling.flush()
            hearing.readline()
            time.sleep(0.001)  # until the process is really blocked
            session.add(data.LINE)
            stored = time.monotonic()
            return float(hearing.readline()) - stored

        yield measure
        telling.close()


def _wait(kind: str, path: str) -> None:
    """The waiting process: for each line of input, wait for one change and print the time."""
    wait = _poll(path) if kind == "poll" else _inotify(path)
    for _ in sys.stdin:
        while wait(0):
            pass  # drop earlier notifications
        print("waiting", flush=True)
        wait(None)
        print(time.monotonic(), flush=True)


def _poll(path: str) -> Callable[[float | None], object]:
    poller = select.poll()
    poller.register(os.open(path, os.O_RDONLY), select.POLLPRI)
    return poller.poll


def _inotify(path: str) -> Callable[[float | None], object]:
    watcher = INotify()
    watcher.add_watch(path, flags.MOVED_TO)
    return lambda seconds: watcher.read(timeout=None if seconds is None else int(seconds))


if __name__ == "__main__":
    _wait(*sys.argv[1:])
