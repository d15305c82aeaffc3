"""Forks made through a mount: correct or refused with a reason, and complete or absent (G30)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.mounted import Mount, mounted
from tests.support.people import ANA, EVE, own, public_directory
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
ORIGIN, FORK = "crab_tg-42_1", "crab_tg-42_2"
STEPS = [entry("one"), event(), compaction("first"), entry("four"), b"broken", entry("six")]


def forked(mount: Mount, **how: object) -> str:
    """Request a fork; returns its slug, read back from the same open file."""
    fd = os.open(mount.path / ".stepfs/create", os.O_RDWR)
    try:
        os.write(fd, json.dumps({"from": ORIGIN, **how}).encode() + b"\n")
        return os.read(fd, 300).decode().strip()
    finally:
        os.close(fd)


@pytest.mark.guarantee("G30f", "G30c")
def test_a_fork_reads_as_its_origin_did_at_that_step(store: StoreOnDisk, mount: Mounts) -> None:
    origin = store.session(ORIGIN, *STEPS)
    served = mount()
    served.expected.append("step-000005")
    log = (served.path / ORIGIN / "log.jsonl").read_bytes().splitlines(keepends=True)
    for last, lines in ((6, 5), (4, 4), (2, 2), (3, 3), (0, 0)):
        at = served.path / forked(served, at=last)
        for view in ("history.jsonl", "messages.jsonl"):
            expected = (served.path / ORIGIN / f".at/{last}" / view).read_bytes()
            assert (at / view).read_bytes() == expected
        assert (at / "log.jsonl").read_bytes() == b"".join(log[:lines])
        (at / "append").write_bytes(entry("goes on") + b"\n")
        assert (at / "history.jsonl").read_bytes().endswith(entry("goes on") + b"\n")
    assert origin.steps() == STEPS
    slug = forked(served, agent="Ada", created_by="cli")
    assert slug == "ada_cli_1"
    told = json.loads((served.path / slug / "meta.json").read_bytes())
    assert told["forked_from"] == {"session": ORIGIN, "step": 6}


@pytest.mark.guarantee("G30f", "G19a")
@pytest.mark.parametrize(
    ("asked", "number", "part"),
    [
        ({"from": "crab_tg-42_9"}, errno.ENOENT, "crab_tg-42_9"),
        ({"from": 7}, errno.EINVAL, "a fork is made by"),
        ({"from": ORIGIN, "at": -1}, errno.EINVAL, "a fork is made by"),
        ({"from": ORIGIN, "at": "3"}, errno.EINVAL, "a fork is made by"),
        ({"from": ORIGIN, "at": True}, errno.EINVAL, "a fork is made by"),
        ({"from": ORIGIN, "agent": None}, errno.EINVAL, "a fork is made by"),
        ({"from": ORIGIN, "title": "x"}, errno.EINVAL, "a fork is made by"),
        ({"from": "../store/" + ORIGIN}, errno.ENOENT, "store"),
    ],
)
def test_what_makes_no_fork_is_refused_with_a_reason(
    store: StoreOnDisk, mount: Mounts, asked: dict[str, object], number: int, part: str
) -> None:
    store.session(ORIGIN, *STEPS)
    served = mount()
    served.expected.append("create: ")
    with pytest.raises(OSError) as failed:
        forked(served, **asked)
    assert failed.value.errno == number
    assert part in json.loads(served.errors()[-1])["error"]
    assert os.listdir(store.path) == [ORIGIN]


@pytest.mark.guarantee("G30f", "G21a")
def test_who_may_not_read_a_session_may_not_fork_it() -> None:
    with public_directory() as place:
        store = StoreOnDisk(place / "store")
        store.path.chmod(0o777)
        private = store.session(ORIGIN, *STEPS)
        own(private.path, ANA, 0o700)
        own(private.path / "meta", ANA, 0o600)
        asked = f'exec 3<>.stepfs/create && echo \'{{"from":"{ORIGIN}"}}\' >&3 && cat <&3'
        with mounted(store.path, place, "allow_other") as served:
            served.expected += ["not yours to read", "step-000005"]
            assert EVE.sh(asked, served.path).returncode != 0
            assert os.listdir(store.path) == [ORIGIN]
            assert ANA.sh(asked, served.path).stdout == f"{FORK}\n"


@pytest.mark.guarantee("G30d")
def test_a_server_killed_anywhere_in_a_fork_leaves_all_of_it_or_nothing(
    store: StoreOnDisk, mount: Mounts
) -> None:
    """Kills after different numbers of copied steps; fails if no kill came during a fork."""
    origin = store.session(ORIGIN, *(entry(f"line {number}") for number in range(1500)))
    partly = 0
    for copied in (0, 1, 300, 700, 1400, 1500):
        served = mount(name=f"mnt{copied}", check=False)
        asking = threading.Thread(target=ask, args=(served,))
        asking.start()
        while asking.is_alive() and hidden_steps(store) <= copied:
            time.sleep(0.001)
        served.kill()
        subprocess.run(["umount", "-l", served.path], check=True, timeout=10)
        asking.join(10)
        partly += hidden_steps(store) > 0
        with mounted(store.path, store.path.parent, name=f"again{copied}"):
            made = [SessionOnDisk(path) for path in store.path.iterdir() if path.name[0] != "."]
            for fork in made:
                assert fork.steps() == origin.steps()
                assert fork.slug == ORIGIN or fork.meta()["forked_from"]
    assert partly >= 3


@pytest.mark.guarantee("G30d")
def test_an_unmount_during_a_fork_leaves_all_of_it_or_nothing(
    store: StoreOnDisk, mount: Mounts
) -> None:
    """Fails if no unmount came during a fork."""
    origin = store.session(ORIGIN, *(entry(f"line {number}") for number in range(1500)))
    midst = 0
    for copied in (1, 300, 700):
        served = mount(name=f"mnt{copied}")
        served.expected.append("write create: ")
        asking = threading.Thread(target=ask, args=(served,))
        asking.start()
        while asking.is_alive() and hidden_steps(store) <= copied:
            time.sleep(0.001)
        midst += 0 < hidden_steps(store) <= len(origin.steps())
        served.stop()
        asking.join(10)
        assert not asking.is_alive()
        assert not list(store.path.glob(".new.*"))
        for path in [path for path in store.path.iterdir() if path != origin.path]:
            assert SessionOnDisk(path).steps() == origin.steps()
            assert SessionOnDisk(path).meta()["forked_from"]
            shutil.rmtree(path)
    assert midst


def hidden_steps(store: StoreOnDisk) -> int:
    """The number of files in the session that is being made."""
    with suppress(FileNotFoundError):  # finished or given up
        return sum(len(os.listdir(path)) for path in store.path.glob(".new.*"))
    return 0


def ask(served: Mount) -> None:
    with suppress(OSError):  # the server is killed
        forked(served)


@pytest.mark.guarantee("G30d", "G19a")
def test_a_fork_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    assert run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]).returncode == 0
    try:
        StoreOnDisk(small).session(ORIGIN, *(entry("x" * 50_000) for _ in range(11)))
        with mounted(small, tmp_path) as served:
            served.expected.append("write create: ")
            with pytest.raises(OSError) as failed:
                forked(served)
            assert failed.value.errno == errno.ENOSPC
            assert os.listdir(small) == [ORIGIN]
            assert forked(served, at=2) == FORK
    finally:
        run(["umount", "-l", str(small)])
