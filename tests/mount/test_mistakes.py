"""Common mistakes, each answered by a sentence that suggests what was meant, and an exit code."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.exits import Exit
from tests.support.commands import STEPFS, Answer, environment, is_mounted, run, stepfs
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

Mounts = Callable[..., Mount]
DATABASE = b"CRMEM\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + bytes(16)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def sessions(store: StoreOnDisk) -> Path:
    """A store that holds a session."""
    store.session("crab_tg-42_1", entry("hello"))
    return store.path


def assert_told(answer: Answer, code: Exit, *parts: str) -> None:
    """The command exited with that code and printed one line that contains these parts."""
    assert (answer.returncode, answer.stdout) == (code, ""), answer
    (line,) = answer.stderr.splitlines()
    assert [part for part in parts if part not in line] == [], line


def every_command(path: Path, mountpoint: Path) -> list[Answer]:
    """The answer of every command that is given `path` as a store."""
    return [
        stepfs("mount", path, mountpoint),
        stepfs("check", path),
        stepfs("ls", path),
        stepfs("new", path, "--agent", "Crab", "--created-by", "me"),
    ]


def test_the_parent_of_a_store_is_asked_whether_the_store_was_meant(
    tmp_path: Path, sessions: Path, mountpoint: Path
) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    sessions.rename(home / "sessions")
    for answer in every_command(home, mountpoint):
        assert_told(answer, Exit.STORE, "holds no session; did you mean", f"{home}/sessions?")
    (home / "sessions").rename(home / "of another name")
    assert_told(stepfs("check", home), Exit.STORE, f"did you mean {home}/of another name?")


def test_a_directory_of_something_else_is_no_store(tmp_path: Path, mountpoint: Path) -> None:
    other = tmp_path / "music"
    (other / ".hidden").mkdir(parents=True)
    (other / "lost+found").mkdir()
    (other / "crab_tg-42_1").mkdir()  # a session that is being created
    assert "there is no meta" in stepfs("check", other).stdout
    (other / "song.ogg").touch()
    for answer in every_command(other, mountpoint):
        assert_told(answer, Exit.STORE, "holds no session, but other things, such as song.ogg")
    assert not is_mounted(mountpoint)


def test_a_session_given_as_a_store_is_told_where_the_store_is(
    sessions: Path, mountpoint: Path
) -> None:
    answer = stepfs("mount", sessions / "crab_tg-42_1", mountpoint)
    assert_told(answer, Exit.STORE, "is a session, not a store", f"give {sessions}")


def test_a_mount_and_its_parent_given_as_a_store_are_told_which_is_mounted_there(
    sessions: Path, mount: Mounts, tmp_path: Path, mountpoint: Path
) -> None:
    at = mount().path
    for inside in (at, at / "crab_tg-42_1"):
        answer = stepfs("mount", inside, mountpoint)
        assert_told(answer, Exit.STORE, "is in a mount, not a store", f"its store is {sessions}")
    moved = tmp_path / "apart"
    moved.mkdir()
    (moved / "mnt").mkdir()
    assert stepfs("mount", sessions, moved / "mnt").returncode == 0
    answer = stepfs("mount", moved, mountpoint)
    assert_told(answer, Exit.STORE, "holds no session, only a mount of", str(sessions))
    for command in ("umount", "status"):
        answer = stepfs(command, moved)
        assert_told(answer, Exit.NOT_STEPFS, "no stepfs is mounted", f"the mount is {moved}/mnt")
    assert stepfs("umount", moved / "mnt").returncode == 0


def test_store_and_mountpoint_swapped_are_told_the_right_way_round(
    sessions: Path, mountpoint: Path
) -> None:
    answer = stepfs("mount", mountpoint, sessions)
    right = shlex.join(["stepfs", "mount", str(sessions), str(mountpoint)])
    assert_told(answer, Exit.MOUNTPOINT, "were the two swapped?", right)


def test_a_store_of_the_newest_form_is_known_and_not_mounted(
    tmp_path: Path, sessions: Path, mountpoint: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    database = home / "store.crmem"
    database.write_bytes(DATABASE)
    for given in (home, database):
        for answer in (stepfs("mount", given, mountpoint), stepfs("check", given)):
            assert_told(answer, Exit.STORE, f"{database}", "one database file", "not read yet")
    sessions.rename(home / "sessions")
    answer = stepfs("mount", home, mountpoint)
    assert_told(answer, Exit.STORE, "not read yet", f"older sessions are in {home}/sessions")
    assert not is_mounted(mountpoint)


def test_a_memory_is_no_store_of_the_newest_form(tmp_path: Path, sessions: Path) -> None:
    (tmp_path / "memory.db").write_bytes(DATABASE)
    (sessions / "notes.crmem").write_bytes(b"something else")
    assert stepfs("check", sessions).returncode == 0
    assert_told(stepfs("check", tmp_path), Exit.STORE, f"did you mean {sessions}?")


def test_a_store_without_a_session_is_mounted_and_said_to_have_none(
    tmp_path: Path, mountpoint: Path
) -> None:
    (tmp_path / "new").mkdir()
    answer = stepfs("mount", tmp_path / "new", mountpoint)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert f"the store {tmp_path}/new holds no session yet" in answer.stderr
    assert is_mounted(mountpoint)
    assert stepfs("umount", mountpoint).returncode == 0
    checked = stepfs("check", tmp_path / "new")
    assert checked.returncode == 0
    assert "0 sessions" in checked.stdout


@pytest.mark.parametrize("option", ["ro", "allow_other", "cache=1G"])
def test_an_option_of_the_mount_without_its_o_is_told_so(option: str) -> None:
    answer = stepfs("mount", f"--{option}", "store", "mnt")
    assert_told(answer, Exit.USAGE, f"--{option}", f"an option of the mount: -o {option}")


def test_a_memory_that_is_not_there_is_refused(sessions: Path, mountpoint: Path) -> None:
    answer = stepfs("mount", "-o", "memory=/no/memory.db", sessions, mountpoint)
    assert_told(answer, Exit.USAGE, "the memory /no/memory.db does not exist")
    assert not is_mounted(mountpoint)


def test_a_log_that_cannot_be_written_is_told_in_words(sessions: Path, mountpoint: Path) -> None:
    for words in ([], ["-f"]):
        answer = stepfs("mount", *words, "--log-file", "/no/log", sessions, mountpoint)
        assert_told(answer, Exit.USAGE, "cannot write the log /no/log: No such file or directory")
        assert "Errno" not in answer.stderr


def test_what_to_do_next_can_be_pasted_though_names_have_spaces(
    tmp_path: Path, sessions: Path
) -> None:
    missing = tmp_path / "not there; rm -rf"
    demo = stepfs("mount", missing, tmp_path).stderr.rpartition("make a sample: ")[2]
    assert shlex.split(demo) == ["stepfs", "demo", str(missing)]
    making = stepfs("mount", sessions, missing).stderr.rpartition("make it: ")[2]
    assert shlex.split(making) == ["mkdir", "-p", str(missing)]
    missing.mkdir()
    assert stepfs("mount", sessions, missing).returncode == 0
    again = stepfs("mount", sessions, missing).stderr.rpartition("unmount it first: ")[2]
    assert shlex.split(again) == ["stepfs", "umount", str(missing)]
    with (missing / "crab_tg-42_1/history.jsonl").open():
        lazily = stepfs("umount", missing).stderr.rpartition("lazily: ")[2]
    assert shlex.split(lazily) == ["stepfs", "umount", "-l", str(missing)]
    assert stepfs("umount", missing).returncode == 0
    done = stepfs("demo", tmp_path / "a store").stdout
    assert f"stepfs mount '{tmp_path}/a store' MOUNTPOINT" in done


def test_an_unmount_from_inside_the_mount_is_told_so(mount: Mounts) -> None:
    at = mount().path
    script = f"cd {shlex.quote(str(at))}; {shlex.join(STEPFS)} umount . || exit $?; true"
    answer = run(["sh", "-c", script])
    assert_told(answer, Exit.FAILED, "in use by the shell you are in (pid ", "umount -l")
    assert subprocess.run([*STEPFS, "umount", "."], cwd=at, env=environment()).returncode == 0


def test_the_sample_store_says_what_check_finds_in_it(tmp_path: Path) -> None:
    assert "One step is torn" in stepfs("demo", tmp_path / "sample").stdout
    found = stepfs("check", tmp_path / "sample")
    assert found.returncode == Exit.CHECK_FOUND
    assert "1 fault" in found.stdout


@pytest.mark.guarantee("G19a", "G11e")
def test_a_directory_copied_into_the_mount_is_one_line_in_the_errors(
    mount: Mounts, tmp_path: Path
) -> None:
    mounted = mount()
    mounted.expected.append("no file can be made here")
    source = tmp_path / "crab_tg-42_1"
    source.mkdir()
    for number in range(25):
        (source / f"step-{number:06}").touch()
    copied = run(["cp", "-r", str(source), str(mounted.path)])
    assert copied.returncode == 1
    assert copied.stderr.count("Operation not permitted") == 25
    (line,) = map(json.loads, mounted.errors())
    assert (line["errno"], line["count"], line["session"]) == ("EPERM", 25, "crab_tg-42_1")
    assert line["last"] >= line["time"]
    assert "so write lines to append" in line["error"]
    os.rmdir(mounted.path / "crab_tg-42_1")
    with pytest.raises(PermissionError):
        (mounted.path / "file").touch()
    assert len(mounted.errors()) == 2


@pytest.mark.guarantee("G6f")
def test_a_role_that_no_provider_knows_is_stored_with_a_warning(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1")
    mounted = mount()
    lines = [b'{"role":"%b","content":"x"}\n' % role for role in (b"user", b"sage", b"sage")]
    (mounted.path / session.slug / "append").write_bytes(b"".join(lines))
    assert session.numbers() == [1, 2, 3]
    (told,) = map(json.loads, mounted.errors())
    assert (told["errno"], told["code"], told["session"]) == (None, "unknown-role", session.slug)
    assert "stored, but its role 'sage' is none of system, user, assistant, tool" in told["error"]
