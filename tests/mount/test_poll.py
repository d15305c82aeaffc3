"""poll, select and epoll: files report each growth once, and their replacement for good."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.support.commands import environment, until
from tests.support.looking import processor_ticks
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
VIEWS = ("history.jsonl", "log.jsonl")
QUIET_MS = 120
"""How long nothing must happen for a file to count as quiet."""
SOON_MS = 5000


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def told(fd: int, events: int = select.POLLPRI, milliseconds: int = 0) -> int:
    """What poll(2) returns for the file within that time."""
    poller = select.poll()
    poller.register(fd, events)
    return dict(poller.poll(milliseconds)).get(fd, 0)


@contextmanager
def waiter(fd: int, wait: Callable[[int], bool]) -> Iterator[list[tuple[bool, float]]]:
    """A thread that waits for the file, and records the results and when they came."""
    answers: list[tuple[bool, float]] = []
    tid: list[int] = []

    def work() -> None:
        tid.append(threading.get_native_id())
        answers.append((wait(fd), time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: bool(tid) and (bool(answers) or asleep(tid[0])))
    yield answers
    thread.join()


def asleep(tid: int) -> bool:
    """Whether this process's thread sleeps in poll, select or epoll."""
    where = Path(f"/proc/self/task/{tid}/wchan").read_text()
    return "poll" in where or "select" in where


def by_poll(fd: int) -> bool:
    return told(fd, milliseconds=SOON_MS) == select.POLLPRI


def by_select(fd: int) -> bool:
    return select.select([], [], [fd], SOON_MS / 1000) == ([], [], [fd])


def by_epoll(fd: int, more: int = 0) -> bool:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLPRI | more)
        return epoll.poll(SOON_MS / 1000) == [(fd, select.EPOLLPRI)]


def by_epoll_edge(fd: int) -> bool:
    return by_epoll(fd, select.EPOLLET)


WAYS = (by_poll, by_select, by_epoll, by_epoll_edge)


@pytest.mark.guarantee("G14a", "G14b")
@pytest.mark.parametrize("view", VIEWS)
def test_a_waiter_wakes_when_the_file_grows_whoever_wrote(
    store: StoreOnDisk, mount: Mounts, view: str
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount("sync=never").path / session.slug
    took = []
    with opened(at / view) as fd:
        for number in range(40):
            with waiter(fd, WAYS[number % len(WAYS)]) as answers:
                assert answers == []
                begun = time.monotonic()
                if number // len(WAYS) % 2:
                    session.add(entry(f"{number}"))
                else:
                    (at / "append").write_bytes(entry(f"{number}") + b"\n")
            ((right, at_time),) = answers
            assert right
            took.append(at_time - begun)
            size = os.fstat(fd).st_size
            assert os.pread(fd, size + 1, 0).endswith(entry(f"{number}") + b"\n")
            assert told(fd) == 0
    assert sorted(took)[len(took) // 2] < 0.05


@pytest.mark.guarantee("G14b")
@pytest.mark.parametrize("view", VIEWS)
def test_growth_is_reported_once_and_first_since_the_open(
    store: StoreOnDisk, mount: Mounts, view: str
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path / session.slug
    with opened(at / view) as fd:
        assert told(fd) == 0
        session.add(entry("two"))
        session.add(entry("three"))
        with opened(at / view) as later:
            assert told(later) == 0
            assert told(fd) == select.POLLPRI
            assert told(fd) == 0
            assert told(fd, milliseconds=QUIET_MS) == 0
            session.add(entry("four"))
            assert told(later, milliseconds=SOON_MS) == select.POLLPRI
            assert told(fd, milliseconds=SOON_MS) == select.POLLPRI
            assert (told(fd), told(later)) == (0, 0)


@pytest.mark.guarantee("G14b")
def test_what_does_not_show_wakes_nobody(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"), event())
    other = store.session("crab_tg-42_2", entry("one"))
    path = mount("sync=never").path
    at = path / session.slug
    with opened(at / "history.jsonl") as history, opened(at / "log.jsonl") as log:
        with waiter(history, lambda fd: told(fd, milliseconds=QUIET_MS) == 0) as answers:
            session.add(event())
            (at / "append").write_bytes(event() + b"\n")
            session.put(2, event("replaced"))
            (session.path / "step-000009").write_bytes(b"{broken")
            (session.path / "other").write_bytes(b"no step")
            other.add(entry("two"))
            (at / "meta.json").write_text('{"title":"another"}')
        assert answers[0][0]
        assert told(log) == select.POLLPRI
        session.put(10, entry("three"))
        assert told(history, milliseconds=SOON_MS) == select.POLLPRI


@pytest.mark.guarantee("G14c", "G14a")
@pytest.mark.parametrize(
    ("replace", "views"),
    [
        (lambda s, _: s.add(compaction("outside")), ("history.jsonl",)),
        (lambda _, at: (at / "compact").write_text("inside\n"), ("history.jsonl",)),
        (lambda s, _: s.put(1, entry("another")), VIEWS),
        (lambda s, _: (s.path / "step-000001").unlink(), VIEWS),
        (lambda s, _: s.delete(), VIEWS),
        (lambda _, at: at.rmdir(), VIEWS),
    ],
    ids=["compacted", "compacted here", "replaced", "removed", "deleted", "deleted here"],
)
def test_it_stays_set_once_the_file_has_been_replaced(
    store: StoreOnDisk,
    mount: Mounts,
    replace: Callable[[SessionOnDisk, Path], None],
    views: tuple[str, ...],
) -> None:
    path = mount("sync=never").path
    for number, (view, wait) in enumerate(product(views, WAYS), 1):
        session = store.session(f"crab_tg-42_{number}", entry("one"))
        at = path / session.slug
        with opened(at / view) as fd:
            text = os.pread(fd, 4096, 0)
            with waiter(fd, wait) as answers:
                begun = time.monotonic()
                replace(session, at)
            assert answers[0][0]
            assert answers[0][1] - begun < 1
            for _ in range(3):
                assert told(fd) == select.POLLPRI
                assert wait(fd)
            assert told(fd, select.POLLIN | select.POLLPRI) == select.POLLIN | select.POLLPRI
            assert os.pread(fd, 4096, 0) == text
        if session.path.exists():
            session.put(1, entry("one"))
            session.add(entry("more"))
            with opened(at / view) as fd:
                assert told(fd) == 0


@pytest.mark.guarantee("G14b")
def test_every_open_file_has_waiters_of_its_own_and_wakes_all(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / "history.jsonl"
    files = [os.open(history, os.O_RDONLY) for _ in range(12)]
    try:
        poller = select.epoll()
        for fd in files:
            poller.register(fd, select.EPOLLPRI | select.EPOLLET)
        assert poller.poll(0) == []
        for number in range(20):
            session.add(entry(f"{number}"))
            woken: set[int] = set()

            def gathered(woken: set[int] = woken) -> bool:
                woken.update(fd for fd, events in poller.poll(0.2) if events & select.EPOLLPRI)
                return len(woken) == len(files)

            until(gathered, 5)
        poller.close()
    finally:
        for fd in files:
            os.close(fd)


@pytest.mark.guarantee("G14b")
def test_one_open_file_shared_by_several_descriptors_tells_one_of_them_and_hangs_none(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / "history.jsonl"
    with opened(history) as fd:
        shared = [fd, os.dup(fd), os.dup(fd)]
        try:
            for number in range(10):
                answers: list[bool] = []

                def work(fd: int, answers: list[bool] = answers) -> None:
                    answers.append(by_poll(fd))

                threads = [threading.Thread(target=work, args=[fd]) for fd in shared]
                for thread in threads:
                    thread.start()
                # Each growth wakes at least one thread, and the others wait for the next.
                while any(thread.is_alive() for thread in threads):
                    session.add(entry(f"{number}"))
                    for thread in threads:
                        thread.join(0.02)
                assert answers == [True, True, True]
        finally:
            for fd in shared[1:]:
                os.close(fd)


KILLED = """
import select, sys
poller = select.poll()
poller.register(0, select.POLLPRI)
print("waits", flush=True)
poller.poll()
"""


@pytest.mark.guarantee("G14b")
def test_a_waiter_that_is_killed_takes_nobodys_news_with_it(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / "history.jsonl"
    with opened(history) as fd:
        for number in range(5):
            child = subprocess.Popen(
                [sys.executable, "-c", KILLED], stdin=fd, stdout=subprocess.PIPE, env=environment()
            )
            with child, waiter(fd, by_poll) as answers:
                assert child.stdout is not None
                assert child.stdout.readline() == b"waits\n"
                wchan = Path(f"/proc/{child.pid}/wchan")
                until(lambda wchan=wchan: "poll" in wchan.read_text())  # type: ignore[misc]
                child.send_signal(signal.SIGKILL)
                child.wait(10)
                assert answers == []
                session.add(entry(f"{number}"))
            assert answers[0][0]


@pytest.mark.guarantee("G14b")
def test_another_file_of_the_same_poll_does_not_lose_the_waiter(
    store: StoreOnDisk, mount: Mounts
) -> None:
    first, second = (store.session(f"crab_tg-42_{n}", entry("one")) for n in (1, 2))
    path = mount().path
    with (
        opened(path / first.slug / "history.jsonl") as one,
        opened(path / second.slug / "history.jsonl") as two,
    ):
        poller = select.poll()
        poller.register(one, select.POLLPRI)
        poller.register(two, select.POLLPRI)
        for number in range(30):
            session, fd = ((first, one), (second, two))[number % 2]
            session.add(entry(f"{number}"))
            assert poller.poll(SOON_MS) == [(fd, select.POLLPRI)]
        assert poller.poll(QUIET_MS) == []


@pytest.mark.guarantee("G14b")
def test_level_and_edge_triggered_epoll_tell_each_growth_once(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / "history.jsonl"
    for trigger in (0, select.EPOLLET, select.EPOLLONESHOT):
        with opened(history) as fd, select.epoll() as epoll:
            epoll.register(fd, select.EPOLLPRI | trigger)
            for number in range(10):
                session.add(entry(f"{number}"))
                assert epoll.poll(SOON_MS / 1000) == [(fd, select.EPOLLPRI)]
                if trigger == select.EPOLLONESHOT:
                    epoll.modify(fd, select.EPOLLPRI | trigger)
            assert epoll.poll(QUIET_MS / 1000) == []


@pytest.mark.guarantee("G14b")
def test_no_growth_is_missed_between_two_polls(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / "history.jsonl"
    count = 1500

    def write() -> None:
        for number in range(count):
            session.put(number + 2, entry(f"{number}"))

    with opened(history) as fd:
        writer = threading.Thread(target=write)
        writer.start()
        seen = len(entry("one")) + 1
        lines = 1
        while lines < count + 1:
            assert by_poll(fd), f"nothing was told after {lines} lines"
            while part := os.pread(fd, 1 << 20, seen):
                seen += len(part)
                lines += part.count(b"\n")
        writer.join()
        assert lines == count + 1


@pytest.mark.guarantee("G14a", "G4a")
def test_other_files_answer_as_regular_files_do(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    path = mount("sync=never").path
    at = path / session.slug
    readable = select.POLLIN | select.POLLRDNORM
    every = readable | select.POLLPRI | select.POLLOUT | select.POLLWRNORM
    regular = told_of_a_regular_file(session.path / "meta", every)
    files = [at / name for name in os.listdir(at)]
    files += [path / ".stepfs" / name for name in ("README", "status.json", "sessions.jsonl")]
    for file in files:
        writable = file.name in ("append", "compact", "meta.json")
        with opened(file, os.O_RDWR if writable else os.O_RDONLY) as fd:
            assert told(fd, every) == regular, file
            if file.name not in VIEWS:
                session.add(entry("more"))
                assert told(fd, select.POLLPRI, QUIET_MS) == 0, file
                assert told(fd, readable, SOON_MS) == readable, file


def told_of_a_regular_file(file: Path, events: int) -> int:
    with opened(file) as fd:
        return told(fd, events)


SSH_LIKE = """
import os, select, sys
poller = select.poll()
poller.register(0, select.POLLIN)
while True:
    ((_, events),) = poller.poll()
    data = os.read(0, 8192)
    if not data:
        break
    sys.stdout.buffer.write(data)
"""


@pytest.mark.guarantee("G14a")
def test_a_program_that_polls_at_the_end_of_the_file_does_not_hang(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path / session.slug
    for view in ("history.jsonl", "log.jsonl", "messages.jsonl", "compact"):
        with opened(at / view) as fd:
            done = subprocess.run(
                [sys.executable, "-c", SSH_LIKE],
                stdin=fd,
                capture_output=True,
                timeout=20,
                check=True,
            )
        assert done.stdout == (at / view).read_bytes()


@pytest.mark.guarantee("G14b", "G23b")
def test_a_waiter_costs_no_time_while_nothing_happens(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    mounted = mount()
    history = mounted.path / session.slug / "history.jsonl"
    assert mounted.server is not None
    with opened(history) as fd, waiter(fd, by_poll) as answers:
        used = []
        for _ in range(3):  # the first second may include work of the open
            before = processor_ticks(mounted.server.pid)
            time.sleep(1)
            used.append(processor_ticks(mounted.server.pid) - before)
            if used[-1] == 0:
                break
        assert used[-1] == 0, used
        assert answers == []
        session.add(entry("two"))
    assert answers[0][0]
