"""The pool: used sessions stay open, unused ones may be closed, and nothing leaks (G20, G23)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs.session import pool as pools
from fusefs.session.refresh import refresh
from fusefs.session.session import Session
from fusefs.views.formats import LOG, View
from storage.errors import StoreError
from storage.store import Store
from tests.support.commands import until
from tests.support.drivers import TreeDriver
from tests.support.live import Live, living
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

VIEW = View(LOG)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(StoreError) as caught:
        yield
    assert caught.value.errno == number


def test_a_session_is_open_while_it_is_leased_and_kept_open_after(store: StoreOnDisk) -> None:
    store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            before = descriptors()
            async with live.pool.lease(session) as leased:
                assert leased is session
                assert session.is_open and session.busy
                fd = session.fd
            assert session.is_open and not session.busy
            async with live.pool.lease(session):
                assert session.fd == fd
            assert list(live.pool) == [session]
            live.pool.close(session)
            assert (session.is_open, len(live.pool), live.events.watches) == (False, 0, 1)
            assert descriptors() == before

    trio.run(main)


@pytest.mark.guarantee("G20a")
def test_a_user_of_a_session_keeps_it_open_after_its_deletion(store: StoreOnDisk) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                live.pool.keep(session)
                disk.path.rename(store.path / "away")
                live.pool.bury(session)
                assert session.is_open
            assert session.is_open
            live.pool.release(session)
            assert not session.is_open
            with refused(errno.ENOENT):
                await live.pool.hold(session)
            assert session.users == 0

    trio.run(main)


def test_a_name_that_now_belongs_to_another_session_is_not_opened_as_this_one(
    store: StoreOnDisk,
) -> None:
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                pass
            live.pool.close(session)
            disk.path.rename(store.path / "away")
            store.session("a_b_1", entry("other"))
            with refused(errno.ESTALE):
                await live.pool.hold(session)
            assert not session.is_open

    trio.run(main)


@pytest.mark.guarantee("G23f")
def test_when_descriptors_run_out_unused_sessions_are_closed(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        store.session(f"a_b_{number}", entry("a"))
    opened, failing = pools._Opened, [OSError(errno.EMFILE, "too many open files")]

    def short(*args: object) -> object:
        if failing:
            raise StoreError(errno.EMFILE, "no-descriptors", str(failing.pop()))
        return opened(*args)  # type: ignore[arg-type]

    async def main() -> None:
        with living(store) as live:
            kept, used, new = (live.session(f"a_b_{number}") for number in (1, 2, 3))
            async with live.pool.lease(kept):
                pass
            async with live.pool.lease(used):
                monkeypatch.setattr(pools, "_Opened", short)
                async with live.pool.lease(new):
                    assert [kept.is_open, used.is_open, new.is_open] == [False, True, True]

    trio.run(main)


@pytest.mark.guarantee("G23f", "G27b")
@pytest.mark.parametrize("why", ["deadline", "patience"])
def test_an_open_session_for_which_nobody_waits_any_more_keeps_no_descriptor(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    store.session("a_b_1", entry("a"))
    answers, open_session = threading.Event(), Store.open_session

    def slow(opened: Store, slug: str) -> int:
        answers.wait(10)
        return open_session(opened, slug)

    async def main() -> None:
        with living(store, watched=False) as live:
            session = live.session("a_b_1")
            await live.means.work.small(None, os.getpid)  # a thread has descriptors of its own
            before = descriptors()
            with monkeypatch.context() as patched:
                patched.setattr(Store, "open_session", slow)
                if why == "deadline":
                    patched.setattr(live.means.work, "_deadline", 0.05)
                    with refused(errno.ETIMEDOUT):
                        await live.pool.hold(session)
                else:
                    with trio.move_on_after(0.05):
                        await live.pool.hold(session)
                answers.set()
                with trio.fail_after(5):
                    while live.means.work.silent_seconds or descriptors() > before:
                        await trio.sleep(0.01)
            async with live.pool.lease(session):
                assert descriptors() == before + 1

    trio.run(main)


@pytest.mark.guarantee("G15b", "G27b")
def test_a_descriptor_is_not_closed_under_a_thread_that_was_given_up(store: StoreOnDisk) -> None:
    """Else it would go on in whatever session has the number next."""
    for number in (1, 2):
        store.session(f"a_b_{number}", entry("a"))
    answers, found = threading.Event(), list[int]()

    def slow(fd: int) -> None:
        answers.wait(10)
        found.append(os.fstat(fd).st_ino)

    async def main() -> None:
        with living(store, watched=False) as live:
            given_up, other = live.session("a_b_1"), live.session("a_b_2")
            await live.pool.hold(given_up)
            before = descriptors()
            with trio.move_on_after(0.05):
                await live.means.work.long("a_b_1", slow, given_up.fd)
            live.pool.release(given_up)
            live.pool.close(given_up)
            await live.pool.hold(other)
            answers.set()
            with trio.fail_after(5):
                while descriptors() > before:
                    await trio.sleep(0.01)
            assert found == [(store.path / "a_b_1").stat().st_ino]
            live.pool.release(other)

    trio.run(main)


def test_the_least_recently_used_sessions_are_closed_when_there_are_many(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "OPEN_SESSIONS", 8)

    async def main() -> None:
        with living(store) as live:
            sessions = []
            for number in range(1, 10):
                store.session(f"a_b_{number}", entry("a"))
                sessions.append(live.session(f"a_b_{number}"))
            for session in sessions:
                async with live.pool.lease(session):
                    pass
                async with live.pool.lease(sessions[0]):
                    pass
            closed = [session.slug for session in sessions if not session.is_open]
            assert closed == ["a_b_2", "a_b_3"]

    trio.run(main)


def test_epochs_outlive_the_session_that_was_closed(store: StoreOnDisk) -> None:
    """No inode ever shows less than before (G13)."""
    disk = store.session("a_b_1", entry("a"))

    async def main() -> None:
        with living(store) as live:
            session = live.session("a_b_1")
            async with live.pool.lease(session):
                epoch = await refresh(live.means, session, VIEW)
            live.pool.close(session)
            assert live.means.cache.bytes == 0
            disk.add(entry("b"))
            async with live.pool.lease(session):
                assert await refresh(live.means, session, VIEW) is epoch
                assert (await live.text(session, epoch)).count(b"\n") == 2

    trio.run(main)


class Leases(RuleBasedStateMachine):
    """Leases, closes and deletions in any order, checked against the number of users of each session."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        store = StoreOnDisk(Path(self.stack.enter_context(TemporaryDirectory())) / "store")
        for number in range(3):
            store.session(f"a_b_{number}", entry("a"))
        self.store = store
        self.before = descriptors()
        self.live: Live = self.stack.enter_context(self.within_trio())
        self.sessions = [self.live.session(f"a_b_{number}") for number in range(3)]
        self.users = dict.fromkeys(self.sessions, 0)
        self.gone: set[Session] = set()

    @contextmanager
    def within_trio(self) -> Iterator[Live]:
        made = ExitStack()

        async def make() -> Live:
            return made.enter_context(living(self.store))

        yield trio.run(make)
        made.close()

    @rule(at=st.integers(0, 2))
    def is_held(self, at: int) -> None:
        session = self.sessions[at]
        try:
            trio.run(self.live.pool.hold, session)
        except StoreError as error:
            assert error.errno == errno.ENOENT
            assert session in self.gone
        else:
            self.users[session] += 1

    @rule(at=st.integers(0, 2))
    def is_released(self, at: int) -> None:
        session = self.sessions[at]
        if self.users[session]:
            self.users[session] -= 1
            self.live.pool.release(session)

    @rule(at=st.integers(0, 2))
    def is_closed(self, at: int) -> None:
        self.live.pool.close(self.sessions[at])

    @rule()
    def descriptors_are_short(self) -> None:
        self.live.pool.let_go()
        assert set(self.live.pool) <= {session for session, n in self.users.items() if n}

    @rule(at=st.integers(0, 2))
    def is_deleted(self, at: int) -> None:
        self.live.pool.bury(self.sessions[at])
        self.gone.add(self.sessions[at])

    @invariant()
    def what_is_used_is_open_and_nothing_else_leaks(self) -> None:
        is_open = {session for session in self.sessions if session.is_open}
        assert set(self.live.pool) == is_open
        for session, users in self.users.items():
            assert session.users == users
            if users:
                assert session.is_open
            elif session in self.gone:
                assert not session.is_open
        assert self.live.events.watches == 1 + len(is_open)

    def teardown(self) -> None:
        self.stack.close()
        assert descriptors() <= self.before


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


MOST = 3
MINE = entry("mine")


@pytest.mark.guarantee("G16d", "G23a")
def test_of_too_many_sessions_some_forget_the_steps_that_a_daemon_may_displace(
    store: StoreOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "REMEMBERING_SESSIONS", MOST)
    sessions = [store.session(f"crab_tg-1_{number}") for number in range(1, 2 * MOST + 1)]
    driver = TreeDriver(store)
    try:
        for session in sessions:
            driver.append(session, MINE + b"\n")
        until(lambda: len(remembering(driver)) == MOST)
        remembered = remembering(driver)
        for session in sessions:
            session.put(1, entry("daemon"))
        until(lambda: {s.slug for s in sessions if is_back(s)} == remembered)
        assert all(session.step(1) == entry("daemon") for session in sessions)
    finally:
        driver.stop()


def remembering(driver: TreeDriver) -> set[str]:
    """The sessions that remember steps once all unused ones are closed."""
    driver.forget_everything()
    return {session.slug for session in driver.superblock.pool.remembering}


def is_back(session: SessionOnDisk) -> bool:
    return MINE in session.steps()
