"""`stepfs follow` prints each entry once, as it comes, whatever happens to the history meanwhile."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.cli.following.output import Output
from fusefs.cli.following.session import Followed
from fusefs.exits import Exit
from tests.support.commands import (
    SECONDS,
    STEPFS,
    clear,
    environment,
    polls,
    serving,
    stepfs,
    until,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)

META = '{"agent":"Crab","created_by":"tg:42","created_at":"2026-04-28T00:00:00+00:00"}'
SLUG = "crab_tg-42_1"


class Session:
    """A session in a store and in its mount."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.stored = place / "store" / SLUG
        self.stored.mkdir(parents=True)
        (self.stored / "meta").write_text(META)
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()
        self.shown = self.mountpoint / SLUG

    def put(self, number: int, text: str) -> None:
        """Store a step as the daemon does, outside the mount."""
        self._put(number, {"message": {"role": "user", "content": text}})

    def compact(self, number: int, archive: str) -> None:
        self._put(number, {"archive_name": archive, "archived_at": "2026-04-28T00:00:00+00:00"})

    def _put(self, number: int, document: object) -> None:
        temporary = self.place / "temporary"
        temporary.write_text(json.dumps(document, separators=(",", ":")))
        temporary.rename(self.stored / f"step-{number:06}")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path)
    made.put(1, "one")
    made.put(2, "two")
    mounted = stepfs("mount", "-o", "sync=never", tmp_path / "store", made.mountpoint)
    assert mounted.returncode == 0, mounted.stderr
    yield made
    clear(tmp_path)
    until(lambda: not serving(tmp_path))


class Follower:
    """A running `stepfs follow`, its output read from files."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path) -> None:
        self.process = process
        self._place = place

    def texts(self) -> list[str]:
        lines = (self._place / "followed").read_text().splitlines()
        return [json.loads(line)["message"]["content"] for line in lines]

    def said(self) -> str:
        return (self._place / "said").read_text()

    def prints(self, *texts: str) -> None:
        """Wait until exactly `texts` were printed."""
        until(lambda: len(self.texts()) >= len(texts))
        assert self.texts() == list(texts)

    def waits(self) -> None:
        """Wait until the follower is idle."""
        until(lambda: polls(self.process.pid, "history.jsonl"))

    def end(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        return self.process.wait(SECONDS)


@contextmanager
def following(session: Session, *options: str, path: str = "") -> Iterator[Follower]:
    place = session.place
    with open(place / "followed", "wb") as out, open(place / "said", "wb") as err:
        process = subprocess.Popen(
            [*STEPFS, "follow", *options, str(session.shown / path)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield Follower(process, place)
    finally:
        process.kill()
        process.wait(SECONDS)


@contextmanager
def following_from_start(session: Session) -> Iterator[Follower]:
    """A follower that has printed the existing entries."""
    with following(session, "--from-start", path="history.jsonl") as follower:
        follower.prints("one", "two")
        yield follower


def test_what_comes_is_printed_once_whoever_wrote_it(session: Session) -> None:
    with following_from_start(session) as follower:
        session.put(3, "three")
        follower.prints("one", "two", "three")
        (session.shown / "append").write_text('{"role":"user","content":"four"}\n')
        follower.prints("one", "two", "three", "four")
        (session.shown / "append").write_text(
            '{"event":"user_steered","content":"x","ts":"now"}\n{"role":"user","content":"five"}\n'
        )
        follower.prints("one", "two", "three", "four", "five")
        assert follower.said() == ""


def test_without_from_start_only_what_comes_is_printed(session: Session) -> None:
    with following(session) as follower:
        follower.waits()
        session.put(3, "three")
        follower.prints("three")


def test_it_goes_on_across_compactions_and_loses_nothing_that_they_hide(session: Session) -> None:
    with following_from_start(session) as follower:
        expected = ["one", "two"]
        for number in range(3, 300, 3):
            session.put(number, f"a{number}")
            session.compact(number + 1, f"crab-{number}")
            session.put(number + 2, f"b{number}")
            expected += [f"a{number}", f"b{number}"]
        follower.prints(*expected)
        until(lambda: "in the archive crab-297" in follower.said())


def test_what_a_second_compaction_hides_while_the_first_is_looked_into_is_printed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is empty after the first, and an empty one grows into any other."""
    printed = io.BytesIO()
    root = os.open(session.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    followed = Followed(root, SLUG, Output(printed, io.StringIO(), labelled=False, as_json=False))
    catch_up = Followed._catch_up

    def interrupted(self: Followed) -> bool:
        found = catch_up(self)
        monkeypatch.setattr(Followed, "_catch_up", catch_up)
        session.put(4, "hidden")
        session.compact(5, "second")
        session.put(6, "shown")
        until(lambda: b"shown" in (session.shown / "history.jsonl").read_bytes())
        return found

    try:
        followed.print_history()
        session.compact(3, "first")
        until(lambda: (session.shown / "compact").read_text() == "first\n")
        monkeypatch.setattr(Followed, "_catch_up", interrupted)
        followed.step(told=True)
        followed.step()
        lines = printed.getvalue().splitlines()
        texts = [json.loads(line)["message"]["content"] for line in lines]
        assert texts == ["one", "two", "hidden", "shown"]
    finally:
        followed.sleep()
        os.close(root)


def test_back_filled_removed_and_replaced_steps_are_told(session: Session) -> None:
    session.put(5, "five")
    with following(session, "--from-start") as follower:
        follower.prints("one", "two", "five")
        session.put(4, "four")
        follower.prints("one", "two", "five", "four")
        until(lambda: "step 4 was back-filled" in follower.said())
        session.put(2, "another two")
        until(lambda: "step 2 was replaced, and not printed again" in follower.said())
        (session.stored / "step-000001").unlink()
        until(lambda: "step 1 was removed" in follower.said())
        session.put(6, "six")
        follower.prints("one", "two", "five", "four", "six")


def test_an_empty_history_after_a_compaction_is_followed(session: Session) -> None:
    session.compact(3, "crab-1")
    with following(session, "--from-start") as follower:
        follower.waits()
        session.put(4, "four")
        session.compact(5, "crab-2")
        session.put(6, "six")
        follower.prints("four", "six")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_without_a_word_on_ctrl_c_and_sigterm(
    session: Session, number: signal.Signals
) -> None:
    with following_from_start(session) as follower:
        assert follower.end(number) == 0
        assert follower.said() == ""


def test_it_ends_without_a_word_when_the_reader_of_its_output_goes(session: Session) -> None:
    command = " ".join(f"'{word}'" for word in (*STEPFS, "follow", str(session.shown)))
    ended = subprocess.run(
        ["bash", "-c", f"{command} --from-start | head -n 1; exit ${{PIPESTATUS[0]}}"],
        env=environment(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(b"\n") == 1


def test_it_ends_when_the_session_is_deleted(session: Session) -> None:
    with following_from_start(session) as follower:
        session.shown.rmdir()
        assert follower.process.wait(SECONDS) == 0
        assert "the session was deleted" in follower.said()


def test_it_ends_when_the_mount_does(session: Session) -> None:
    with following_from_start(session) as follower:
        (server,) = [pid for pid in serving(session.place) if pid != follower.process.pid]
        os.kill(server, signal.SIGKILL)
        code = follower.process.wait(SECONDS)
        assert code == 6, follower.said()
        assert "the mount has ended" in follower.said()


def test_what_is_in_no_mount_is_refused(session: Session) -> None:
    paths = {
        session.stored: Exit.NOT_STEPFS,
        session.place / "store": Exit.NOT_STEPFS,
        session.mountpoint / "nobody_1": Exit.NOT_STEPFS,
        Path("/nowhere"): Exit.STORE,
    }
    for path, code in paths.items():
        refused = stepfs("follow", path)
        assert refused.returncode == code, path
        assert refused.stderr.count("\n") == 1
        assert refused.stdout == ""


def test_thousands_of_entries_with_events_between_them_are_each_printed_once(
    session: Session,
) -> None:
    event = '{"event":"user_steered","content":"x","ts":"now"}\n'
    count = 5_000
    with following_from_start(session) as follower, open(session.shown / "append", "w") as append:
        for number in range(count):
            append.write(f'{{"role":"user","content":"{number}"}}\n{event}')
        append.flush()
        follower.prints("one", "two", *map(str, range(count)))
