"""After close, data is on disk: the server's system calls are traced, as no test can cut the power.

A simulated power cut (dm-log-writes, dm-flakey) needs a device mapper, which containers and many
kernels lack; the order of writes, syncs and links shows the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry
from tests.support.tracing import Call, Trace, traced

Mounting = Callable[..., Mount]
SYNCS = ("fsync", "fdatasync", "syncfs", "sync_file_range", "sync")
CALLS = ",".join(
    (*SYNCS, "openat", "write", "linkat", "rename", "renameat", "renameat2", "mkdirat", "close")
)


class Story:
    """What was done through a mount, and the server's system calls meanwhile."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.written = 0.0
        """When the last write(2) returned."""
        self.closed = 0.0
        """When close(2), mkdir(2) … returned."""

    def syncs(self) -> list[Call]:
        """The system calls that flush data to disk."""
        return self.trace.named(*SYNCS)

    def one(self, name: str, part: str) -> Call:
        """The only call of this name whose arguments contain `part`."""
        (found,) = [call for call in self.trace.named(name) if part in call.arguments]
        return found


@contextmanager
def _story(mount: Mount) -> Iterator[Story]:
    story = Story()
    with traced(mount, CALLS) as story.trace:
        yield story
        story.closed = story.closed or time.time()


def _write(story: Story, path: Path, text: bytes, sync: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY)
    assert os.write(fd, text) == len(text)
    story.written = time.time()
    if sync:
        os.fsync(fd)
        story.closed = time.time()
    os.close(fd)


def _in_order(*calls: Call, before: float) -> None:
    for earlier, later in pairwise(calls):
        assert earlier.ended <= later.began, f"{later} did not wait for {earlier}"
    assert calls[-1].ended <= before, f"{calls[-1]} came too late"


def _lines(count: int) -> bytes:
    return b"".join(entry(f"line {number}") + b"\n" for number in range(count))


def _synced_singly(story: Story, session: SessionOnDisk, steps: int) -> None:
    """Each step's contents are synced, then the directory, and only then comes the reply."""
    links = story.trace.named("linkat")
    assert len(links) == steps
    contents = story.trace.named("fdatasync")
    assert len(contents) == steps
    directory = story.one("fsync", f"<{session.path}>")
    for content, link in zip(contents, links, strict=True):
        assert f"/proc/self/fd/{content.fd}" in link.arguments
        _in_order(link, directory, before=story.closed)
        _in_order(content, directory, before=story.closed)


@pytest.mark.guarantee("G17a")
@pytest.mark.parametrize("how", ["close", "fsync"])
def test_a_few_lines_are_synced_one_by_one_and_then_their_names(
    store: StoreOnDisk, mount: Mounting, how: str
) -> None:
    at = mount()
    for steps in (1, 4, 12):
        session = store.session(f"crab_tg-42_{steps}")
        with _story(at) as story:
            _write(story, at.path / session.slug / "append", _lines(steps), sync=how == "fsync")
        _synced_singly(story, session, steps)


@pytest.mark.guarantee("G17a")
def test_many_lines_are_synced_together_after_the_last_has_its_name(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    with _story(at) as story:
        _write(story, at.path / session.slug / "append", _lines(100))
    (whole,) = story.syncs()
    assert whole.name == "syncfs"
    links = story.trace.named("linkat")
    assert len(links) == 100
    for link in links:
        _in_order(link, whole, before=story.closed)


@pytest.mark.guarantee("G17a")
def test_lines_of_many_writes_are_all_synced_at_the_close(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    with _story(at) as story, (at.path / session.slug / "append").open("ab", 0) as file:
        for number in range(30):
            file.write(entry(f"line {number}") + b"\n")
        assert story.syncs() == []
    (whole,) = story.syncs()
    assert (whole.name, len(story.trace.named("linkat"))) == ("syncfs", 30)
    assert whole.began >= story.trace.named("linkat")[-1].ended


@pytest.mark.guarantee("G17a", "G7a")
def test_a_line_that_is_stored_at_the_close_is_synced_before_it_returns(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    with _story(at) as story:
        _write(story, at.path / session.slug / "append", entry("no newline"))
    _synced_singly(story, session, 1)


@pytest.mark.guarantee("G17a")
def test_a_compaction_is_synced_at_the_close(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session()
    at = mount()
    with _story(at) as story:
        _write(story, at.path / session.slug / "compact", b"archive\n")
    _synced_singly(story, session, 1)


@pytest.mark.guarantee("G17a")
def test_a_meta_is_on_disk_before_it_takes_the_others_place(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    with _story(at) as story:
        _write(story, at.path / session.slug / "meta.json", b'{"title":"new"}')
    contents, directory = story.trace.named("fsync")
    assert f"<{session.path}>" in directory.arguments
    assert ".meta." in contents.arguments
    exchange = story.one("renameat2", '"meta", RENAME_EXCHANGE')
    _in_order(contents, exchange, directory, before=story.closed)


@pytest.mark.guarantee("G17a")
@pytest.mark.parametrize("how", ["mkdir", "create"])
def test_a_new_session_is_on_disk_before_it_has_its_name(
    store: StoreOnDisk, mount: Mounting, how: str
) -> None:
    at = mount()
    with _story(at) as story:
        if how == "mkdir":
            (at.path / "crab_tg-42_1").mkdir()
        else:
            who = b'{"agent":"Crab","created_by":"tg:42"}'
            _write(story, at.path / ".stepfs/create", who)
    meta, directory, root = story.trace.named("fsync")
    assert "/meta>" in meta.arguments
    assert "/.new." in directory.arguments
    assert f"<{store.path}>" in root.arguments
    name = story.one("renameat2", '"crab_tg-42_1", RENAME_NOREPLACE')
    _in_order(meta, directory, name, root, before=story.closed)


@pytest.mark.guarantee("G17a")
def test_a_deletion_is_on_disk_when_rmdir_returns(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount()
    with _story(at) as story:
        (at.path / session.slug).rmdir()
    (gone,) = story.trace.named("rename", "renameat", "renameat2")
    assert '"crab_tg-42_1"' in gone.arguments
    _in_order(gone, story.one("fsync", f"<{store.path}>"), before=story.closed)


@pytest.mark.guarantee("G17b")
def test_with_sync_always_lines_are_on_disk_when_write_returns(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount("sync=always")
    for steps in (1, 20):
        session = store.session(f"crab_tg-42_{steps}")
        with _story(at) as story:
            _write(story, at.path / session.slug / "append", _lines(steps))
        contents, links = story.trace.named("fdatasync"), story.trace.named("linkat")
        assert len(contents) == len(links) == steps
        directory = story.one("fsync", f"<{session.path}>")
        for content, link in zip(contents, links, strict=True):
            assert f"/proc/self/fd/{content.fd}" in link.arguments
            _in_order(content, link, directory, before=story.written)


@pytest.mark.guarantee("G17b")
def test_with_sync_never_nothing_is_synced(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session("gone_gone_1", entry("first"))
    at = mount("sync=never")
    with _story(at) as story:
        (at.path / "crab_tg-42_1").mkdir()
        _write(story, at.path / "crab_tg-42_1/append", _lines(3), sync=True)
        _write(story, at.path / "crab_tg-42_1/append", _lines(100))
        _write(story, at.path / "crab_tg-42_1/compact", b"archive\n")
        _write(story, at.path / "crab_tg-42_1/meta.json", b'{"title":"new"}')
        _write(story, at.path / ".stepfs/create", b'{"agent":"Crab","created_by":"tg:42"}')
        (at.path / session.slug).rmdir()
    assert len(story.trace.named("linkat")) == 104
    assert story.syncs() == []


@pytest.mark.guarantee("G17a")
def test_at_the_end_of_the_mount_all_that_was_written_is_synced(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    fd = os.open(at.path / session.slug / "append", os.O_WRONLY)
    try:
        with traced(at, CALLS) as trace:
            os.write(fd, entry("kept open") + b"\n")
            at.stop()
    finally:
        with pytest.raises(OSError, match="not connected"):
            os.close(fd)
    (link,) = trace.named("linkat")
    (content,) = trace.named("fdatasync")
    assert content.began > link.ended
    assert any(f"<{session.path}>" in call.arguments for call in trace.named("fsync"))
