"""The publisher: the kernel is told of changes in a session, and of nothing else (G12)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from fusefs import config
from fusefs.filesystem import FileSystem
from fusefs.inodes.session_directory import SessionDirectory
from fusefs.inodes.view_file import ViewFile
from fusefs.session.session import Session
from fusefs.superblock import Superblock
from storage.errors import StoreError
from storage.store import Store
from tests.support.model_kernel import Caches, ModelKernel
from tests.support.stores import StoreOnDisk, compaction, entry

Test = Callable[["Told", ModelKernel, Superblock], Awaitable[None]]


class Told(Caches):
    """A kernel's caches that record what they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def attributes_changed(self, ino: int) -> None:
        self.calls.append(f"attributes {ino}")
        super().attributes_changed(ino)

    async def grown(self, ino: int, size: int) -> None:
        self.calls.append(f"grown {ino} {size}")
        await super().grown(ino, size)

    def entry_changed(self, parent: int, name: str) -> None:
        self.calls.append(f"entry {name}")
        super().entry_changed(parent, name)


def published(path: Path, test: Test) -> None:
    """Run a test with a mount's background work."""

    async def main() -> None:
        told = Told()
        superblock = Superblock(Store(str(path)), config.parse(["sync=never"]), told)
        kernel = ModelKernel(FileSystem(superblock), told)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(superblock.run)
                with trio.fail_after(30):
                    await test(told, kernel, superblock)
                await kernel.forget_everything()
                nursery.cancel_scope.cancel()
        finally:
            superblock.close()

    trio.run(main)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await trio.sleep(0.005)


@pytest.mark.guarantee("G12b")
def test_a_size_that_the_kernel_knows_grows_without_any_request(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def test(told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        found = await kernel.stat("a_b_1/history.jsonl")
        told.calls.clear()
        disk.add(entry("b"))
        await until(lambda: f"grown {found.ino} {2 * found.size}" in told.calls)

    published(store.path, test)


@pytest.mark.guarantee("G13b")
def test_a_name_that_now_shows_something_else_is_invalidated(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def test(told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        before = await kernel.stat("a_b_1/history.jsonl")
        disk.add(compaction("name"))
        await until(lambda: "entry history.jsonl" in told.calls)
        assert (await kernel.stat("a_b_1/history.jsonl")).ino != before.ino

    published(store.path, test)


def test_a_view_that_nobody_has_looked_up_is_not_read(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def test(told: Told, kernel: ModelKernel, superblock: Superblock) -> None:
        await kernel.stat("a_b_1/history.jsonl")
        (session,) = superblock.pool
        disk.add(entry("b"))
        await until(lambda: any(call.startswith("grown") for call in told.calls))
        assert {view.format.name for view in session.epochs} == {"history.jsonl"}

    published(store.path, test)


@pytest.mark.guarantee("G20a")
def test_the_name_of_a_deleted_session_is_invalidated(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def test(told: Told, kernel: ModelKernel, superblock: Superblock) -> None:
        await kernel.stat("a_b_1/history.jsonl")
        disk.path.rename(store.path.parent / "away")
        await until(lambda: "entry a_b_1" in told.calls)
        await until(lambda: len(superblock.pool) == 0)

    published(store.path, test)


@pytest.mark.guarantee("G12d")
def test_a_new_session_invalidates_the_list(store: StoreOnDisk) -> None:
    async def test(told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        await kernel.listdir("")
        store.session("a_b_1")
        await until(lambda: "attributes 1" in told.calls)
        assert "a_b_1" in await kernel.listdir("")

    published(store.path, test)


class Waiter:
    """A program that waits in poll(2)."""

    def __init__(self) -> None:
        self.woken = False

    def notify(self) -> None:
        self.woken = True


@pytest.mark.guarantee("G14b")
def test_waiters_are_woken_while_somebody_has_an_epoch_open_that_no_longer_exists(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"), compaction("name"), entry("b"))

    async def test(_told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        past = await kernel.open("a_b_1/.epochs/2/history.jsonl")
        (disk.path / "step-000002").unlink()
        log, waiter = await kernel.open("a_b_1/log.jsonl"), Waiter()
        await kernel.filesystem.poll(log, waiter)
        disk.add(entry("c"))
        await until(lambda: waiter.woken)
        for opened in (past, log):
            await kernel.close(opened)

    published(store.path, test)


@pytest.mark.guarantee("G14b", "G19b")
@pytest.mark.parametrize("error", [StoreError(errno.ETIMEDOUT, "slow", "too long"), KeyError()])
def test_a_view_that_cannot_be_published_does_not_keep_others_of_its_session_from_it(
    store: StoreOnDisk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    disk = store.session("a_b_1", entry("a"))
    publish = ViewFile.publish

    async def broken(file: ViewFile, session: Session) -> None:
        if file.name == "history.md":
            raise error
        await publish(file, session)

    async def test(told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        await kernel.stat("a_b_1/history.md")
        found = await kernel.stat("a_b_1/log.jsonl")
        monkeypatch.setattr(ViewFile, "publish", broken)
        disk.add(entry("b"))
        await until(lambda: f"grown {found.ino} {2 * found.size}" in told.calls)

    published(store.path, test)
    unforeseen = [record for record in caplog.records if record.levelno > logging.INFO]
    assert bool(unforeseen) is isinstance(error, KeyError)


@pytest.mark.guarantee("G27b")
def test_of_a_session_on_a_silent_store_no_more_views_are_tried(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"))
    tried: list[str] = []

    async def silent(file: ViewFile, _session: Session) -> None:
        tried.append(file.name)
        raise StoreError(errno.ETIMEDOUT, "store-silent", "the store has not answered")

    async def test(_told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        for name in ("history.jsonl", "history.md", "log.jsonl"):
            await kernel.stat(f"a_b_1/{name}")
        monkeypatch.setattr(ViewFile, "publish", silent)
        disk.add(entry("b"))
        await until(lambda: bool(tried))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(tried) == 1

    published(store.path, test)


@pytest.mark.guarantee("G19c")
def test_a_session_that_cannot_be_published_does_not_keep_others_from_it(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disks = [store.session(f"a_b_{number}", entry("a")) for number in (1, 2)]
    publish = SessionDirectory.recall

    def broken(directory: SessionDirectory) -> None:
        if directory.name == "a_b_1":
            raise KeyError("something that nobody thought of")
        publish(directory)

    async def test(told: Told, kernel: ModelKernel, _superblock: Superblock) -> None:
        found = [await kernel.stat(f"{disk.slug}/log.jsonl") for disk in disks]
        monkeypatch.setattr(SessionDirectory, "recall", broken)
        disks[0].add(entry("b"))
        disks[1].add(entry("b"))
        await until(lambda: f"grown {found[1].ino} {2 * found[1].size}" in told.calls)
        monkeypatch.setattr(SessionDirectory, "recall", publish)

    published(store.path, test)
    assert ["a_b_1" in record.getMessage() for record in caplog.records] == [True]
