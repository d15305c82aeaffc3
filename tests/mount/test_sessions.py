"""Sessions are made and deleted through the mount; every other change of names is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.commands import failing, shell, until
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

Mounts = Callable[..., Mount]

REFUSED = [
    "no file can be made here",
    "nothing can be renamed",
    "no file can be removed",
    "cannot be set",
    "only a session can be removed",
    "a directory can be made only",
    "is not a session name",
]
"""The log's messages about changes that these tests have refused on purpose."""


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
def test_a_refused_create_says_what_would_make_a_session(store: StoreOnDisk, mount: Mounts) -> None:
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
    """Make sessions from eight processes, each of which learns the names of its own."""
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
