"""Sessions made, found and deleted through the mount, and what `.stepfs` tells of them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import Answer, run, until
from tests.support.mounted import Mount
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, entry

Mounts = Callable[..., Mount]

REFUSED = [
    "no file can be made here",
    "nothing can be renamed",
    "no file can be removed",
    "cannot be set",
    "only a session can be removed",
    "a directory can be made only",
    "is no session name",
]
"""What the log says of the changes that are refused here on purpose."""


def shell(at: Path, script: str, program: str = "bash") -> Answer:
    return run([program, "-c", f"cd '{at}' && {script}"])


@contextmanager
def failing(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as refused:
        yield
    assert refused.value.errno == number


def inventory(store: StoreOnDisk) -> dict[str, bytes]:
    """Every file of the store."""
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in store.path.rglob("*")
        if path.is_file()
    }


# --- create ----------------------------------------------------------------------------------------

CREATE = """
exec 3<>.stepfs/create
echo '{"agent":"Crab","created_by":"tg:42"}' >&3
read slug <&3
exec 3>&-
echo "$slug"
"""


@pytest.mark.guarantee("G11a")
@pytest.mark.parametrize("program", ["bash", "dash"])
def test_a_shell_makes_a_session_and_reads_its_name(
    store: StoreOnDisk, mount: Mounts, program: str
) -> None:
    store.session("crab_tg-42_6")
    at = mount().path
    for number in (7, 8):
        done = shell(at, CREATE, program)
        assert (done.stdout, done.stderr) == (f"crab_tg-42_{number}\n", "")
    made = SessionOnDisk(store.path / "crab_tg-42_8")
    meta = made.meta()
    assert meta.pop("created_at") == meta.pop("updated_at")
    fresh = {"agent": "Crab", "created_by": "tg:42", "title": "", "message_count": 0}
    assert meta == fresh
    assert (at / made.slug / "history.jsonl").read_bytes() == b""
    assert (at / ".stepfs/create").read_bytes() == b""


@pytest.mark.guarantee("G11a")
def test_python_makes_a_session_through_one_open_file(store: StoreOnDisk, mount: Mounts) -> None:
    create = mount().path / ".stepfs/create"
    with create.open("r+") as file:
        file.write('{"agent": "Zoë M²", "created_by": "cli ana"}')
        file.flush()
        assert file.readline() == "zoË-m²_cli-ana_1\n".replace("Ë", "ë")
    with create.open("r+b", buffering=0) as file:
        assert file.read() == b""
        for part in (b'{"agent":"Crab",', b'"created_by":"tg:1"}\n'):
            file.write(part)
        file.seek(0)
        assert file.read() == b"crab_tg-1_1\n"
        file.write(b'{"agent":"Crab","created_by":"tg:1"}')
        file.seek(0)
        assert file.read() == b"crab_tg-1_2\n"
    assert sorted(os.listdir(store.path)) == ["crab_tg-1_1", "crab_tg-1_2", "zoë-m²_cli-ana_1"]


@pytest.mark.guarantee("G11a", "G19a")
def test_what_makes_no_session_says_what_would(store: StoreOnDisk, mount: Mounts) -> None:
    mounted = mount()
    mounted.expected += ["write create: ", "release create: "]
    create = mounted.path / ".stepfs/create"
    for text in (b"{}", b'{"agent":"Crab"}', b'{"agent":"Crab","created_by":7}', b"Crab\n"):
        fd = os.open(create, os.O_RDWR)
        with failing(errno.EINVAL):
            os.write(fd, text)
        assert os.read(fd, 100) == b""
        os.close(fd)
    fd = os.open(create, os.O_RDWR)
    os.write(fd, b'{"agent":')
    with failing(errno.EINVAL):
        os.close(fd)
    until(lambda: len(mounted.errors()) == 5)
    told = [json.loads(line) for line in mounted.errors()]
    assert '{"agent":"…","created_by":"…"}' in told[1]["error"]
    assert {line["errno"] for line in told} == {"EINVAL"}
    assert os.listdir(store.path) == []


CREATOR = """
import os, sys
for n in range(int(sys.argv[2])):
    fd = os.open(sys.argv[1], os.O_RDWR)
    os.write(fd, b'{"agent":"Crab","created_by":"tg:42"}\\n')
    sys.stdout.write(os.pread(fd, 300, 0).decode())
    os.close(fd)
"""


def create_at_once(store: StoreOnDisk, mounts: list[Mount], sessions: int) -> None:
    """Make sessions by eight processes, each of which is told the names of its own."""
    creators = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CREATOR,
                mounts[n % len(mounts)].path / ".stepfs/create",
                str(sessions // 8),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(8)
    ]
    told = [process.communicate(timeout=600)[0].splitlines() for process in creators]
    assert [process.returncode for process in creators] == [0] * 8
    names = sorted(name for each in told for name in each)
    assert names == sorted(f"crab_tg-42_{n}" for n in range(1, sessions + 1))
    assert sorted(os.listdir(store.path)) == names
    assert sorted(os.listdir(mounts[0].path)) == [".stepfs", *names]
    assert all(SessionOnDisk(store.path / name).meta()["agent"] == "Crab" for name in names)


@pytest.mark.guarantee("G11b")
def test_no_two_of_many_creators_get_the_same_session(store: StoreOnDisk, mount: Mounts) -> None:
    create_at_once(store, [mount(), mount(name="other")], 160)


@pytest.mark.guarantee("G11b")
def test_two_thousand_creates_from_eight_processes_are_two_thousand_sessions(
    store: StoreOnDisk, mount: Mounts
) -> None:
    create_at_once(store, [mount()], 2000)


# --- mkdir and rmdir ---------------------------------------------------------------------------------


@pytest.mark.guarantee("G11c")
def test_mkdir_makes_exactly_that_session(store: StoreOnDisk, mount: Mounts) -> None:
    mounted = mount()
    mounted.expected += REFUSED
    at = mounted.path
    (at / "crab_tg-42_7").mkdir()
    assert SessionOnDisk(store.path / "crab_tg-42_7").meta()["message_count"] == 0
    (at / "crab_tg-42_7" / "append").write_bytes(entry("hello"))
    with failing(errno.EEXIST):
        (at / "crab_tg-42_7").mkdir()
    with failing(errno.EEXIST):
        (at / ".stepfs").mkdir()
    for name in (
        "crab",
        "crab_tg-42",
        "Crab_tg-42_1",
        "crab_tg-42_-1",
        "a-_b_1",
        "a_b_01",
        ".x",
        "a_b_1 ",
    ):
        with failing(errno.EINVAL):
            (at / name).mkdir()
    for path in (at / "crab_tg-42_7" / "x", at / ".stepfs/x", at / ".stepfs/latest/x"):
        with failing(errno.EPERM):
            path.mkdir()
    assert os.listdir(store.path) == ["crab_tg-42_7"]
    assert shell(at, "mkdir foo").stderr.endswith("Invalid argument\n")
    told = json.loads(mounted.errors()[-1])
    assert (told["command"], told["session"], told["operation"]) == ("mkdir", "foo", "mkdir")
    assert "AGENT_SENDER_NUMBER" in told["error"]


@pytest.mark.guarantee("G11d", "G20b")
def test_rmdir_deletes_a_session_with_all_that_is_in_it(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    (session.path / "notes").mkdir()
    (session.path / "notes" / "x").write_text("somebody else's")
    kept = store.session("crab_tg-42_2", entry("two"))
    mounted = mount()
    at = mounted.path
    with (at / session.slug / "history.jsonl").open("rb") as reading:
        assert shell(at, f"rmdir {session.slug}").returncode == 0
        until(lambda: os.listdir(store.path) == [kept.slug])
        assert sorted(os.listdir(at)) == [".stepfs", kept.slug]
        assert reading.read() == entry("one") + b"\n"
    with failing(errno.ENOENT):
        (at / session.slug / "history.jsonl").open("rb")
    with failing(errno.ENOENT):
        (at / session.slug).rmdir()


@pytest.mark.guarantee("G11e", "G11d")
def test_rm_changes_nothing_and_what_goes_on_to_rmdir_deletes(
    store: StoreOnDisk, mount: Mounts
) -> None:
    for number in (1, 2, 3):
        store.session(f"crab_tg-42_{number}", entry("one"))
    mounted = mount()
    mounted.expected += REFUSED
    at = mounted.path
    before = inventory(store)
    done = shell(at, "rm -rf crab_tg-42_1")
    assert done.returncode == 1
    assert done.stderr.count("Operation not permitted") == len(os.listdir(at / "crab_tg-42_1"))
    assert shell(at, "rm -rf crab_tg-42_2/append .stepfs").returncode == 1
    assert inventory(store) == before

    shell(at, "find crab_tg-42_2 -delete")
    until(lambda: sorted(os.listdir(store.path)) == ["crab_tg-42_1", "crab_tg-42_3"])
    shutil.rmtree(at / "crab_tg-42_3", ignore_errors=True)
    until(lambda: os.listdir(store.path) == ["crab_tg-42_1"])


@pytest.mark.guarantee("G11e", "G19a")
def test_every_other_change_of_names_is_refused(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    mounted = mount()
    mounted.expected += REFUSED
    at = mounted.path
    inside = at / session.slug
    before = inventory(store)
    changes: dict[str, Callable[[], object]] = {
        "rename session": lambda: os.rename(inside, at / "crab_tg-42_2"),
        "rename file": lambda: os.rename(inside / "append", inside / "x"),
        "replace file": lambda: os.rename(inside / "append", inside / "compact"),
        "link": lambda: os.link(inside / "history.jsonl", inside / "x"),
        "symlink": lambda: os.symlink("append", inside / "x"),
        "symlink at the top": lambda: os.symlink(session.slug, at / "crab_tg-42_2"),
        "fifo": lambda: os.mkfifo(inside / "x"),
        "device": lambda: os.mknod(inside / "x", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        "create": lambda: (inside / "x").touch(),
        "create at the top": lambda: (at / "x").touch(),
        "create hidden": lambda: (at / ".stepfs/x").touch(),
        "unlink": lambda: (inside / "meta.json").unlink(),
        "unlink hidden": lambda: (at / ".stepfs/README").unlink(),
        "unlink latest": lambda: (at / ".stepfs/latest/crab_tg-42").unlink(),
        "rmdir hidden": lambda: (at / ".stepfs").rmdir(),
        "rmdir latest": lambda: (at / ".stepfs/latest").rmdir(),
        "chmod": lambda: (inside / "history.jsonl").chmod(0o777),
        "chown": lambda: os.chown(inside, 1, 1),
        "utime": lambda: os.utime(inside / "log.jsonl"),
    }
    for name, change in changes.items():
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EPERM, name
    assert inventory(store) == before
    assert len(mounted.errors()) == len(changes)
    assert {json.loads(line)["errno"] for line in mounted.errors()} == {"EPERM"}


@pytest.mark.guarantee("G5d", "G11e")
def test_times_modes_and_sizes_of_control_files_mean_nothing_and_do_no_harm(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path
    before = inventory(store)
    script = (
        "touch $f && chmod 600 $f && truncate -s 0 $f && truncate -s 1M $f && : > $f && : >> $f"
    )
    for name in ("append", "compact", "meta.json"):
        done = shell(at / session.slug, f"f={name}; {script}")
        assert (done.returncode, done.stderr) == (0, ""), name
    assert shell(at, "touch .stepfs/create && truncate -s 0 .stepfs/create").returncode == 0
    assert inventory(store) == before


# --- what .stepfs tells ------------------------------------------------------------------------------


@pytest.mark.guarantee("G12d")
def test_latest_leads_to_the_newest_session_of_each_pair(store: StoreOnDisk, mount: Mounts) -> None:
    for slug in ("crab_tg-42_2", "crab_tg-42_10", "crab_tg-42_9", "scout_tg-42_1", "odd"):
        store.session(slug, entry(f"in {slug}"))
    at = mount().path
    latest = at / ".stepfs/latest"
    told = {name: os.readlink(latest / name) for name in os.listdir(latest)}
    assert told == {"crab_tg-42": "../../crab_tg-42_10", "scout_tg-42": "../../scout_tg-42_1"}
    assert (latest / "crab_tg-42/history.jsonl").read_bytes() == entry("in crab_tg-42_10") + b"\n"
    (at / "crab_tg-42_11").mkdir()
    assert os.readlink(latest / "crab_tg-42") == "../../crab_tg-42_11"
    assert (latest / "crab_tg-42/history.jsonl").read_bytes() == b""
    (at / "crab_tg-42_11").rmdir()
    until(lambda: os.readlink(latest / "crab_tg-42") == "../../crab_tg-42_10", 2)
    store.session("scout_cron_3")
    until(lambda: (latest / "scout_cron").is_dir(), 2)
    (at / "scout_cron_3").rmdir()
    until(lambda: not (latest / "scout_cron").is_symlink(), 2)


@pytest.mark.guarantee("G12d")
def test_sessions_jsonl_has_a_line_per_session_as_of_its_open(
    store: StoreOnDisk, mount: Mounts
) -> None:
    store.session("crab_tg-42_1")
    broken = store.session("crab_tg-42_2")
    (broken.path / "meta").write_text("{")
    (store.path / "no-session").mkdir()
    listing = mount().path / ".stepfs/sessions.jsonl"
    with listing.open("rb") as early:
        (listing.parents[1] / "crab_tg-42_1" / "meta.json").write_text('{"title":"Deploy plan"}')
        (listing.parents[1] / "scout_tg-7_1").mkdir()
        lines = [json.loads(line) for line in listing.read_bytes().splitlines()]
        first = json.loads(early.read().splitlines()[0])
    assert first == {"session": "crab_tg-42_1", **META}
    assert lines[0] == {**first, "title": "Deploy plan"}
    assert lines[1] == {"session": "crab_tg-42_2"}
    assert (lines[2]["session"], lines[2]["agent"]) == ("scout_tg-7_1", "scout")
    assert len(lines) == 3
    assert listing.stat().st_size == len(listing.read_bytes())


@pytest.mark.guarantee("G19a")
def test_errors_jsonl_tells_who_was_refused_what_where_and_why(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1")
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/append: ")
    errors = mounted.path / ".stepfs/errors.jsonl"
    with errors.open("rb", buffering=0) as following:
        assert following.read() == b""
        refused = shell(mounted.path, f"""printf '{{"role":"user", }}\n' > {session.slug}/append""")
        assert "write error: Invalid argument" in refused.stderr
        (line,) = following.readlines()
    told = json.loads(line)
    assert list(told)[:7] == ["time", "pid", "command", "session", "file", "operation", "errno"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told["time"])
    assert isinstance(told["pid"], int)
    assert (told["command"], told["session"], told["file"]) == ("bash", session.slug, "append")
    assert (told["operation"], told["errno"], told["code"]) == ("write", "EINVAL", "not-json")
    assert told["error"].startswith("not JSON at byte 14: ")
    assert '{"message":{"role":"user","content":"…"}}' in told["error"]


@pytest.mark.guarantee("G19a")
def test_errors_jsonl_keeps_the_last_thousand(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1")
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/append: ")
    fd = os.open(mounted.path / session.slug / "append", os.O_WRONLY)
    for number in range(1100):
        with failing(errno.EINVAL):
            os.write(fd, b"%d\n" % number)
    os.close(fd)
    assert len(mounted.errors()) == 1000
    assert (mounted.path / ".stepfs/errors.jsonl").stat().st_size < 1 << 20
    logged = [line for line in mounted.log().splitlines() if "write crab" in line]
    assert 1 <= len(logged) <= 20


@pytest.mark.guarantee("G19a")
def test_a_refusal_in_a_session_of_any_name_is_recorded(store: StoreOnDisk, mount: Mounts) -> None:
    odd = store.session(os.fsdecode(b"cr\xffab\n_x_1"))
    mounted = mount()
    mounted.expected.append("append: not JSON")
    with failing(errno.EINVAL):
        (mounted.path / odd.slug / "append").write_bytes(b"x\n")
    assert json.loads(mounted.errors()[0])["session"] == "cr\\xffab\n_x_1"
    assert len(mounted.log().splitlines()) == 2


@pytest.mark.guarantee("G3e")
def test_status_json_keeps_its_size_and_times_whatever_happens(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path
    path = at / ".stepfs/status.json"
    before, first = path.stat(), path.read_bytes()
    for _ in range(20):
        (at / session.slug / "history.jsonl").read_bytes()
        (at / session.slug / "append").write_bytes(entry("more"))
    after, second = path.stat(), path.read_bytes()
    assert len(first) == len(second) == before.st_size == after.st_size
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    assert first != second
    status = json.loads(second)
    assert status["operations"]["write"] >= 20
    assert status["in_flight"][0].keys() == {"operation", "seconds"}
    assert {"version", "uptime_seconds", "cache", "operations", "failures"} <= status.keys()


# --- the README --------------------------------------------------------------------------------------


def commands(guide: str) -> list[str]:
    """The commands that the README shows: all that is indented, but for its two tables."""
    lines = [line[2:] for line in guide.splitlines() if line.startswith("  ")]
    return [line for line in lines if not re.match(r"(<session>|\.stepfs)/\S+ {2,}", line)]


@pytest.mark.guarantee("G11a")
def test_every_command_of_the_readme_works(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("scout_tg-42_1", entry("let us deploy it"))
    mounted = mount()
    mounted.expected.append("append: not JSON")
    at = mounted.path
    with failing(errno.EINVAL):
        (at / session.slug / "append").write_bytes(b"x\n")
    found = commands((at / ".stepfs/README").read_text())
    assert len(found) >= 15
    assert all(os.access(at / line.split()[0], os.F_OK) for line in tables(at, session.slug))
    script = "\n".join(found).replace("<session>", session.slug)
    script = script.replace("tail -f", "timeout 0.5 tail -f").replace("less", "less -E")
    script = script.replace("cat messages.jsonl", f"cat {session.slug}/messages.jsonl")
    assert "timeout 0.5" in script
    done = run(["bash", "-xc", f"cd '{at}'; trap 'echo FAILED $? $BASH_COMMAND' ERR\n{script}"])
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == [f"FAILED 124 timeout 0.5 tail -f {session.slug}/history.jsonl"], done.stderr
    assert "let us deploy it" in done.stdout
    assert session.meta()["title"] == "Deploy plan"
    assert [json.loads(step).get("archive_name") for step in session.steps()][-1]
    until(lambda: sorted(os.listdir(store.path)) == ["crab_tg-42_1", session.slug])


def tables(at: Path, slug: str) -> list[str]:
    """The lines of the README that name a file and say what it is."""
    text = (at / ".stepfs/README").read_text().replace("<session>", slug)
    return re.findall(rf"^  ((?:{slug}|\.stepfs)/\S+ {{2,}}.*)$", text, re.MULTILINE)
