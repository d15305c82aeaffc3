"""The rule of the loop: each kind of work runs only where it may, and nothing waits needlessly."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from fusefs.work import KEY_THREADS, PATIENCE_SECONDS, REPLAY_THREADS, THREADS, Work
from storage.errors import StoreError

PROBE_SECONDS = 0.1
"""The longest time that one session may keep another waiting."""


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with trio.fail_after(20):
            await test()

    trio.run(limited)


def wait(end: threading.Event) -> None:
    end.wait()


@pytest.mark.parametrize("near", [True, False])
def test_what_work_returns_and_raises_is_handed_on(near: bool) -> None:
    def failing() -> None:
        raise FileNotFoundError

    async def test() -> None:
        work = Work(near)
        for kind in (work.small, work.long, work.replay):
            assert await kind("key", divmod, 17, 5) == (3, 2)
            with pytest.raises(FileNotFoundError):
                await kind("key", failing)

    run(test)


def test_small_work_on_a_near_store_costs_no_iteration_of_the_loop() -> None:
    async def test() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.sleep(0)
            before, work = turns, Work(near=True)
            for _ in range(100):
                assert await work.small("key", threading.get_ident) == threading.get_ident()
            assert turns == before
            nursery.cancel_scope.cancel()

    run(test)


@pytest.mark.parametrize("kind", ["small", "long", "replay"])
def test_on_a_far_store_nothing_runs_on_the_loop(kind: str) -> None:
    async def test() -> None:
        assert await getattr(Work(near=False), kind)("key", threading.get_ident) != own

    own = threading.get_ident()
    run(test)


@pytest.mark.parametrize("near", [True, False])
def test_a_probe_of_another_session_is_answered_while_one_waits_in_all_its_threads(
    near: bool,
) -> None:
    async def test() -> None:
        work, end, took = Work(near), threading.Event(), []
        async with trio.open_nursery() as nursery:
            for _ in range(3 * THREADS):
                nursery.start_soon(work.long, "busy", wait, end)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                began = time.monotonic()
                await work.small("other", int)
                await work.long("other", int)
                took.append(time.monotonic() - began)
            end.set()
        assert sorted(took)[len(took) // 2] < PROBE_SECONDS

    run(test)


@pytest.mark.parametrize(
    ("kind", "keys", "most"),
    [
        ("long", 1, KEY_THREADS),
        ("long", 2 * THREADS, THREADS),
        ("replay", 2 * THREADS, REPLAY_THREADS),
    ],
)
def test_threads_are_bounded_for_one_key_and_for_all(kind: str, keys: int, most: int) -> None:
    async def test() -> None:
        work, at_once, greatest, lock = Work(near=True), 0, 0, threading.Lock()

        def busy() -> None:
            nonlocal at_once, greatest
            with lock:
                at_once += 1
                greatest = max(greatest, at_once)
            time.sleep(0.005)
            with lock:
                at_once -= 1

        async with trio.open_nursery() as nursery:
            for at in range(4 * THREADS):
                nursery.start_soon(getattr(work, kind), at % keys, busy)
        assert greatest == most

    run(test)


def test_a_far_store_that_does_not_answer_is_given_up_and_blocks_few_threads() -> None:
    async def test() -> None:
        work, end = Work(near=False, deadline=0.05), threading.Event()
        began = threading.active_count()

        async def ask(key: int) -> None:
            with pytest.raises(StoreError) as refused:
                await work.small(key, wait, end)
            assert refused.value.errno == errno.ETIMEDOUT

        async with trio.open_nursery() as nursery:
            for key in range(4 * THREADS):
                nursery.start_soon(ask, key)
        assert threading.active_count() - began <= THREADS
        end.set()
        await trio.sleep(0.05)
        assert await work.small("key", int) == 0

    run(test)


@pytest.mark.parametrize("cancelled", ["before it began", "while it ran"])
def test_what_waits_for_the_threads_of_a_key_comes_after_those_that_were_given_up(
    cancelled: str,
) -> None:
    async def test() -> None:
        work, end, made = Work(near=False), threading.Event(), list[int]()
        with trio.CancelScope() as given_up:
            given_up.deadline = trio.current_time() + (0.05 if cancelled == "while it ran" else 0)
            await work.long("key", wait, end)
        work.afterwards("other", lambda: made.append(1))
        work.afterwards("key", lambda: made.append(2))
        assert made == ([1] if cancelled == "while it ran" else [1, 2])
        end.set()
        while len(made) < 2:
            await trio.sleep(0.01)

    run(test)


def test_a_call_afterwards_waits_for_no_thread_that_began_later() -> None:
    async def test() -> None:
        work, end, made = Work(near=False), threading.Event(), list[int]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.long, "key", wait, end)
            await trio.sleep(0.05)
            work.afterwards("key", lambda: made.append(1))
            await work.long("key", int)
            work.afterwards("key", lambda: made.append(2))
            assert made == [2]
            end.set()
        assert made == [2, 1]

    run(test)


@pytest.mark.guarantee("G27b")
def test_a_silent_store_is_distinguished_from_one_that_answers() -> None:
    async def test() -> None:
        work, end = Work(near=False, deadline=0.3), threading.Event()
        assert work.silent_seconds == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_timeout, work, end)
            await trio.sleep(0.1)
            await work.small("other", int)
            assert 0.05 < work.silent_seconds < 0.3
        assert work.silent_seconds > 0.3, "who gave it up had no answer"
        end.set()
        while work.silent_seconds:
            await trio.sleep(0.01)

    run(test)


async def _expect_timeout(work: Work, end: threading.Event) -> None:
    with pytest.raises(StoreError) as caught:
        await work.small("key", wait, end)
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.guarantee("G27c")
def test_a_caller_with_an_older_answer_stops_waiting_once_others_waited_in_vain() -> None:
    async def test() -> None:
        work, end = Work(near=False, deadline=10), threading.Event()

        async def asked() -> float:
            began = trio.current_time()
            with work.patience():
                await work.small("key", wait, end)
            return trio.current_time() - began

        try:
            assert PATIENCE_SECONDS - 0.1 < await asked() < PATIENCE_SECONDS + PROBE_SECONDS
            assert await asked() < PROBE_SECONDS
            assert work.silent_seconds > PATIENCE_SECONDS
        finally:
            end.set()
        while work.silent_seconds:
            await trio.sleep(0.01)
        with work.patience() as patience:
            assert await work.small("key", divmod, 17, 5) == (3, 2)
        assert not patience.cancelled_caught

    run(test)
