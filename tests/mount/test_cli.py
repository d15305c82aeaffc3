"""The command line: its help and its error messages."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fusefs.cli.main import COMMANDS, parser
from fusefs.cli.progress import Progress
from fusefs.config import MountOptions
from fusefs.exits import Exit
from tests.support.commands import (
    HELPER,
    SECONDS,
    STEPFS,
    Answer,
    environment,
    mount_stepfs,
    run,
    stepfs,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a mount namespace")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    return place


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    place = tmp_path / "mnt"
    place.mkdir()
    return place


def assert_refused(answer: Answer, code: int, sentence: str, program: str = "stepfs") -> None:
    """One line on stderr, nothing else."""
    assert (answer.stdout, answer.returncode) == ("", code), answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(f"{program}: ")
    assert sentence in answer.stderr


def test_the_help_names_every_command_and_exit_code() -> None:
    answer = stepfs("--help")
    assert answer.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command} " in answer.stdout
    for code in Exit:
        assert f"\n  {int(code)}  " in answer.stdout


def test_the_help_of_mount_names_every_option() -> None:
    text = stepfs("mount", "--help").stdout
    names = {field.name for field in fields(MountOptions)} - {"read_only"} | {"ro"}
    assert {name for name in names if not re.search(rf"[ ,]{name}[ =]", text)} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(command: str) -> None:
    answer = stepfs(command, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: stepfs {command} ")


def test_the_version_is_told() -> None:
    answer = stepfs("--version")
    assert answer.returncode == 0
    assert answer.stdout.startswith("stepfs 0")


def test_commands_that_mount_nothing_do_not_load_what_mounting_needs(tmp_path: Path) -> None:
    code = (
        "import sys; from fusefs.cli.main import main\n"
        "main(['demo', sys.argv[1]])\n"
        "print(sorted({'trio', 'pyfuse3'} & set(sys.modules)))"
    )
    answer = run([sys.executable, "-c", code, str(tmp_path)])
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = f'exec 3>&1; {{ {sys.executable} -c "$0" --help; echo $? >&3; }} | true'
    answer = run(["bash", "-c", code, STEPFS[2]])
    assert (answer.stdout, answer.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "no command was given; see stepfs --help"),
        ("mont a b", "unknown command mont; did you mean mount?"),
        ("frobnicate", "unknown command frobnicate; there are mount, umount, status"),
        ("mount a", "MOUNTPOINT; see stepfs mount --help"),
        ("mount a b c", "unrecognized arguments: c"),
        ("mount -o cash=1 a b", "unknown option cash; did you mean cache?"),
        ("mount --log-level loud a b", "loud"),
        ("umount", "MOUNTPOINT; see stepfs umount --help"),
        ("status --jsn /", "--jsn"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(words: str, sentence: str) -> None:
    assert_refused(stepfs(*words.split()), Exit.USAGE, sentence)


def test_words_behind_two_dashes_are_no_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stepfs("demo", "--", "-store").returncode == 0
    os.rename("-store/crab_tg-42_1", "-store/-dash_1")
    assert stepfs("search", "-l", "disk", "--", "-store").stdout == "-dash_1\n"
    assert stepfs("search", "--", "-x", "-store").returncode == Exit.NOTHING_FOUND
    assert_refused(stepfs("mount", "--", "-no", "-mnt"), Exit.STORE, "-no does not exist")
    monkeypatch.chdir("-store")
    assert "disk" in stepfs("show", "--markdown", "--", "-dash_1").stdout
    added = stepfs("append", "--json", "--", "-dash_1", "-a", "--", "-b")
    assert json.loads(added.stdout) == {"session": "-dash_1", "stored": 3}
    said = stepfs("show", "--json", "--", "-dash_1").stdout.splitlines()[-3:]
    assert [json.loads(line)["message"]["content"] for line in said] == ["-a", "--", "-b"]


def test_a_session_may_come_before_options_and_its_texts_behind_two_dashes(tmp_path: Path) -> None:
    stepfs("demo", tmp_path / "store")
    session = tmp_path / "store" / "crab_tg-42_1"
    added = stepfs("append", session, "a", "--role", "tool", "--json", "--", "--role")
    assert json.loads(added.stdout)["stored"] == 2
    none = stepfs("append", session, "--role", "--", "user")
    assert_refused(none, Exit.USAGE, "argument --role: expected one argument")
    many = stepfs("show", session, "--", "-b")
    assert_refused(many, Exit.USAGE, "unrecognized arguments: -b; see stepfs show --help")


def test_a_store_that_is_missing_or_none_is_refused(tmp_path: Path, mountpoint: Path) -> None:
    assert_refused(stepfs("mount", tmp_path / "no", mountpoint), Exit.STORE, "no does not exist")
    (tmp_path / "file").touch()
    assert_refused(stepfs("mount", tmp_path / "file", mountpoint), Exit.STORE, "not a directory")


def test_a_mountpoint_that_is_missing_none_or_used_is_refused(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    missing = stepfs("mount", store, tmp_path / "no")
    assert_refused(missing, Exit.MOUNTPOINT, f"make it: mkdir -p {tmp_path}/no")
    (tmp_path / "file").touch()
    assert_refused(stepfs("mount", store, tmp_path / "file"), Exit.MOUNTPOINT, "not a directory")
    (mountpoint / "file").touch()
    assert_refused(stepfs("mount", store, mountpoint), Exit.MOUNTPOINT, "is not empty")


def test_a_mount_in_its_own_store_and_a_store_below_its_mount_are_refused(store: Path) -> None:
    (store / "deep" / "mnt").mkdir(parents=True)
    below = stepfs("mount", store, store / "deep" / "mnt")
    assert_refused(below, Exit.MOUNTPOINT, f"mnt is in the store {store}")
    assert_refused(stepfs("mount", store, store), Exit.MOUNTPOINT, "is in the store")
    above = stepfs("mount", store / "deep", store)
    assert_refused(above, Exit.MOUNTPOINT, f"deep is in the mountpoint {store}")


def test_a_symlink_hides_no_mountpoint_in_the_store(tmp_path: Path, store: Path) -> None:
    (store / "mnt").mkdir()
    (tmp_path / "link").symlink_to("store/mnt")
    assert_refused(stepfs("mount", store, tmp_path / "link"), Exit.MOUNTPOINT, "is in the store")


def test_names_that_are_no_text_are_shown_escaped(mountpoint: Path) -> None:
    odd = os.fsdecode(b"/no\xff\nwhere")
    assert_refused(stepfs("mount", odd, mountpoint), Exit.STORE, "/no\\xff where does not exist")


def test_a_log_that_cannot_be_written_is_refused(store: Path, mountpoint: Path) -> None:
    for foreground in ([], ["-f"]):
        answer = stepfs("mount", *foreground, "--log-file", "/no/log", store, mountpoint)
        assert_refused(answer, Exit.USAGE, "cannot write the log")


@pytest.mark.parametrize("command", ["umount", "status"])
def test_what_is_no_stepfs_mount_is_told_so(command: str, mountpoint: Path) -> None:
    assert_refused(stepfs(command, mountpoint), Exit.NOT_STEPFS, "no stepfs is mounted at")
    assert_refused(stepfs(command, "/proc"), Exit.NOT_STEPFS, "no stepfs is mounted at /proc")


def test_a_sample_store_goes_only_where_nothing_is(tmp_path: Path) -> None:
    made = stepfs("demo", tmp_path / "sample")
    assert made.returncode == 0
    assert f"stepfs mount {tmp_path}/sample MOUNTPOINT" in made.stdout
    assert_refused(stepfs("demo", tmp_path / "sample"), Exit.STORE, "is not empty")


def test_a_store_is_checked_and_repaired(tmp_path: Path) -> None:
    store = tmp_path / "sample"
    assert stepfs("demo", store).returncode == 0
    found = stepfs("check", store)
    assert (found.returncode, found.stderr) == (Exit.CHECK_FOUND, "")
    assert stepfs("check", "--repair", store).returncode == Exit.CHECK_REPAIRED
    assert stepfs("check", store).returncode == Exit.OK
    assert_refused(stepfs("check", tmp_path / "no"), Exit.STORE, "no")


def test_a_check_against_a_peer_that_is_not_there_is_refused(tmp_path: Path, store: Path) -> None:
    answer = stepfs("check", store, "--peer", tmp_path / "no")
    assert_refused(answer, Exit.STORE, f"directory {tmp_path}/no: No such file or directory")


def test_progress_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("fusefs.cli.progress.time.monotonic", lambda: now)

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    for screen in (Screen(), io.StringIO()):
        now = 0.0
        with Progress(screen) as progress:
            progress(1, 4)
            assert screen.getvalue() == ""
            now = 1.0
            progress(2, 4)
        drawn = f"\r[{'#' * 20}{' ' * 20}]  50% 2 of 4\x1b[K\r\x1b[K"
        assert screen.getvalue() == (drawn if screen.isatty() else "")


def in_namespace(prepare: str, *command: str, user: str | None = None) -> Answer:
    """Run a command in a mount namespace that the shell script `prepare` has changed."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    script = f'set -e; {prepare}\nexec "$@"'
    return run(["unshare", "-m", "sh", "-c", script, "sh", *become, *command])


def device(mode: str) -> str:
    return (
        f"mount -t tmpfs tmpfs /mnt; mknod -m {mode} /mnt/fuse c 10 229; "
        "mount --bind /mnt/fuse /dev/fuse"
    )


@as_root
def test_without_the_device_nothing_is_tried(store: Path, mountpoint: Path) -> None:
    command = (*STEPFS, "mount", str(store), str(mountpoint))
    answer = in_namespace("mount -t tmpfs tmpfs /dev", *command)
    assert_refused(answer, Exit.PERMISSION, "there is no /dev/fuse")


@pytest.fixture
def nobodys() -> Iterator[tuple[str, str]]:
    """A store and a mountpoint that the user `nobody` can reach and use."""
    if subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            "import fusefs.cli.main",
        ],
        env=environment(),
        timeout=SECONDS,
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("another user cannot read this checkout or its Python")
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        for name in ("store", "mnt"):
            os.mkdir(f"{place}/{name}")
            os.chown(f"{place}/{name}", 65534, 65534)
        yield f"{place}/store", f"{place}/mnt"


@as_root
def test_without_a_permission_it_is_said_which(nobodys: tuple[str, str]) -> None:
    mount = (*STEPFS, "mount", *nobodys)
    answer = in_namespace(device("600"), *mount, user="65534")
    assert_refused(answer, Exit.PERMISSION, "you may not open /dev/fuse")
    answer = in_namespace(
        device("666") + '; mount --bind /dev/null "$(command -v fusermount3)"',
        *mount,
        user="65534",
    )
    assert_refused(answer, Exit.PERMISSION, "fusermount3 is not installed")
    plain = device("666") + "; touch /mnt/conf; mount --bind /mnt/conf /etc/fuse.conf"
    answer = in_namespace(plain, *mount, "-o", "allow_other", user="65534")
    assert_refused(answer, Exit.PERMISSION, "needs a line user_allow_other in /etc/fuse.conf")
    os.chown(nobodys[1], 0, 0)
    answer = in_namespace(device("666"), *mount, user="65534")
    assert_refused(answer, Exit.PERMISSION, "you may not mount at")


@as_root
def test_the_store_is_known_under_another_name(store: Path, mountpoint: Path) -> None:
    (store / "in").mkdir()
    answer = in_namespace(
        f"mount --bind {store} {mountpoint}", *STEPFS, "mount", str(store), f"{mountpoint}/in"
    )
    assert_refused(answer, Exit.MOUNTPOINT, "is in the store")


def test_the_mount_helper_answers_with_the_codes_of_mount(store: Path, mountpoint: Path) -> None:
    def refused(*words: str | Path, code: int, sentence: str) -> None:
        assert_refused(mount_stepfs(*words), code, sentence, program="mount.stepfs")

    refused(store, code=1, sentence="usage: mount.stepfs")
    refused(store, mountpoint, "-x", code=1, sentence="unknown flag -x")
    refused(store, mountpoint, "-o", code=1, sentence="-o needs a value")
    refused(store, mountpoint, "-o", "rw,cash=1", code=1, sentence="did you mean cache?")
    refused(store / "no", mountpoint, "-o", "rw", code=32, sentence="does not exist")
    refused(store, mountpoint / "no", "-sn", "-o", "rw", code=32, sentence="does not exist")


@as_root
def test_the_mount_helper_tells_a_system_without_fuse(store: Path, mountpoint: Path) -> None:
    answer = in_namespace("mount -t tmpfs tmpfs /dev", *HELPER, str(store), str(mountpoint))
    assert_refused(answer, 2, "there is no /dev/fuse", program="mount.stepfs")


def test_a_fake_mount_mounts_nothing(store: Path, mountpoint: Path) -> None:
    answer = mount_stepfs(store, mountpoint, "-fv", "-o", "rw,noauto,x-systemd.automount")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not os.path.ismount(mountpoint)


def test_every_command_is_described_for_man_pages_and_completions() -> None:
    text = parser().format_help()
    assert all(command in text for command in COMMANDS)
