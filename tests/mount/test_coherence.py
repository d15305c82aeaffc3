"""The views show what is in the store at once, whoever wrote it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import ge
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.far import NO_BINDFS, bound, needs_inodes
from tests.support.looking import all_shown, inode, line, listed, opened, whole
from tests.support.model import HISTORY, LOG, VIEWS, shown
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
PUSHED = 0.25
"""Seconds within which a push arrives even on a busy machine; without one a stat is 1 s behind."""


@pytest.fixture(params=["near", pytest.param("far", marks=NO_BINDFS)])
def host(request: pytest.FixtureRequest) -> str:
    """Where the mount is: on the writing host, or on another, where inotify reports no changes."""
    return str(request.param)


@pytest.fixture
def mount(store: StoreOnDisk, tmp_path: Path, host: str) -> Iterator[Mounts]:
    """Mounts the store when called, with -o options."""
    with time_limit(tmp_path), ExitStack() as stack:
        place = store.path
        if host == "far":
            place = stack.enter_context(bound(store.path, tmp_path / "bound"))

        def start(*options: str) -> Mount:
            return stack.enter_context(mounted(place, tmp_path, *options))

        yield start


@pytest.fixture
def share(host: str) -> int:
    """Divisor of the work: on the far host each open lists the session and stats all its steps."""
    return 10 if host == "far" else 1


pushed = pytest.mark.parametrize("host", ["near"])
"""For tests that need events; `tests/mount/test_unseen_changes.py` tests the delay without them."""


# --- exact opens ---------------------------------------------------------------------------------


@pytest.mark.guarantee("G12a", "G13a", "G13d")
def test_each_of_thousands_of_outside_writes_is_seen_by_the_next_open(
    store: StoreOnDisk, mount: Mounts, share: int
) -> None:
    session = store.session("crab_tg-42_1")
    history = mount().path / session.slug / HISTORY
    expected = b""
    for number in range(1, 3000 // share + 1):
        if number % 50 == 0:
            session.put(number, compaction(f"archive-{number}"))
            expected = b""
        elif number % 7 == 0:
            session.put(number, event())
        else:
            session.put(number, entry(f"text {number}"))
            expected += line(f"text {number}")
        assert history.read_bytes() == expected, number
        assert history.stat().st_size == len(expected), number


WRITER = """
import select, sys
sys.path.insert(0, {project!r})
from itertools import count
from pathlib import Path
from tests.support.stores import SessionOnDisk, compaction, entry
session = SessionOnDisk(Path(sys.argv[1]))
for number in count(2, 2):
    # After so many slowly, or readers of ever longer sessions would never have read enough.
    if number > int(sys.argv[2]) and select.select([sys.stdin], [], [], 0.02)[0]:
        break
    session.put(number, entry(str(number)))
    session.put(number + 1, compaction(str(number)))
    sys.stdout.write("%06d\\n" % number)
    sys.stdout.flush()
"""


@pytest.mark.guarantee("G12a", "G13d")
def test_no_open_fails_or_is_stale_while_another_program_compacts_as_fast_as_it_can(
    store: StoreOnDisk, mount: Mounts, share: int, tmp_path: Path
) -> None:
    session = store.session("crab_tg-42_1", compaction("0"))
    at = mount().path / session.slug
    told = tmp_path / "told"
    program = WRITER.format(project=str(Path(__file__).parents[2]))
    with told.open("wb") as output:
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(session.path), str(8000 // share)],
            stdin=subprocess.PIPE,
            stdout=output,
        )
    wrong: list[str] = []
    reads = [0, 0]

    def read(number: int) -> None:
        while writer.poll() is None:
            written = told.stat().st_size // 7
            last = 2 * written
            try:
                log = (at / LOG).read_bytes().splitlines()
                shown_now = (at / HISTORY).read_bytes()
            except OSError as error:
                wrong.append(f"{error}")
                return
            if len(log) < last:
                wrong.append(f"{len(log)} steps, but {last} were there")
            if shown_now.count(b"\n") > 1:
                wrong.append(f"an archived entry is shown: {shown_now!r}")
            if written and shown_now and int(shown_now.split(b'"')[-2]) <= last:
                wrong.append(f"{shown_now!r} is shown after the compaction {last + 1}")
            reads[number] += 1

    readers = [threading.Thread(target=read, args=[number]) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        until(lambda: bool(wrong) or min(reads) > 10)
    finally:
        writer.communicate()  # it ends once it has written enough
        for reader in readers:
            reader.join()
    assert writer.returncode == 0
    assert wrong == []
    all_shown(at, session)


@pytest.mark.guarantee("G12a", "G13d")
def test_every_open_is_exact_while_a_long_history_is_compared_anew(
    store: StoreOnDisk, mount: Mounts, share: int
) -> None:
    count = 4000 // share
    session = store.session("crab_tg-42_1", *(entry(f"{n}") for n in range(count)))
    history = mount().path / session.slug / HISTORY
    history.read_bytes()
    wrong: list[str] = []
    stored = 0
    reads = [0, 0]
    ended = threading.Event()

    def read(number: int) -> None:
        while not ended.is_set():
            before = stored
            try:
                lines = history.read_bytes().splitlines()
            except OSError as error:
                wrong.append(f"{error}")
                return
            after = stored + 1
            reads[number] += 1
            first, last = (int(x.split(b'"')[-2].removeprefix(b"v")) for x in (lines[0], lines[-1]))
            if before and not before <= first <= after:
                wrong.append(f"first line {first}, but between {before} and {after} was there")
            if before and not last <= first <= last + 1:
                wrong.append(f"a mixture: first {first}, last {last}")

    readers = [threading.Thread(target=read, args=[number]) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, 15):
            session.put(1, entry(f"v{version}"))
            session.put(count, entry(f"v{version}"))
            stored = version
            seen = [done + 2 for done in reads]
            until(lambda seen=seen: bool(wrong) or all(map(ge, reads, seen)))  # type: ignore[misc]
    finally:
        ended.set()
    for reader in readers:
        reader.join()
    assert wrong == []


@pytest.mark.guarantee("G12a", "G5b")
def test_what_is_appended_while_others_write_is_in_the_next_open(
    store: StoreOnDisk, mount: Mounts, share: int
) -> None:
    session = store.session("crab_tg-42_1")
    at = mount("sync=never").path / session.slug
    for round_ in range(300 // share):
        session.add(entry(f"outside {round_}"))
        (at / "append").write_bytes(line(f"inside {round_}") + line(f"twice {round_}"))
        if round_ % 20 == 19:
            session.put(session.numbers()[-1] + 7, compaction(f"archive-{round_}"))
            (at / "append").write_bytes(line("after"))
            assert (at / HISTORY).read_bytes() == line("after")
        all_shown(at, session)


@pytest.mark.guarantee("G12a")
def test_a_compaction_written_in_place_is_taken_when_it_is_complete(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("a"), event())
    at = mount().path / session.slug
    data = compaction("archive-1")
    with open(session.path / "step-000003", "wb", buffering=0) as step:
        all_shown(at, session)
        step.write(data[:10])
        all_shown(at, session)
        step.write(data[10:])
        all_shown(at, session)
        step.write(b"\n")
        assert (at / HISTORY).read_bytes() == b""
        assert (at / "compact").read_text() == "archive-1\n"
    all_shown(at, SessionOnDisk(session.path))


@pytest.mark.guarantee("G12a")
def test_steps_that_appear_empty_are_shown_when_they_are_complete(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path / session.slug
    source = tmp_path / "source"
    source.write_bytes(entry("copied"))
    for number in range(2, 40):
        name = session.path / f"step-{number:06}"
        if number % 3 == 0:
            subprocess.run(["cp", str(source), str(name)], check=True)
        elif number % 3 == 1:
            subprocess.run(
                ["sh", "-c", 'printf %s "$1" > "$2"', "sh", entry("sh"), name], check=True
            )
        else:
            with name.open("wb", buffering=0) as step:
                step.write(entry("torn")[:9])
                all_shown(at, session)
                session.put(1000 + number, entry("later"))
                all_shown(at, session)
                step.write(entry("torn")[9:])
        all_shown(at, session)


@pytest.mark.guarantee("G12a", "S1")
def test_every_name_of_a_number_is_shown_as_it_comes(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"), entry("two"))
    at = mount().path / session.slug
    assert (at / HISTORY).read_bytes() == line("one") + line("two")
    (session.path / "step-2").write_bytes(entry("another two"))
    assert (at / HISTORY).read_bytes() == line("one") + line("two") + line("another two")
    (session.path / "step-000002").unlink()
    assert (at / HISTORY).read_bytes() == line("one") + line("another two")


@pytest.mark.guarantee("G12a", "S2")
def test_what_is_no_file_in_place_of_a_step_leaves_nothing_behind_when_it_goes(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path / session.slug
    all_shown(at, session)
    (session.path / "step-000002").mkdir()
    (session.path / "step-000003").symlink_to("step-000001")
    os.mkfifo(session.path / "step-000004")
    session.put(5, entry("five"))
    assert (at / HISTORY).read_bytes() == line("one") + line("five")
    (session.path / "step-000002").rmdir()
    (session.path / "step-000003").unlink()
    (session.path / "step-000004").unlink()
    session.put(3, entry("three"))
    all_shown(at, session)


# --- pushed --------------------------------------------------------------------------------------


@pushed
@pytest.mark.guarantee("G12b")
def test_stat_and_fstat_see_an_outside_step_within_milliseconds(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path / session.slug
    took = []
    for view in VIEWS:
        with opened(at / view) as fd:
            for number in range(30):
                expected = len(shown([*session.steps(), entry(f"{number}")], view))
                begun = time.monotonic()
                session.add(entry(f"{number}"))
                until(lambda fd=fd, size=expected: os.fstat(fd).st_size == size, 2)  # type: ignore[misc]
                assert (at / view).stat().st_size == expected
                took.append(time.monotonic() - begun)
                assert whole(fd) == shown(session.steps(), view)
    took.sort()
    assert took[len(took) // 2] < 0.05
    assert took[-len(took) // 20] < PUSHED


@pushed
@pytest.mark.guarantee("G12b", "G13b")
def test_stat_sees_an_outside_compaction_within_milliseconds(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / HISTORY
    before = history.stat()
    assert before.st_size == len(line("one"))
    session.add(compaction("archive-1"))
    begun = time.monotonic()
    until(lambda: history.stat().st_size == 0)
    assert time.monotonic() - begun < PUSHED
    assert inode(history) != before.st_ino


@pushed
@pytest.mark.guarantee("G12b", "G23c")
def test_a_long_comparison_of_one_session_does_not_hold_up_the_push_of_another(
    store: StoreOnDisk, mount: Mounts
) -> None:
    large = store.session("crab_tg-42_1", *(entry(f"{n}") for n in range(20_000)))
    small = store.session("crab_tg-42_2", entry("one"))
    at = mount().path
    (at / large.slug / LOG).read_bytes()
    with opened(at / small.slug / HISTORY) as fd:
        os.fstat(fd)
        size = len(line("one"))
        took = []
        for number in range(7):
            large.put(1, entry(f"replaced {number}"))
            time.sleep(0.02)
            begun = time.monotonic()
            small.add(entry("two"))
            size += len(line("two"))
            until(lambda size=size: os.fstat(fd).st_size == size)  # type: ignore[misc]
            took.append(time.monotonic() - begun)
        assert sorted(took)[len(took) // 2] < PUSHED / 2


@pushed
@pytest.mark.guarantee("G12b", "G3c")
def test_the_time_of_a_view_is_pushed_with_it(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / HISTORY
    history.stat()
    session.add(entry("two"))
    expected = (session.path / "step-000002").stat().st_mtime_ns
    until(lambda: history.stat().st_mtime_ns == expected, PUSHED)
    os.utime(session.path / "step-000002", (0, 1000))
    until(lambda: history.stat().st_mtime_ns == 1000 * 10**9, PUSHED)


# --- sessions come and go ------------------------------------------------------------------------


@pytest.mark.guarantee("G12d", "G20a", "G20b")
def test_sessions_that_are_made_and_deleted_underneath_are_seen_at_once(
    store: StoreOnDisk, mount: Mounts
) -> None:
    at = mount().path
    for round_ in range(100):
        session = store.session("crab_tg-42_1", entry(f"round {round_}"))
        assert listed(at) == [session.slug]
        assert (at / session.slug / HISTORY).read_bytes() == line(f"round {round_}")
        with opened(at / session.slug / HISTORY) as fd:
            session.delete()
            assert listed(at) == []
            with pytest.raises(FileNotFoundError):
                (at / session.slug / HISTORY).read_bytes()
            with pytest.raises(FileNotFoundError):
                (at / session.slug / "append").write_bytes(line("lost"))
            assert whole(fd) == line(f"round {round_}")


@pytest.mark.guarantee("G12a", "G13b", "G13c", "G20a")
def test_a_session_deleted_and_made_again_under_its_name_is_another(
    store: StoreOnDisk, mount: Mounts, host: str
) -> None:
    needs_inodes(host)
    session = store.session("crab_tg-42_1", entry("first"))
    mounted = mount()
    mounted.expected.append("was deleted (ENOENT)")
    at = mounted.path / session.slug
    with opened(at / HISTORY) as fd, open(at / "append", "wb", buffering=0) as append:
        for round_ in range(50):
            session.delete()
            store.session(session.slug, entry(f"round {round_}"))
            assert (at / HISTORY).read_bytes() == line(f"round {round_}")
            assert (at / HISTORY).stat().st_size == len(line(f"round {round_}"))
        assert whole(fd) == line("first")
        assert inode(at / HISTORY) != os.fstat(fd).st_ino
        with pytest.raises(FileNotFoundError):
            append.write(line("lost"))
    assert session.steps() == [entry("round 49")]


@pytest.mark.guarantee("G20a")
def test_a_session_that_was_just_replaced_is_listed_by_whoever_opens_it(
    store: StoreOnDisk, mount: Mounts, host: str
) -> None:
    """The kernel still has the old dentry, and revalidates it while the directory is opened."""
    needs_inodes(host)
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount().path / session.slug
    for round_ in range(100):
        (at / HISTORY).read_bytes()
        listed = os.listdir(at)
        aside = store.path / ".aside"
        session.path.rename(aside)
        store.session(session.slug, entry(f"round {round_}"))
        assert os.listdir(at) == listed
        shutil.rmtree(aside)


@pytest.mark.guarantee("G13b", "G3d")
def test_inode_numbers_stay_when_the_kernel_forgets_an_invalidated_name(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount().path / session.slug
    for round_ in range(40):
        all_shown(at, session)
        if round_ % 2:
            session.add(compaction(f"archive-{round_}"))
        else:
            session.delete()
            store.session(session.slug, entry(f"round {round_}"))
        all_shown(at, session)
        numbers = [inode(at / view) for view in VIEWS]
        for _ in range(5):
            time.sleep(0.001)
            assert [inode(at / view) for view in VIEWS] == numbers


@pytest.mark.guarantee("G12a", "G12d", "G13c")
def test_a_session_that_is_renamed_underneath_is_followed_under_its_new_name(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path
    moved = SessionOnDisk(store.path / "crab_tg-42_2")
    with opened(at / session.slug / HISTORY) as fd:
        session.path.rename(moved.path)
        assert (at / moved.slug / HISTORY).read_bytes() == line("one")
        with pytest.raises(FileNotFoundError):
            (at / session.slug / HISTORY).read_bytes()
        assert whole(fd) == line("one")
    (at / moved.slug).stat()
    for number in range(20):
        moved.add(entry(f"{number}"))
        all_shown(at / moved.slug, moved)
    moved.path.rename(session.path)
    all_shown(at / session.slug, session)
