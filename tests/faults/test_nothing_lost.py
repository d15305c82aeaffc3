"""No acknowledged write is lost beside a daemon, however the mount is scheduled (G16)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import daemon, writers
from tests.support.commands import until
from tests.support.daemon import Daemon
from tests.support.mounted import Mount
from tests.support.probe import undisturbed
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

Mounting = Callable[..., Mount]
OVERFLOWED = "overflowed"
SETTLED = 30.0
"""Seconds within which all steps are restored."""
SLUG = "crab_tg-42_1"
STARVED_STEPS = 5000
"""So many steps of a daemon overflow the inotify queue."""
LINES = 10_000
GROWN_KIB = 64 << 10
DRILL_STEPS = 12_000


def append(mount: Mount, slug: str, name: str, count: int, first: int = 0, pad: int = 0) -> None:
    """Append lines through the mount, many in each write; all are acknowledged."""
    filling = "x" * pad
    with open(mount.path / slug / "append", "wb", buffering=1 << 20) as control:
        for number in range(first, first + count):
            text = f"{filling}{' ' if pad else ''}{name} {number}"
            control.write(entry(text) + b"\n")


def contents(session: SessionOnDisk) -> list[str]:
    while True:
        try:
            return [text[-40:] for text in writers.contents(session.steps())]
        except FileNotFoundError:  # a step is being moved
            continue


def of(name: str, found: list[str]) -> list[int]:
    matches = (re.search(rf"(?:^| ){name} (\d+)$", text) for text in found)
    return [int(match[1]) for match in matches if match]


def all_there(session: SessionOnDisk, **counts: int) -> None:
    """Wait until every line of each writer is in the session once, in order."""
    wanted = {name: list(range(count)) for name, count in counts.items()}
    found: dict[str, list[int]] = {}

    def right() -> bool:
        began = time.monotonic()
        texts = contents(session)
        time.sleep(time.monotonic() - began)  # polling takes at most half of a processor
        found.update((name, of(name, texts)) for name in wanted)
        return found == wanted

    try:
        until(right, SETTLED)
    except AssertionError:
        for name, numbers in found.items():
            missing = sorted(set(wanted[name]) - set(numbers))
            assert missing == [], name
            assert sorted(numbers) == wanted[name], name
            assert numbers == wanted[name], name
        raise


def untouched(session: SessionOnDisk, written: list[tuple[int, int]]) -> None:
    """Each of the daemon's steps is still the very file that it wrote."""
    there = {number: (session.path / f"step-{number:06}").stat().st_ino for number, _ in written}
    assert there == dict(written)


def anonymous_kib(mount: Mount) -> int:
    assert mount.server is not None
    status = Path(f"/proc/{mount.server.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


@contextmanager
def starved(mount: Mount) -> Iterator[None]:
    """The server gets no processor time meanwhile."""
    assert mount.server is not None
    mount.expected.append(OVERFLOWED)
    mount.server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        mount.server.send_signal(signal.SIGCONT)


def daemons_beginning(store: StoreOnDisk, session: SessionOnDisk) -> Daemon:
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    return reference


def beside_a_daemon(
    store: StoreOnDisk, at: Mount, lines: int, pad: int = 0
) -> tuple[SessionOnDisk, Daemon]:
    """A session with one step of a daemon, followed by lines that the mount stored."""
    session = store.session(SLUG)
    reference = daemons_beginning(store, session)
    append(at, SLUG, "mine", lines, pad=pad)
    return session, reference


def goes_on(reference: Daemon, session: SessionOnDisk, first: int, count: int) -> None:
    for number in range(first, first + count):
        reference.store_step(session.slug, entry(f"daemon {number}"))


@pytest.mark.guarantee("G16d", "G16f")
def test_lost_events_lead_to_a_check_with_nobody_reading(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    session, reference = beside_a_daemon(store, at, 50)
    with starved(at):
        goes_on(reference, session, 1, STARVED_STEPS)
    all_there(session, mine=50, daemon=STARVED_STEPS + 1)
    untouched(session, reference.written)
    assert at.errors() == []
    assert OVERFLOWED in at.log()


@pytest.mark.guarantee("G16d")
def test_a_mount_stopped_right_after_it_was_starved_restores_first(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    session, reference = beside_a_daemon(store, at, 50)
    assert at.server is not None
    with starved(at):
        goes_on(reference, session, 1, STARVED_STEPS)
        at.server.send_signal(signal.SIGTERM)
    assert at.server.wait(30) == 0
    texts = contents(session)
    assert of("mine", texts) == list(range(50))
    assert of("daemon", texts) == list(range(STARVED_STEPS + 1))
    untouched(session, reference.written)
    assert OVERFLOWED in at.log()


@pytest.mark.guarantee("G16d")
def test_sessions_that_were_closed_to_save_descriptors_lose_nothing(
    store: StoreOnDisk, mount: Mounting
) -> None:
    sessions = [store.session(f"crab_tg-42_{number}") for number in range(1, 301)]
    at = mount(limits={7: 256})
    references = [daemons_beginning(store, session) for session in sessions]
    for session in sessions:
        append(at, session.slug, "mine", 3)
    for reference, session in zip(references, sessions, strict=True):
        goes_on(reference, session, 1, 2)
    for session in sessions:
        all_there(session, mine=3, daemon=3)
    assert at.errors() == []


def drill(store: StoreOnDisk, at: Mount, slug: str, steps: int = DRILL_STEPS) -> None:
    """A daemon and a writer through the mount, both at full speed."""
    session = store.session(slug)
    running = daemon.start(store.path, slug, "daemon", steps, 0, 0)
    lines = steps // 6
    writer = writers.start("mount", at.path / slug / "append", "mine", lines, 3)
    written = daemon.finish(running)
    writers.finish([writer])
    all_there(session, mine=lines, daemon=steps)
    untouched(session, written)


@pytest.mark.guarantee("G16a", "G16f")
def test_at_full_speed_nothing_is_lost_or_touched(store: StoreOnDisk, mount: Mounting) -> None:
    at = mount()
    at.expected.append(OVERFLOWED)  # where the daemon gets all the time of a slow machine
    for number in range(1, 4):
        drill(store, at, f"crab_tg-42_{number}", DRILL_STEPS // 2)
    assert at.errors() == []


@pytest.mark.soak
@pytest.mark.guarantee("G16a", "G16d", "G16f")
def test_at_full_speed_nothing_is_lost_or_touched_for_long(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    at.expected.append(OVERFLOWED)
    end = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", "30"))
    before = number = 0
    while number < 30 or time.monotonic() < end:
        number += 1
        drill(store, at, f"crab_tg-42_{number}")
        before = before or anonymous_kib(at)
        subprocess.run(["rm", "-r", store.path / f"crab_tg-42_{number}"], check=True)
    assert at.errors() == []
    assert anonymous_kib(at) - before < GROWN_KIB


def import_beside(store: StoreOnDisk, at: Mount, lines: int, pad: int, messages: int) -> int:
    """Import lines, then let the daemon write; returns by how many KiB the server grew."""
    session = store.session(SLUG)
    reference = daemons_beginning(store, session)
    append(at, SLUG, "warm", 1)
    before = anonymous_kib(at)
    append(at, SLUG, "mine", lines, pad=pad)
    grown = anonymous_kib(at) - before
    goes_on(reference, session, 1, messages)
    all_there(session, warm=1, mine=lines, daemon=messages + 1)
    untouched(session, reference.written)
    return max(grown, anonymous_kib(at) - before)


@pytest.mark.guarantee("G16d", "G23a")
@pytest.mark.parametrize(
    ("lines", "pad", "messages"), [(10_000, 0, 10), (4, (16 << 20) - len(entry(" mine 0")), 3)]
)
def test_no_step_of_an_import_is_forgotten(
    store: StoreOnDisk, mount: Mounting, lines: int, pad: int, messages: int
) -> None:
    at = mount()
    assert import_beside(store, at, lines, pad, messages) < GROWN_KIB
    assert at.errors() == []


@pytest.mark.soak
@pytest.mark.guarantee("G16d", "G23a")
def test_no_step_of_a_large_import_is_forgotten(store: StoreOnDisk, mount: Mounting) -> None:
    at = mount()
    other = store.session("crab_tg-42_2", entry("hi"))
    with undisturbed(at.path / other.slug / "history.jsonl", "a large import that is displaced"):
        assert import_beside(store, at, 100_000, 200, 10) < GROWN_KIB
    assert at.errors() == []


@pytest.mark.guarantee("G16a", "G18a")
def test_a_mount_that_is_killed_while_it_moves_steps_leaves_each_once(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    session, reference = beside_a_daemon(store, at, LINES)
    goes_on(reference, session, 1, 10)
    until(
        lambda: max(session.numbers()) > LINES + 1100
    )  # displaced steps are back, and others have been moved
    at.kill()
    texts = contents(session)
    assert sorted(of("mine", texts)) == list(range(LINES))
    assert of("mine", texts) != list(range(LINES))  # it had not finished
    assert of("daemon", texts) == list(range(11))
    untouched(session, reference.written)


@pytest.mark.guarantee("G16c", "G16d")
def test_of_two_starved_mounts_each_restores_its_own(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session(SLUG)
    one, other = mount(name="one"), mount(name="other")
    reference = daemons_beginning(store, session)
    for number in range(20):
        append(one, SLUG, "one", 1, first=number)
        append(other, SLUG, "other", 1, first=number)
    with starved(one), starved(other):
        goes_on(reference, session, 1, STARVED_STEPS)
    all_there(session, one=20, other=20, daemon=STARVED_STEPS + 1)
    untouched(session, reference.written)


@contextmanager
def small(place: Path) -> Iterator[Path]:
    """Mount a tiny file system at `place`."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small", place], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[StoreOnDisk]:
    """A store on a tiny file system."""
    with small(tmp_path / "store") as place:
        yield StoreOnDisk(place)


def fill(place: Path) -> Path:
    """Fill the file system at `place`; returns the file that fills it."""
    filling = place / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    return filling


def told(mount: Mount, code: str) -> list[dict[str, str]]:
    """The lines of errors.jsonl about restoring, with this code."""
    lines = map(json.loads, mount.errors())
    return [line for line in lines if (line["operation"], line["code"]) == ("restore", code)]


@pytest.mark.guarantee("G16e")
def test_on_a_full_disk_displaced_steps_wait_until_there_is_room(
    small_store: StoreOnDisk, mount: Mounting
) -> None:
    at = mount()
    at.expected.append("No space left")
    session, reference = beside_a_daemon(small_store, at, 3, pad=5000)
    with starved(at):
        goes_on(reference, session, 1, 3)
        filling = fill(session.path)
    until(lambda: len(told(at, "restore-waits")) == 1, SETTLED)
    (line,) = told(at, "restore-waits")
    assert (line["session"], line["errno"]) == (SLUG, "ENOSPC")
    assert "3 steps (2 to 4)" in line["error"]
    time.sleep(2)
    assert len(told(at, "restore-waits")) == 1
    filling.unlink()
    all_there(session, mine=3, daemon=4)
    untouched(session, reference.written)


@pytest.mark.guarantee("G16d", "G16e")
@pytest.mark.parametrize("comes", [True, False])
def test_a_mount_stopped_on_a_full_disk_waits_a_moment_for_room(
    small_store: StoreOnDisk, mount: Mounting, comes: bool
) -> None:
    at = mount()
    at.expected += ["No space left", "3 steps (2 to 4) that another program renamed over"]
    session, reference = beside_a_daemon(small_store, at, 3, pad=5000)
    assert at.server is not None
    with starved(at):
        goes_on(reference, session, 1, 3)
        filling = fill(session.path)
        at.server.send_signal(signal.SIGTERM)
    until(lambda: "No space left" in at.log(), SETTLED)
    if comes:
        filling.unlink()
    assert at.server.wait(30) == 0
    assert of("mine", contents(session)) == (list(range(3)) if comes else [])
    assert ("are lost: the mount ended before" in at.log()) != comes
    untouched(session, reference.written)


@pytest.mark.guarantee("G16e")
def test_lost_steps_that_there_was_no_room_to_remember_are_reported(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.session(SLUG)
    with small(tmp_path / "spools") as spools:
        monkeypatch.setenv("TMPDIR", str(spools))
        at = mount()
        at.expected += ["stay in memory", "step (", "steps (", "No space left"]
        reference = daemons_beginning(store, session)
        append(at, SLUG, "mine", 4, pad=15 << 20)
        goes_on(reference, session, 1, 4)
        until(lambda: len(told(at, "steps-lost")) > 0, SETTLED)
        time.sleep(1)
        lost = [number - 2 for line in told(at, "steps-lost") for number in named(line["error"])]
        assert lost
        assert sorted(lost + of("mine", contents(session))) == list(range(4))
        untouched(session, reference.written)
        at.stop()


def named(sentence: str) -> list[int]:
    """The step numbers in a sentence such as `3 steps (4 to 5, 9) that …`."""
    (runs,) = re.findall(r"steps? \(([^)]*)\)", sentence)
    ends = [[int(end) for end in run.split(" to ")] for run in runs.split(", ")]
    return [number for run in ends for number in range(run[0], run[-1] + 1)]
