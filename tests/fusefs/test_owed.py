"""Owed work is done once per item, in order of arrival, by tasks that sleep in between."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fusefs.owed import Owed


def owing(*things: str) -> Owed[str]:
    owed = Owed[str]()
    for thing in things:
        owed.add(thing)
    return owed


def test_things_are_taken_once_each_in_the_order_in_which_they_came() -> None:
    async def main() -> None:
        owed = owing("a", "b", "a", "c", "d")
        assert await owed.take() == "a"
        assert await owed.take_some(2) == ["b", "c"]
        assert await owed.take_some(2) == ["d"]
        assert len(owed) == 0

    trio.run(main)


def test_a_thing_stays_owed_until_it_is_discarded() -> None:
    async def main() -> None:
        owed = owing("a", "b")
        assert [await owed.first(), await owed.first()] == ["a", "a"]
        owed.discard("a")
        owed.discard("never owed")
        assert list(owed) == ["b"]

    trio.run(main)


@pytest.mark.parametrize("takers", [1, 3])
def test_a_waiter_wakes_up_for_an_item_and_only_then(takers: int) -> None:
    async def main() -> None:
        owed, taken = Owed[int](), list[int]()

        async def take() -> None:
            while True:
                taken.append(await owed.take())

        async with trio.open_nursery() as nursery:
            for _ in range(takers):
                nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert taken == []
            for number in range(5):
                owed.add(number)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(taken) == list(range(5))
            nursery.cancel_scope.cancel()

    trio.run(main)
