"""The life of a mount: its work survives every error, and its end does not wait for a silent store."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from fusefs import config, superblock
from fusefs.filesystem import FileSystem
from fusefs.superblock import SILENCE_SECONDS, Superblock
from storage.store import Store
from tests.support.model_kernel import Caches, ModelKernel
from tests.support.stores import StoreOnDisk, entry


def made(store: StoreOnDisk, *options: str) -> Superblock:
    return Superblock(Store(str(store.path)), config.parse(["sync=never", *options]), Caches())


@pytest.mark.guarantee("G19a")
def test_work_in_the_background_goes_on_whatever_happens_in_it(
    store: StoreOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[float] = []

    async def fails() -> None:
        calls.append(trio.current_time())
        raise KeyError("something that nobody thought of")

    async def main() -> None:
        mount = made(store)
        mount.publisher.run = fails  # type: ignore[method-assign]
        with trio.move_on_after(10):
            await mount.run()
        mount.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    assert 5 < len(calls) < 12, "it was begun again at once, or not at all"
    assert len(caplog.records) == len(calls)


@pytest.mark.guarantee("G9a", "G17a")
def test_at_the_end_what_is_due_is_written(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1")

    async def main() -> None:
        mount = made(store)
        kernel = ModelKernel(FileSystem(mount), Caches())
        handle = await kernel.open("a_b_1/append", os.O_WRONLY)
        await kernel.write(handle, entry("a") + b"\n" + entry("b"))
        await mount.finish()
        assert disk.steps() == [entry("a"), entry("b")]
        assert disk.meta()["message_count"] == 2
        assert len(mount.files) == 0
        mount.close()

    trio.run(main)


@pytest.mark.guarantee("G19f")
def test_the_end_gives_up_on_a_far_store_that_does_not_answer(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = trio.CapacityLimiter(1)

    async def silent(*_args: object, **_named: object) -> None:
        async with answers:
            await trio.sleep_forever()

    async def main() -> float:
        mount = made(store)
        mount.work.near = False
        monkeypatch.setattr(mount.work, "small", silent)
        monkeypatch.setattr(mount, "_finish", silent)
        began = trio.current_time()
        await mount.finish()
        mount.close()
        return trio.current_time() - began

    clock = trio.testing.MockClock(autojump_threshold=0.01)
    assert trio.run(main, clock=clock) < 2 * SILENCE_SECONDS
    assert ["does not answer" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("option", [None, "none", "memory.db"])
def test_the_memory_is_beside_the_store_elsewhere_or_nowhere(
    store: StoreOnDisk, option: str | None
) -> None:
    options = [] if option is None else [f"memory={option}"]
    opened = Store(str(store.path))
    memory = superblock._memory(opened, config.parse(options))
    assert memory.text("name") is None
    memory.close()
    opened.close()


def test_nothing_that_was_opened_is_left_open(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"))
    before = len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        mount = made(store)
        kernel = ModelKernel(FileSystem(mount), Caches())
        await kernel.close(await kernel.open("a_b_1/history.jsonl"))
        await mount.finish()
        mount.close()

    trio.run(main)
    assert len(os.listdir("/proc/self/fd")) == before
