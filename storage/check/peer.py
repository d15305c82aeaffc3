"""Tests a shared file system through two clients: `stepfs check STORE --peer DIR` (G26).

Two threads do the same thing at the same moment through two mounts of one store, in a hidden directory
that is removed afterwards. A fault found here means that steps or meta changes get lost between hosts.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from storage import posix as files
from storage.capabilities import PROBE_PREFIX, filesystem_type
from storage.check.complete import create_complete
from storage.errors import StoreError, doing, from_os_error, printable

ROUNDS: Final = 200
APPEAR_SECONDS: Final = 45.0
"""A new name must be visible to the other client within this time; NFS takes up to 30 s."""
_LINKS_PER_FILE: Final = 40
"""Hard links made to one file; Gluster allows 100."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one test, as a sentence, and whether it is a fault."""

    sentence: str
    fault: bool = False


def compare(store: str, peer: str, rounds: int = ROUNDS) -> list[Answer]:
    """Test how two clients of a store affect each other; `peer` is another client's mount of `store`.

    `rounds` is how often each race is run. Raises `StoreError`: EINVAL if the two paths do not show
    the same directory, or the file system's errno if one is no directory, or nothing can be created
    there.
    """
    # First, since what is made in the store may take long to show in the peer.
    for path in (store, peer):
        _check_directory(path)
    name = f"{PROBE_PREFIX}{files.token()}"
    mine, others = Path(store), Path(peer)
    try:
        (mine / name).mkdir(0o700)
        try:
            if _seconds_until((others / name).is_dir) >= APPEAR_SECONDS:
                sentence = f"{printable(peer)} does not show what is made in {printable(store)}"
                raise StoreError(errno.EINVAL, "not-the-same-store", sentence)
            with _opened(mine, name) as one, _opened(others, name) as other:
                return _Pair(one, other, rounds).answers()
        finally:
            shutil.rmtree(mine / name, ignore_errors=True)
    except OSError as error:
        raise from_os_error(error, f"try {printable(store)} and {printable(peer)}") from error


def _check_directory(path: str) -> None:
    with doing(f"open the directory {printable(path)}"):
        os.close(files.open_directory(path))


@contextmanager
def _opened(root: Path, name: str) -> Iterator[int]:
    descriptor = files.open_directory(str(root / name))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Pair:
    """The same directory, seen by two clients."""

    def __init__(self, mine: int, others: int, rounds: int) -> None:
        self._clients = mine, others
        self._rounds = rounds

    def answers(self) -> list[Answer]:
        kinds = " and ".join(
            dict.fromkeys(filesystem_type(fd) or "unknown" for fd in self._clients)
        )
        return [
            Answer(f"two clients of {kinds}, {self._rounds} rounds each"),
            self._race(
                "link", self._link, "two hosts can claim the same step, and one of them is lost"
            ),
            self._race("mkdir", self._mkdir, "two hosts can create the same session"),
            self._locks(),
            self._listing(),
            self._replaced(),
        ]

    def _race(self, what: str, take: Callable[[int, int], None], harm: str) -> Answer:
        gate, won = threading.Barrier(2), [0] * self._rounds

        def run(client: int) -> None:
            for number in range(self._rounds):
                gate.wait()
                try:
                    take(client, number)
                except OSError:
                    continue
                won[number] += 1

        threads = [threading.Thread(target=run, args=(client,)) for client in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        both, none = won.count(2), won.count(0)
        if both:
            return Answer(f"{what} is NOT exclusive, both won {both} times: {harm}", fault=True)
        return Answer(f"{what} is exclusive" + (f" (none won {none} times)" if none else ""))

    def _link(self, client: int, number: int) -> None:
        at = self._clients[client]
        own = f"own{client}.{number // _LINKS_PER_FILE}"
        if number % _LINKS_PER_FILE == 0:
            files.write_new(own, b"", at, 0o600, None, False)
        os.link(own, f"link{number}", src_dir_fd=at, dst_dir_fd=at)

    def _mkdir(self, client: int, number: int) -> None:
        os.mkdir(f"made{number}", dir_fd=self._clients[client])

    def _locks(self) -> Answer:
        files.write_new("lock", b"", self._clients[0], 0o600, None, False)
        with ExitStack() as opened:
            locks = []
            for at in self._clients:
                descriptor = os.open("lock", os.O_RDWR | os.O_CLOEXEC, dir_fd=at)
                opened.callback(os.close, descriptor)
                locks.append(files.lock(descriptor))
        first, second = locks
        if first is True and second is False:
            return Answer("locks on a file exclude each other")
        harm = "locks on a file do NOT exclude each other: changes to one meta can be lost"
        return Answer(harm, fault=True)

    def _listing(self) -> Answer:
        lag = 0.0
        for number in range(20):
            files.write_new(f"new{number}", b"", self._clients[0], 0o600, None, False)
            lag = max(lag, _seconds_until(partial(self._lists, f"new{number}")))
        return Answer(
            f"a new name is listed by the other within {lag:.2f} s", lag >= APPEAR_SECONDS
        )

    def _lists(self, name: str) -> bool:
        return name in files.listing(self._clients[1])

    def _replaced(self) -> Answer:
        """Whether `refresh` reveals that another host has replaced a file."""
        lag, stale = 0.0, 0
        mine, others = self._clients
        for number in range(20):
            data = b"%d" % number
            create_complete("replaced", data, mine, 0o600, None, exclusive=False, sync=False)
            before = time.monotonic()
            files.refresh("replaced", others)
            if not _shows(others, data):
                stale += 1
                _seconds_until(partial(_shows, others, data))
                lag = max(lag, time.monotonic() - before)
        if stale:
            harm = (
                f"a replaced file still reads as before for up to {lag:.2f} s, even when refreshed"
            )
            return Answer(f"{harm}: changes to one meta can be lost", fault=True)
        return Answer("a replaced file is seen at once when refreshed")


def _shows(at: int, data: bytes) -> bool:
    try:
        return files.read_regular("replaced", at, 64)[0] == data
    except OSError:
        return False


def _seconds_until(seen: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not seen() and time.monotonic() - began < APPEAR_SECONDS:
        time.sleep(0.005)
    return time.monotonic() - began
