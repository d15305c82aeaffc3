"""The inode of a view: the size that it tells, whatever happens to its epoch (G3, G13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from fusefs import config
from fusefs.filesystem import FileSystem
from fusefs.inodes.inode import ROOT_INO
from fusefs.superblock import Superblock
from storage.store import Store
from tests.support.model_kernel import Caches, ModelKernel
from tests.support.passes import Meanwhile, compacts
from tests.support.stores import StoreOnDisk, compaction, entry


@asynccontextmanager
async def kernel_of(store: StoreOnDisk) -> AsyncIterator[ModelKernel]:
    """The system calls of programs on a mount of the store."""
    caches = Caches()
    superblock = Superblock(Store(str(store.path)), config.parse(["sync=never"]), caches)
    kernel = ModelKernel(FileSystem(superblock), caches)
    try:
        yield kernel
    finally:
        superblock.close()


@pytest.mark.guarantee("G3b", "G13a")
def test_a_stat_during_a_compaction_returns_the_size_before_or_after_it(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ask the inode that was looked up before, as a kernel does that has cached the name."""
    disk = store.session("a_b_1", entry("a"), compaction("one"), entry("b"))
    others = [store.session(f"a_b_{number}", *disk.steps()) for number in (2, 3)]
    compacts(others[1])

    async def main() -> None:
        async with kernel_of(store) as kernel:
            sizes = [(await kernel.stat(f"{at.slug}/messages.jsonl")).size for at in others]
            assert len(set(sizes)) == 2
            await kernel.close(await kernel.open(f"{disk.slug}/history.jsonl"))
            Meanwhile(monkeypatch, lambda: compacts(disk))
            assert (await kernel.stat(f"{disk.slug}/messages.jsonl")).size in sizes
            await kernel.forget_everything()

    trio.run(main)


@pytest.mark.guarantee("G3a", "G12a")
def test_a_stat_of_a_file_that_was_replaced_while_it_was_opened_returns_its_size(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = store.session("a_b_1", entry("a"), entry("b"))
    same = store.session("a_b_2", *disk.steps())

    async def main() -> None:
        async with kernel_of(store) as kernel:
            before = (await kernel.stat(f"{same.slug}/messages.jsonl")).size
            session = await kernel.filesystem.lookup(ROOT_INO, disk.slug)
            ino = (await kernel.filesystem.lookup(session.ino, "messages.jsonl")).ino
            Meanwhile(monkeypatch, lambda: disk.add(compaction("one")), direction="backwards")
            await kernel.close(await kernel.open(f"{disk.slug}/messages.jsonl"))
            assert (await kernel.filesystem.getattr(ino)).size == before

    trio.run(main)
