"""No answer is wrong where inotify loses events, runs out of watches or sees nothing."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.far import NO_BINDFS, bound
from tests.support.looking import all_shown, inode, line, listed, opened, processor_ticks, whole
from tests.support.model import HISTORY, LOG, VIEWS, shown
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
LONG = 5000


# --- where events are lost, or none come ---------------------------------------------------------


@contextmanager
def inotify_limit(name: str, value: Callable[[int], int]) -> Iterator[None]:
    """Set an inotify limit for the duration of the context, under a lock."""
    limit = Path("/proc/sys/fs/inotify") / name
    with open("/tmp/stepfs-test-inotify.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = limit.read_text()
        limit.write_text(str(value(int(before))))
        try:
            yield
        finally:
            limit.write_text(before)


@pytest.mark.guarantee("G12c", "G13b")
def test_lost_events_lead_to_no_wrong_answer(store: StoreOnDisk, mount: Mounts) -> None:
    with inotify_limit("max_queued_events", lambda _: 256):
        served = mount()
    session = store.session("crab_tg-42_1", *(entry(f"{n}") for n in range(60)))
    other = store.session("crab_tg-42_2", entry("one"))
    deleted = store.session("crab_tg-42_3", entry("gone"))
    at = served.path / session.slug
    all_shown(at, session)
    all_shown(served.path / other.slug, other)
    inodes = {view: inode(at / view) for view in VIEWS}
    assert served.server is not None
    with opened(at / HISTORY) as fd, opened(served.path / deleted.slug / HISTORY) as gone:
        before = whole(fd)
        served.server.send_signal(signal.SIGSTOP)
        try:
            for number in range(400):
                (session.path / "step-000031").rename(session.path / "away")
                (session.path / "away").rename(session.path / f"step-{number % 7:06}")
                (session.path / f"step-{number % 7:06}").rename(session.path / "step-000031")
            session.put(30, entry("replaced"))
            other.add(entry("two"))
            deleted.delete()
            made = store.session("crab_tg-42_4", entry("new"))
        finally:
            served.server.send_signal(signal.SIGCONT)
        all_shown(at, session)
        all_shown(served.path / other.slug, other)
        all_shown(served.path / made.slug, made)
        with pytest.raises(FileNotFoundError):
            (served.path / deleted.slug / HISTORY).read_bytes()
        assert whole(fd) == before
        assert whole(gone) == line("gone")
        assert all(inode(at / view) != inodes[view] for view in VIEWS)
    assert "overflowed" in served.log()
    served.expected.append("overflowed")
    for number in range(100, 120):
        session.put(number, entry(f"{number}"))
        all_shown(at, session)


@pytest.mark.guarantee("G12c")
def test_opens_are_exact_when_no_more_directories_can_be_watched(
    store: StoreOnDisk, mount: Mounts
) -> None:
    served = mount()
    sessions = [store.session(f"crab_tg-42_{n}", entry("one")) for n in range(1, 4)]
    with inotify_limit("max_user_watches", lambda _: 1):
        for session in sessions:
            all_shown(served.path / session.slug, session)
        for number in range(100):
            for session in sessions:
                if number % 10 == 9:
                    session.add(compaction(f"{number}"))
                elif number % 10 == 5:
                    session.put(session.numbers()[-1], entry(f"replaced {number}"))
                else:
                    session.add(entry(f"{number}"))
                at = served.path / session.slug
                assert (at / HISTORY).read_bytes() == shown(session.steps(), HISTORY)
                assert (at / LOG).read_bytes() == shown(session.steps(), LOG)
        old_stats_are_at_most_a_second_old(served.path / sessions[0].slug, sessions[0])


@pytest.mark.guarantee("G12c", "G20a")
def test_a_mount_that_can_watch_nothing_at_all_is_exact(store: StoreOnDisk, mount: Mounts) -> None:
    with inotify_limit("max_user_watches", lambda _: 1):
        served = mount()
        session = store.session("crab_tg-42_1", entry("one"))
        at = served.path / session.slug
        all_shown(at, session)
        session.add(entry("two"))
        all_shown(at, session)
        with opened(at / HISTORY) as fd:
            session.delete()
            assert whole(fd) == line("one") + line("two")
            assert listed(served.path) == []
            with pytest.raises(FileNotFoundError):
                (at / HISTORY).read_bytes()
            assert whole(fd) == line("one") + line("two")


def old_stats_are_at_most_a_second_old(at: Path, session: SessionOnDisk) -> None:
    with opened(at / HISTORY) as fd:
        for _ in range(2):
            session.add(entry("more"))
            size = len(shown(session.steps(), HISTORY))
            begun = time.monotonic()
            until(lambda size=size: os.fstat(fd).st_size == size, 5)  # type: ignore[misc]
            assert time.monotonic() - begun < 1.2
            assert (at / HISTORY).stat().st_size == size


@NO_BINDFS
@pytest.mark.guarantee("G12c", "G13b", "G13c", "G20a", "G20b", "G12d")
def test_opens_are_exact_on_a_store_whose_changes_inotify_does_not_see(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / "lower")
    session = store.session("crab_tg-42_1", entry("one"))
    with (
        time_limit(tmp_path),
        bound(store.path, tmp_path / "bound"),
        mounted(tmp_path / "bound", tmp_path, "sync=never") as served,
    ):
        at = served.path / session.slug
        held = os.open(at / HISTORY, os.O_RDONLY)
        try:
            for number in range(60):
                if number % 20 == 19:
                    session.add(compaction(f"{number}"))
                elif number % 20 == 7:
                    session.put(session.numbers()[-1], entry(f"replaced {number}"))
                elif number % 20 == 11:
                    (session.path / f"step-{session.numbers()[-1]:06}").unlink()
                elif number % 20 == 13:
                    (at / "append").write_bytes(line(f"inside {number}"))
                else:
                    session.add(entry(f"{number}"))
                all_shown(at, session)
            assert whole(held).startswith(line("one"))
            old_stats_are_at_most_a_second_old(at, session)
            made = store.session("crab_tg-42_2", entry("new"))
            assert listed(served.path) == [session.slug, made.slug]
            all_shown(served.path / made.slug, made)
            with opened(at / LOG) as fd:
                before = whole(fd)
                session.delete()
                assert whole(fd) == before
                with pytest.raises(FileNotFoundError):
                    (at / LOG).read_bytes()
                assert listed(served.path) == [made.slug]
                assert whole(fd) == before
        finally:
            os.close(held)


QUIET_SECONDS = (0.0, 0.1, 0.4, 1.0, 0.0, 3.0, 0.2, 6.0)
"""Pauses between steps: the longer the pause, the less often the mount polls."""


@NO_BINDFS
@pytest.mark.guarantee("G28a", "G14b")
def test_a_waiter_learns_within_a_second_of_what_inotify_does_not_see(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / "lower")
    session = store.session("crab_tg-42_1", entry("one"))
    with (
        time_limit(tmp_path),
        bound(store.path, tmp_path / "bound"),
        mounted(tmp_path / "bound", tmp_path, "sync=never") as served,
        opened(served.path / session.slug / HISTORY) as fd,
    ):
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        for quiet in QUIET_SECONDS:
            assert poller.poll(quiet * 1000) == []
            session.add(entry(f"after {quiet}"))
            begun = time.monotonic()
            assert poller.poll(2000)
            assert time.monotonic() - begun < max(0.5, min(1, quiet))
            assert whole(fd) == shown(session.steps(), HISTORY)


@NO_BINDFS
@pytest.mark.guarantee("G23b")
def test_a_far_store_that_nobody_follows_costs_no_time(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / "lower")
    session = store.session("crab_tg-42_1", entry("one"))
    with (
        time_limit(tmp_path),
        bound(store.path, tmp_path / "bound"),
        mounted(tmp_path / "bound", tmp_path, "sync=never") as served,
    ):
        with opened(served.path / session.slug / HISTORY) as fd:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            assert poller.poll(300) == []
        assert served.server is not None
        time.sleep(1)
        before = processor_ticks(served.server.pid)
        time.sleep(2)
        assert processor_ticks(served.server.pid) == before


@NO_BINDFS
@pytest.mark.guarantee("G12c", "G13b")
def test_of_a_long_far_session_an_open_shows_each_edit(store: StoreOnDisk, tmp_path: Path) -> None:
    """A listing shows every change but an edit of a file, which takes a stat of each."""
    session = store.session("crab_tg-42_1", *(entry(f"{n}") for n in range(LONG)))
    with bound(store.path, tmp_path / "bound") as far, mounted(far, tmp_path) as mount:
        at = mount.path / session.slug
        all_shown(at, session)
        replacement = session.path / "step-000003.tmp.1"
        replacement.write_bytes(entry("in its place"))
        replacement.rename(session.path / "step-000003")
        all_shown(at, session)
        for number in (1, 2000, LONG):
            (session.path / f"step-{number:06}").write_bytes(entry(f"edited, {number}"))
            assert (at / HISTORY).read_bytes() == shown(session.steps(), HISTORY)
        session.put(LONG - 50, compaction("early"))
        all_shown(at, session)
        (session.path / "step-000007").write_bytes(entry("edited before the compaction"))
        all_shown(at, session)
        (session.path / f"step-{LONG - 50:06}").write_bytes(entry("a compaction no more"))
        assert (at / HISTORY).read_bytes() == shown(session.steps(), HISTORY)


@NO_BINDFS
@pytest.mark.guarantee("G12c", "G13b")
def test_of_a_long_far_session_a_stat_tells_of_an_edit_though_nobody_opens(
    store: StoreOnDisk, tmp_path: Path
) -> None:
    session = store.session("crab_tg-42_1", *(entry(f"{n}") for n in range(600)))
    with bound(store.path, tmp_path / "bound") as far, mounted(far, tmp_path) as mount:
        at = mount.path / session.slug
        with opened(at / HISTORY) as fd:
            before = whole(fd)
            for number in (3, 300, 500):
                shown_now = inode(at / HISTORY)
                (session.path / f"step-{number:06}").write_bytes(entry(f"edited, {number}"))
                until(lambda was=shown_now: inode(at / HISTORY) != was, 60)  # type: ignore[misc]
            assert whole(fd) == before
        all_shown(at, session)
