"""A store that does not answer, inside the fixture `slowfs.sh`: the rest still works (G27)."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.shared.two_hosts import both_hosts, until, user
from tests.support import writers
from tests.support.commands import STEPFS, environment
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(120),
]
SLUG = "crab_tg-42_1"
HANG_SECONDS = 8


@contextmanager
def silent() -> Iterator[None]:
    """The store does not answer host a; whatever happens here, the hang ends after a while.

    The process that ends it is started first: a new one closes inherited files, which may hang too.
    """
    end = subprocess.Popen(["sh", "-c", f"sleep {HANG_SECONDS}; delay-a 0"])
    subprocess.run(["delay-a", "hang"], check=True, timeout=5)
    try:
        yield
    finally:
        end.wait(timeout=HANG_SECONDS + 10)


def within_a_second(*command: str) -> str:
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS - 1,
        check=True,
    )
    took = time.monotonic() - began
    print(f"figure: {command[-1]} {took:.2f} s")
    assert took < 1.5, command  # an interpreter starts within half a second
    return done.stdout


@pytest.mark.guarantee("G27c")
def test_what_needs_no_store_answers_while_it_hangs() -> None:
    a = both_hosts("store")[0]
    with a.mounted("deadline=3"):
        (a.path / SLUG).mkdir()
        a.write(SLUG, [user("said before")])
        assert a.contents(SLUG) == ["said before"]
        with open(a.path / SLUG / "history.jsonl", "rb") as opened, silent():
            dot = str(a.path / ".stepfs")
            waiting = subprocess.Popen(
                ["sh", "-c", f"echo x >{a.path}/{SLUG}/append"], stderr=subprocess.DEVNULL
            )
            assert "chat sessions" in within_a_second("cat", f"{dot}/README")
            assert '"version"' in within_a_second("cat", f"{dot}/status.json")
            within_a_second("cat", f"{dot}/errors.jsonl")
            within_a_second(*STEPFS, "status", str(a.path))
            poller = select.poll()
            poller.register(opened.fileno(), select.POLLIN)
            began = time.monotonic()
            assert poller.poll(5000)
            print(f"figure: poll {time.monotonic() - began:.2f} s")
            assert time.monotonic() - began < 1
            began = time.monotonic()
            assert b"said before" in os.pread(opened.fileno(), 1000, 0)
            assert time.monotonic() - began < 0.5
            assert waiting.wait(timeout=HANG_SECONDS) != 0
            found = a.status()
            assert isinstance(found["store_silent_seconds"], float)
        a.write(SLUG, [user("said after")])
        assert a.contents(SLUG) == ["said before", "said after"]


@pytest.mark.guarantee("G27b")
def test_what_needs_the_store_fails_after_the_deadline() -> None:
    a = both_hosts("deadline")[0]
    with a.mounted("deadline=2"):
        (a.path / SLUG).mkdir()
        with silent():
            began = time.monotonic()
            with pytest.raises(OSError) as failed:
                a.write(SLUG, [user("in vain")])
            assert failed.value.errno == errno.ETIMEDOUT
            assert 1.5 < time.monotonic() - began < 6
        assert "has not answered for 2 s" in "".join(a.errors())


@pytest.mark.guarantee("G27b")
def test_listing_the_sessions_fails_after_the_deadline_and_works_again() -> None:
    a = both_hosts("listed")[0]
    with a.mounted("deadline=2"):
        (a.path / SLUG).mkdir()
        with silent():
            began = time.monotonic()
            with pytest.raises(OSError) as failed:
                os.listdir(a.path)
            assert failed.value.errno == errno.ETIMEDOUT
            assert 1.5 < time.monotonic() - began < 6
        assert SLUG in os.listdir(a.path)


@pytest.mark.guarantee("G27c")
def test_a_mount_of_a_silent_store_is_unmounted_at_once() -> None:
    a = both_hosts("unmounted")[0]
    a.path.mkdir()
    assert a.stepfs("mount", a.store, a.path).returncode == 0
    (a.path / SLUG).mkdir()
    a.write(SLUG, [user("said before")])
    with silent():
        began = time.monotonic()
        done = a.stepfs("umount", a.path, check=False)
        took = time.monotonic() - began
    print(f"figure: umount {took:.2f} s")
    assert done.returncode == 0, done.stderr
    assert took < 1.5  # an interpreter starts within half a second
    with suppress(FileNotFoundError):
        a.path.rmdir()


@pytest.mark.guarantee("G15b", "G16d", "G27b")
def test_steps_that_were_being_stored_again_as_the_store_fell_silent_are_stored_once() -> None:
    a, b = both_hosts("displaced")
    with a.mounted("deadline=2"):
        session = StoreOnDisk(b.store).session(SLUG, entry("first"))
        until((a.path / SLUG).is_dir)
        a.write(SLUG, [user(f"mine {number}") for number in range(12)])
        subprocess.run(["delay-a", "25"], check=True, timeout=5)
        for number in range(2, 10):
            session.put(number, entry(f"daemon {number}"))
        reader = subprocess.Popen(
            ["on-a", "cat", a.path / SLUG / "log.jsonl"], stdout=subprocess.DEVNULL
        )
        until(lambda: any(name.startswith(".stepfs-") for name in os.listdir(session.path)))
        with silent():
            reader.wait(30)
        until(lambda: mine(session) == list(range(12)))
        time.sleep(2)
        until(lambda: mine(session) != [])
        assert mine(session) == list(range(12))


def mine(session: SessionOnDisk) -> list[int]:
    """The numbers of the mount's lines that are in the store, ascending; none while steps are moved."""
    try:
        texts = writers.contents(session.steps())
    except FileNotFoundError:
        return []
    return sorted(int(text.split()[1]) for text in writers.of("mine", texts))
