"""Checking and repairing a store, without losing a byte."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.check.check import Report, check, main_report
from storage.demo import demo
from storage.errors import StoreError

SLUG = "crab_tg-42_1"
META = b'{"agent":"Crab","created_by":"tg:42","created_at":"2026-04-28T00:00:00+00:00"}'
HELLO = b'{"message":{"role":"user","content":"hello"}}'
COMPACTION = b'{"archive_name":"crab-1","archived_at":"2026-04-28T00:00:00+00:00"}'
HUGE = f"step-{2**64}"


@pytest.fixture
def session(tmp_path: Path) -> Path:
    directory = tmp_path / "store" / SLUG
    directory.mkdir(parents=True)
    (directory / "meta").write_bytes(META)
    (directory / "step-000001").write_bytes(HELLO)
    return directory


def look(session: Path) -> Report:
    return check(str(session.parent), repair=False)


def mend(session: Path) -> Report:
    return check(str(session.parent), repair=True, settle_seconds=0)


def tree(store: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {}
    for path in [store, *sorted(store.rglob("*"))]:
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(store))] = (
            status.st_mode,
            status.st_mtime_ns,
            status.st_ctime_ns,
            data,
        )
    return found


def test_a_healthy_store_is_left_as_it_is_to_the_last_timestamp(session: Path) -> None:
    (session / "step-000007").write_bytes(COMPACTION)
    (session / "notes.txt").write_text("not a step, and nobody's business")
    before = tree(session.parent)
    report = mend(session)
    assert report.exit_code == 0
    assert tree(session.parent) == before
    assert [finding.what for finding in report.findings] == ["gap"]
    assert main_report(report) == (
        f"{SLUG}: note: no steps 2-6; numbers may be left out\n1 session, 2 steps: healthy"
    )


def make_torn(session: Path) -> None:
    (session / "step-000002").write_bytes(HELLO[:20])


def make_empty(session: Path) -> None:
    (session / "step-000002").touch()


def make_directory(session: Path) -> None:
    (session / "step-000002").mkdir()
    (session / "step-000002" / "inside").write_text("kept")


def make_fifo(session: Path) -> None:
    os.mkfifo(session / "step-000002")


def make_dangling_link(session: Path) -> None:
    (session / "step-000002").symlink_to("/nowhere")


def make_link_to_a_step(session: Path) -> None:
    (session / "step-000002").symlink_to("step-000001")


def make_daemon_temporary(session: Path) -> None:
    (session / "step-000002.tmp.4711").write_bytes(HELLO)


def make_meta_temporary(session: Path) -> None:
    (session / "meta.tmp.4711").write_bytes(META)


def make_own_temporary(session: Path) -> None:
    (session / ".stepfs-0123456789abcdef.tmp").write_bytes(HELLO)


def make_zero(session: Path) -> None:
    (session / "step-000000").write_bytes(HELLO)


def make_misnamed(session: Path) -> None:
    (session / "step-000002x").write_bytes(HELLO)


def make_duplicate(session: Path) -> None:
    (session / "step-1").write_bytes(HELLO)


def make_out_of_range(session: Path) -> None:
    (session / HUGE).write_bytes(HELLO)


FAULTS: list[tuple[Callable[[Path], None], str, str]] = [
    (make_torn, "step-000002", "not-a-step"),
    (make_empty, "step-000002", "not-a-step"),
    (make_directory, "step-000002", "wrong-type"),
    (make_fifo, "step-000002", "wrong-type"),
    (make_dangling_link, "step-000002", "wrong-type"),
    (make_link_to_a_step, "step-000002", "wrong-type"),
    (make_daemon_temporary, "step-000002.tmp.4711", "left-over"),
    (make_meta_temporary, "meta.tmp.4711", "left-over"),
    (make_own_temporary, ".stepfs-0123456789abcdef.tmp", "left-over"),
    (make_misnamed, "step-000002x", "misnamed"),
    (make_zero, "step-000000", "misnamed"),
    (make_duplicate, "step-1", "duplicate-number"),
    (make_out_of_range, HUGE, "out-of-range"),
]


@pytest.mark.parametrize(("make", "name", "what"), FAULTS)
def test_each_fault_is_found_then_moved_aside_whole_and_then_the_store_is_healthy(
    session: Path, make: Callable[[Path], None], name: str, what: str
) -> None:
    healthy = tree(session)
    make(session)
    wrong = tree(session.parent)
    report = look(session)
    assert report.exit_code == 7
    assert [(f.session, f.name, f.what) for f in report.faults] == [(SLUG, name, what)]
    assert tree(session.parent) == wrong

    report = mend(session)
    assert report.exit_code == 8
    assert main_report(report).endswith("1 session, " + _steps(what) + ": 1 fault, 1 repaired")
    lost = tree(session.parent / ".stepfs-lost" / SLUG)
    assert lost[name][3] == wrong[f"{SLUG}/{name}"][3]
    assert lost[name][:2] == wrong[f"{SLUG}/{name}"][:2]
    assert [path for path in tree(session) if path not in healthy] == []
    assert mend(session).exit_code == 0


def _steps(what: str) -> str:
    return "2 steps" if what == "duplicate-number" else "1 step"


@pytest.mark.guarantee("S5")
def test_what_is_far_too_long_is_moved_aside_unread(session: Path) -> None:
    (session / "step-000002").touch()
    os.truncate(session / "step-000002", 3 << 29)
    os.truncate(session / "meta", 1 << 30)
    before = time.process_time()
    assert sorted(f.what for f in look(session).faults) == ["broken-meta", "not-a-step"]
    assert mend(session).exit_code == 8
    assert look(session).exit_code == 0
    assert time.process_time() - before < 1
    lost = session.parent / ".stepfs-lost" / SLUG
    assert {path.name: path.stat().st_size for path in lost.iterdir()} == {
        "step-000002": 3 << 29,
        "meta": 1 << 30,
    }


def test_what_was_put_aside_before_is_never_replaced(session: Path) -> None:
    for content in (b"first", b"second", b"third"):
        (session / "step-000002").write_bytes(content)
        assert mend(session).exit_code == 8
    kept = {path.read_bytes() for path in (session.parent / ".stepfs-lost" / SLUG).iterdir()}
    assert kept == {b"first", b"second", b"third"}


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"agent":1}', b"\xff", None])
def test_a_meta_that_is_broken_or_missing_is_rebuilt_from_the_session(
    session: Path, broken: bytes | None
) -> None:
    (session / "step-000002").write_bytes(COMPACTION)
    (session / "step-000003").write_bytes(HELLO)
    for number, second in ((1, 1_000_000_000), (2, 1_000_000_050), (3, 1_000_000_100)):
        os.utime(session / f"step-00000{number}", (second, second))
    if broken is None:
        (session / "meta").unlink()
    else:
        (session / "meta").write_bytes(broken)
    assert look(session).exit_code == 7
    assert mend(session).exit_code == 8
    assert json.loads((session / "meta").read_bytes()) == {
        "agent": "crab",
        "created_by": "tg-42",
        "created_at": "2001-09-09T01:46:40.000000000+00:00",
        "title": "",
        "updated_at": "2001-09-09T01:48:20.000000000+00:00",
        "message_count": 2,
    }
    if broken is not None:
        assert (session.parent / ".stepfs-lost" / SLUG / "meta").read_bytes() == broken
    assert check(str(session.parent), repair=False).exit_code == 0


def test_what_is_valid_in_a_broken_meta_is_kept_and_so_is_its_mode(session: Path) -> None:
    old = {"agent": "Crab", "created_by": 7, "title": "Tides", "message_count": 99, "x": [1]}
    (session / "meta").write_text(json.dumps(old))
    (session / "meta").chmod(0o640)
    assert mend(session).exit_code == 8
    rebuilt = json.loads((session / "meta").read_bytes())
    assert (rebuilt["agent"], rebuilt["created_by"]) == ("Crab", "tg-42")
    assert (rebuilt["title"], rebuilt["message_count"], rebuilt["x"]) == ("Tides", 1, [1])
    assert (session / "meta").stat().st_mode & 0o777 == 0o640


def test_a_fifo_or_a_link_in_place_of_meta_is_put_aside_and_neither_opened_nor_followed(
    session: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(META.replace(b"Crab", b"Mole"))
    (session / "meta").unlink()
    os.mkfifo(session / "meta")
    assert mend(session).exit_code == 8
    (session / "meta").unlink()
    (session / "meta").symlink_to(secret)
    assert mend(session).exit_code == 8
    assert b"Mole" not in (session / "meta").read_bytes()
    assert b"Mole" in secret.read_bytes()


def test_a_link_with_a_sessions_name_is_put_aside_and_not_followed(
    session: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "step-000001").write_bytes(b"torn")
    (session.parent / "crab_tg-42_2").symlink_to(elsewhere)
    assert mend(session).exit_code == 8
    assert (session.parent / ".stepfs-lost/crab_tg-42_2/crab_tg-42_2").is_symlink()
    assert (elsewhere / "step-000001").read_bytes() == b"torn"


def test_lost_things_go_nowhere_outside_of_the_store(session: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (session.parent / ".stepfs-lost").symlink_to(elsewhere)
    make_torn(session)
    assert mend(session).exit_code == 7
    assert (session / "step-000002").exists()
    assert list(elsewhere.iterdir()) == []


def test_half_made_and_half_deleted_sessions_are_put_aside(session: Path) -> None:
    for name in (".new.0123456789abcdef", ".del.0123456789abcdef"):
        (session.parent / name).mkdir()
        (session.parent / name / "step-000001").write_bytes(HELLO)
    report = mend(session)
    assert [finding.what for finding in report.faults] == ["left-over"] * 2
    assert report.exit_code == 8
    assert mend(session).exit_code == 0


def test_a_directory_that_is_no_session_is_left_alone(session: Path) -> None:
    (session.parent / "attic").mkdir()
    (session.parent / "attic" / "photo.jpg").touch()
    report = mend(session)
    assert (report.exit_code, report.sessions) == (0, 1)


def test_a_writer_at_work_is_waited_for_and_not_disturbed(session: Path) -> None:
    temporary = session / "step-000002.tmp.1"
    temporary.write_bytes(HELLO)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        temporary.rename(session / "step-000002")
        os._exit(0)
    report = check(str(session.parent), repair=True, settle_seconds=0.8)
    os.waitpid(pid, 0)
    assert report.exit_code == 0
    assert report.steps == 2
    assert time.monotonic() - started < 5
    assert not (session.parent / ".stepfs-lost").exists()


def test_progress_ends_at_the_number_of_names_and_never_goes_back(tmp_path: Path) -> None:
    demo.write(str(tmp_path))
    told: list[tuple[int, int]] = []
    report = check(str(tmp_path), False, lambda done, total: told.append((done, total)))
    names = sum(len(files) for _, _, files in os.walk(tmp_path))
    assert {total for _, total in told} == {names}
    assert told == sorted(told)
    assert told[-1] == (names, names)
    assert report.sessions == 13


def test_the_sample_store_has_exactly_its_one_broken_step(tmp_path: Path) -> None:
    demo.write(str(tmp_path))
    report = check(str(tmp_path), repair=False)
    assert [(f.session, f.name, f.what) for f in report.faults] == [
        ("scout_cli-ana_1", "step-000004", "not-a-step")
    ]


def test_the_report_never_drives_a_terminal(session: Path) -> None:
    (session / "step-\x1b[2J\nx").touch()
    text = main_report(look(session))
    assert "\x1b" not in text
    assert text.count("\n") == 1


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as missing:
        check(str(tmp_path / "none"), repair=False)
    assert missing.value.errno_name == "ENOENT"
