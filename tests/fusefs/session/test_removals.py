"""Deleted sessions are removed one after the other, and nobody waits for the removal (G11)."""

from __future__ import annotations

import os
import threading

import pytest
import trio
import trio.testing

from fusefs.session import removals as module
from fusefs.session.removals import Removals
from fusefs.work import Work
from storage.deletion import hide, remove
from storage.store import Store
from tests.support.stores import StoreOnDisk, entry


@pytest.mark.guarantee("G19c")
def test_hidden_sessions_are_removed_in_order_while_others_go_on(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        store.session(f"a_b_{number}", entry("a"))
    gate, order = threading.Event(), []

    def slow(opened: Store, hidden: str) -> None:
        gate.wait(10)
        order.append(hidden)
        remove(opened, hidden)

    monkeypatch.setattr(module, "remove", slow)
    opened = Store(str(store.path))

    async def main() -> None:
        removals = Removals(opened, Work(near=True))
        hidden = [hide(opened, f"a_b_{number}", sync=False) for number in (1, 2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(removals.run)
            await trio.testing.wait_all_tasks_blocked()
            for name in hidden:
                removals.add(name)
            await trio.sleep(0.05)  # the loop keeps running
            assert order == []
            gate.set()
            with trio.fail_after(10):
                while os.listdir(store.path):
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert order == hidden

    trio.run(main)
    opened.close()


def test_what_was_left_when_the_task_failed_is_done_when_it_restarts(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pending removals are state, so no error loses them."""
    store.session("a_b_1", entry("a"))
    opened, failures = Store(str(store.path)), [KeyError("once")]

    def failing(target: Store, hidden: str) -> None:
        if failures:
            raise failures.pop()
        remove(target, hidden)

    monkeypatch.setattr(module, "remove", failing)

    async def main() -> None:
        removals = Removals(opened, Work(near=True))
        removals.add(hide(opened, "a_b_1", sync=False))
        with pytest.raises(KeyError):
            await removals.run()
        with trio.move_on_after(10) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(removals.run)
                while os.listdir(store.path):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not limit.cancelled_caught

    trio.run(main)
    opened.close()
