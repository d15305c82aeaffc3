"""`stepfs follow` of a whole mount, and where notices appear among the lines."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fusefs.cli.following import sessions
from tests.support.commands import SECONDS, STEPFS, environment, polls, until
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
A, B, NEW = "crab_tg-42_1", "scout_cron_1", "crab_tg-42_2"
Mounts = Callable[..., Mount]


def line(text: str) -> str:
    return entry(text).decode()


class Follower:
    """A running `stepfs follow` with lines and notices in one file, as on a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], shown: Path) -> None:
        self.process = process
        self._shown = shown

    def lines(self) -> list[str]:
        return self._shown.read_text().splitlines()

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(shown) for shown in self.lines()]

    def shows(self, *expected: str) -> None:
        """Wait until the output is exactly these lines."""
        until(lambda: len(self.lines()) >= len(expected))
        assert self.lines() == list(expected)

    def waits(self) -> None:
        until(lambda: polls(self.process.pid, "history.jsonl"))


@contextmanager
def following(path: Path, shown: Path, *options: str) -> Iterator[Follower]:
    with shown.open("wb") as out:
        command = [*STEPFS, "follow", *options, str(path)]
        process = subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        follower = Follower(process, shown)
        follower.waits()
        yield follower
    finally:
        process.kill()
        process.wait(SECONDS)


def test_a_compaction_is_told_between_what_was_before_and_what_is_after(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    session = store.session(A, entry("one"))
    path = mount().path / A
    with following(path, tmp_path / "shown") as follower:
        # All at once, so that the follower never sees an intermediate state.
        (path / "append").write_bytes(entry("two") + b"\n" + event() + b"\n")
        (path / "compact").write_text("monday\n")
        (path / "append").write_bytes(entry("three") + b"\n")
        (path / "compact").write_text("tuesday\n")
        (path / "compact").write_text("tuesday\n")
        (path / "append").write_bytes(entry("four") + b"\n")
        session.add(b'{"compact":"what was said"}')
        session.add(entry("five"))
        told = "stepfs: compacted: what was said so far is in the archive"
        follower.shows(
            line("two"),
            f"{told} monday",
            line("three"),
            f"{told} tuesday",
            f"{told} tuesday",
            line("four"),
            "stepfs: the history begins anew",
            line("five"),
        )


def test_steps_removed_replaced_and_back_filled_are_told_before_what_comes_after(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    session = store.session(A, entry("one"), entry("two"))
    session.put(5, entry("five"))
    path = mount().path / A
    with following(path, tmp_path / "shown", "--from-start") as follower:
        follower.shows(line("one"), line("two"), line("five"))
        session.put(4, entry("four"))
        until(lambda: len(follower.lines()) == 5)
        session.put(2, entry("another two"))
        until(lambda: len(follower.lines()) == 6)
        (session.path / "step-000001").unlink()
        until(lambda: len(follower.lines()) == 7)
        session.put(6, entry("six"))
        follower.shows(
            line("one"),
            line("two"),
            line("five"),
            "stepfs: step 4 was back-filled",
            line("four"),
            "stepfs: step 2 was replaced, and not printed again",
            "stepfs: step 1 was removed",
            line("six"),
        )


def test_all_sessions_are_followed_and_those_that_come_and_go(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    a, b = store.session(A, entry("old")), store.session(B)
    root = mount().path
    with following(root, tmp_path / "shown") as follower:
        a.add(entry("one"))
        follower.shows(f"{A}\t{line('one')}")
        b.add(entry("two"))
        until(lambda: len(follower.lines()) == 2)
        made = store.session(NEW, entry("three"), compaction("monday"), entry("four"))
        until(lambda: len(follower.lines()) == 6)
        (root / A / "compact").write_text("tuesday\n")
        until(lambda: len(follower.lines()) == 7)
        made.add(entry("five"))
        until(lambda: len(follower.lines()) == 8)
        (root / B).rmdir()
        told = "compacted: what was said so far is in the archive"
        follower.shows(
            f"{A}\t{line('one')}",
            f"{B}\t{line('two')}",
            f"stepfs: {NEW}: a new session",
            f"{NEW}\t{line('three')}",
            f"stepfs: {NEW}: {told} monday",
            f"{NEW}\t{line('four')}",
            f"stepfs: {A}: {told} tuesday",
            f"{NEW}\t{line('five')}",
            f"stepfs: {B}: the session was deleted",
        )
        assert follower.process.poll() is None


def test_json_has_steps_and_notices_in_one_stream(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    spaced = b'{"message": {"role":"user","content":"b"}}'
    session = store.session(A, entry("a"))
    root = mount().path
    with following(root, tmp_path / "shown", "--json", "--from-start") as follower:
        session.add(spaced)
        session.add(compaction("monday"))
        session.add(entry("c"))
        until(lambda: len(follower.lines()) == 4)
        assert follower.documents() == [
            {"session": A, "step": 1, "entry": json.loads(entry("a"))},
            {"session": A, "step": 2, "entry": json.loads(spaced)},
            {
                "session": A,
                "notice": "compacted: what was said so far is in the archive monday",
            },
            {"session": A, "step": 4, "entry": json.loads(entry("c"))},
        ]
        assert spaced.decode() in follower.lines()[1]


def test_more_sessions_than_are_kept_open_lose_nothing_beside_a_busy_writer(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    """The oracle is what the writer wrote to each session, in order."""
    count = sessions.OPEN_MOST * 2
    made = [store.session(f"crab_x_{number}", entry("old")) for number in range(1, count + 1)]
    chosen = random.Random(15)
    expected: dict[str, list[str]] = {session.slug: [] for session in made}
    with following(mount("sync=never").path, tmp_path / "shown", "--json") as follower:
        for number in range(600):
            session = chosen.choice(made)
            if chosen.random() < 0.2:
                session.add(compaction(f"archive-{number}"))
                told = f"compacted: what was said so far is in the archive archive-{number}"
                expected[session.slug].append(told)
            else:
                session.add(entry(f"said {number}"))
                expected[session.slug].append(f"said {number}")
        until(lambda: len(follower.lines()) >= 600)
        found: dict[str, list[str]] = {session.slug: [] for session in made}
        for document in follower.documents():
            said = document.get("notice") or document["entry"]["message"]["content"]
            found[document["session"]].append(said)
        assert found == expected
        descriptors = os.listdir(f"/proc/{follower.process.pid}/fd")
        assert len(descriptors) < 2 * sessions.OPEN_MOST + 16


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_it_takes_next_to_no_processor_time_while_nothing_happens(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    for number in range(300):
        session = store.session(f"crab_x_{number}", entry("old"))
        os.utime(session.path, (1000, 1000))
    with following(mount().path, tmp_path / "shown") as follower:
        time.sleep(3)  # until no change counts as recent
        before = processor_seconds(follower.process.pid)
        time.sleep(4)
        assert processor_seconds(follower.process.pid) - before < 0.4
        assert follower.lines() == []
