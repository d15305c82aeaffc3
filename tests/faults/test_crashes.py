"""The server is killed repeatedly: acknowledged writes are stored once, and none is partial."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from storage.check.check import check, main_report
from tests.support import clients
from tests.support.commands import until
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk

Mounting = Callable[..., Mount]
META_TEMPORARY = ".meta."
"""Prefix of a temporary meta; a crash may leave one, and the next start removes it."""


class Manifest:
    """The clients' record, read anew each time without the line being written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()

    def path(self, name: str) -> Path:
        """The file of one client."""
        return self._directory / name

    def lines(self) -> Iterator[list[str]]:
        """All lines of all clients."""
        for path in self._directory.iterdir():
            for line in path.read_bytes().split(b"\n")[:-1]:
                yield json.loads(line)

    def done(self, what: str) -> list[str]:
        """The acknowledged operations of one kind."""
        return [line[2] for line in self.lines() if line[:2] == ["done", what]]

    def in_flight(self) -> int:
        """The number of operations during which the server died."""
        return sum(line[0] == "in flight" for line in self.lines())


@contextmanager
def _running(mount: Mount, manifest: Manifest) -> Iterator[None]:
    running = [
        clients.start(kind, mount.path, manifest.path(f"{kind}-{n}"), n)
        for kind in clients.KINDS
        for n in range(2 if kind in ("append", "bulk") else 1)
    ]
    try:
        yield
        assert all(client.poll() is None for client in running), "a client ended"
    finally:
        for client in running:
            client.kill()
        for client in running:
            client.wait()


def _acknowledged_messages_are_there_once(session: SessionOnDisk, manifest: Manifest) -> int:
    acknowledged = manifest.done("message")
    contents = [json.loads(step)["message"]["content"] for step in session.steps()]
    found = Counter(contents)
    assert set(found.values()) <= {1}
    assert [content for content in acknowledged if content not in found] == []
    assert all(map(clients.is_whole, found)), "a step is torn"
    assert session.numbers() == list(range(1, len(found) + 1))
    by_writer: dict[str, list[int]] = {}
    for content in contents:
        name, number, *_ = content.split(" ")
        by_writer.setdefault(name, []).append(int(number))
    assert all(numbers == sorted(numbers) for numbers in by_writer.values())
    return len(acknowledged)


def _acknowledged_compactions_are_there_once(session: SessionOnDisk, manifest: Manifest) -> None:
    """Each compaction is there once, with its summary if it was written with one."""
    acknowledged = manifest.done("compaction")
    found = Counter(json.loads(step)["archive_name"] for step in session.steps())
    assert set(found.values()) <= {1}
    assert [name for name in acknowledged if name not in found] == []
    archives = session.path.parent.parent / "memory" / "archives"
    for name in filter(clients.has_summary, found):
        assert clients.is_whole((archives / f"{name}.md").read_text().rstrip("\n"))


def _acknowledged_metas_are_there(session: SessionOnDisk, manifest: Manifest) -> None:
    acknowledged: dict[str, int] = {}
    for line in manifest.lines():
        if line[:2] == ["done", "meta"]:
            acknowledged[line[2]] = int(line[3])
    meta = session.meta()
    assert {"agent", "created_by", "created_at"} <= meta.keys()
    for name, number in acknowledged.items():
        there = meta[name]
        assert isinstance(there, int)
        assert there >= number


def _acknowledged_sessions_are_there(store: StoreOnDisk, manifest: Manifest) -> None:
    made, deleting = set(manifest.done("session")), set(manifest.done("deleting"))
    there = {name for name in os.listdir(store.path) if not name.startswith(".")}
    assert made - deleting - there == set()
    assert set(manifest.done("deleted")) & there == set()
    for name in there:
        assert json.loads((store.path / name / "meta").read_bytes())["agent"]


def _no_temporaries(store: StoreOnDisk) -> None:
    """A session holds only steps, its meta, and at most one temporary meta."""
    for slug in os.listdir(store.path):
        if slug.startswith("."):
            continue
        for name in os.listdir(store.path / slug):
            assert name == "meta" or name.startswith(META_TEMPORARY) or name[5:].isdigit(), name


def _as_acknowledged(store: StoreOnDisk, manifest: Manifest) -> int:
    session, compacted = (
        SessionOnDisk(store.path / name) for name in (clients.SESSION, clients.COMPACTED)
    )
    _acknowledged_sessions_are_there(store, manifest)
    _acknowledged_compactions_are_there_once(compacted, manifest)
    _acknowledged_metas_are_there(compacted, manifest)
    _no_temporaries(store)
    return _acknowledged_messages_are_there_once(session, manifest)


def _hidden(store: StoreOnDisk) -> list[str]:
    names = [str(path) for path in store.path.rglob(".*")]
    return [name for name in names if not name.endswith("/.stepfs")]


def _killed(store: StoreOnDisk, mount: Mounting, tmp_path: Path, kills: int) -> None:
    store.session(clients.SESSION)
    store.session(clients.COMPACTED)
    manifest = Manifest(tmp_path / "manifest")
    chance = random.Random(kills)
    at = mount()
    acknowledged: list[int] = [0]
    in_flight: list[int] = [0]
    with _running(at, manifest):
        for _ in range(kills):
            until(lambda: len(manifest.done("message")) > acknowledged[-1] + 5)
            time.sleep(chance.uniform(0, 0.15))
            at.kill()
            acknowledged.append(_as_acknowledged(store, manifest))
            in_flight.append(manifest.in_flight())
            at.start()
    at.stop()
    _as_acknowledged(store, manifest)
    at.start()
    until(lambda: not _hidden(store))
    at.stop()
    report = check(str(store.path), repair=False)
    assert report.exit_code == 0, main_report(report)
    _proved_something(manifest, kills, in_flight)


def _proved_something(manifest: Manifest, kills: int, in_flight: list[int]) -> None:
    hit = sum(before < after for before, after in pairwise(in_flight))
    assert hit >= kills // 2, f"only {hit} of {kills} kills met an operation under way"
    for what in ("message", "compaction", "meta", "session", "deleted"):
        done = len(manifest.done(what))
        assert done >= kills // 4, f"only {done} of {what} were acknowledged in {kills} kills"


@pytest.mark.guarantee("G18a", "G18b", "G15a", "G11b", "G31c")
def test_acknowledged_writes_survive_twenty_kills(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path
) -> None:
    _killed(store, mount, tmp_path, 20)


@pytest.mark.soak
@pytest.mark.guarantee("G18a")
def test_acknowledged_writes_survive_two_hundred_kills(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path
) -> None:
    _killed(store, mount, tmp_path, 200)
