"""Turns: one at a time, in order of arrival, and immediately if nobody is ahead."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fusefs.turn import Turn


def test_a_free_turn_is_taken_without_a_round_of_the_loop() -> None:
    async def main() -> None:
        turn = Turn()
        with trio.testing.assert_no_checkpoints():
            async with turn:
                assert turn.locked()
            assert not turn.locked()

    trio.run(main)


def test_waiters_are_served_one_at_a_time_in_order_of_arrival() -> None:
    order: list[int] = []

    async def main() -> None:
        turn, inside = Turn(), 0

        async def worker(number: int) -> None:
            nonlocal inside
            async with turn:
                inside += 1
                assert inside == 1
                await trio.testing.wait_all_tasks_blocked()
                order.append(number)
                inside -= 1

        async with trio.open_nursery() as nursery, turn:
            assert not turn.wanted()
            for number in range(5):
                nursery.start_soon(worker, number)
                await trio.testing.wait_all_tasks_blocked()
            assert turn.wanted()

    trio.run(main)
    assert order == [0, 1, 2, 3, 4]


def test_a_task_that_fails_or_gives_up_leaves_the_turn_free() -> None:
    async def main() -> None:
        turn = Turn()

        async def gives_up() -> None:
            with trio.move_on_after(0):
                async with turn:
                    raise AssertionError("it was not free")

        with pytest.raises(KeyError):
            async with turn:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(gives_up)
                raise KeyError
        assert not turn.locked()

    trio.run(main)
