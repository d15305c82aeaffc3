"""The past of sessions in a real mount: seen only by name, and with few inodes in memory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.inodes.recent_past import KEPT_DIRECTORIES, KEPT_FILES
from tests.support.commands import until
from tests.support.mounted import Mount, mounted
from tests.support.people import ANA, EVE, own, public_directory
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
STEPS = [entry("one"), compaction("first"), entry("three"), compaction("second"), entry("five")]
TOOLS = {
    "find": "find crab*",
    "ls": "ls -aR crab*",
    "grep": "grep -r --no-messages content crab*",
    "tar": "tar -c --sort=name crab* | sha256sum",
    "rsync": "rsync -a --list-only crab*",
    "cp": "d=$(mktemp -d); cp -r crab* $d; (cd $d; find . -type f | sort | xargs md5sum); rm -r $d",
}


def open_inodes(mount: Mount) -> int:
    found: int = json.loads((mount.path / ".stepfs/status.json").read_bytes())["inodes"]
    return found


@pytest.mark.guarantee("G29d", "G4b")
def test_recursive_readers_find_the_same_after_the_past_was_looked_at(
    store: StoreOnDisk, mount: Mounts
) -> None:
    for number in range(1, 4):
        store.session(f"crab_tg-42_{number}", *STEPS)
    at = mount().path

    def told() -> dict[str, str]:
        return {
            name: subprocess.run(
                ["bash", "-c", f"set -o pipefail; {script}"],
                cwd=at,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout
            for name, script in TOOLS.items()
        }

    session = at / "crab_tg-42_1"
    before = told()
    held = os.open(session / ".epochs/1/history.jsonl", os.O_RDONLY)
    try:
        for number in range(1, 4):
            for path in (f"crab_tg-42_{number}/.epochs/2", f"crab_tg-42_{number}/.at/3"):
                assert b"three" in (at / path / "history.jsonl").read_bytes()
                assert b"three" in (at / path / "history.md").read_bytes()
        os.listdir(session / ".epochs")
        assert told() == before
        assert b"one" in os.pread(held, 100, 0)
    finally:
        os.close(held)


@pytest.mark.guarantee("G29e")
def test_very_many_names_of_the_past_leave_few_inodes(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", *[entry(f"line {n}") for n in range(200)])
    served = mount()
    at = served.path / session.slug / ".at"
    (served.path / session.slug / "history.jsonl").read_bytes()
    before = open_inodes(served)
    for number in range(1, 801):
        text = (at / str(number) / "history.jsonl").read_bytes()
        assert text.count(b"\n") == min(number, 200)
        (at / str(number) / "history.md").stat()
        (at / f"2026-01-01T00:00:00.{number:03}Z" / "messages.jsonl").stat()
    until(lambda: open_inodes(served) <= before + KEPT_DIRECTORIES + KEPT_FILES + 2)


@pytest.mark.guarantee("G29d", "G21a")
def test_who_may_not_read_a_session_may_not_read_its_past() -> None:
    with public_directory() as place:
        store = StoreOnDisk(place / "store")
        private = store.session("crab_tg-42_1", *STEPS)
        for path in (private.path, private.path / "meta"):
            own(path, ANA, 0o700 if path.is_dir() else 0o600)
        with mounted(store.path, place, "allow_other") as served:
            for name in (".epochs/1", ".at/1"):
                path = served.path / private.slug / name / "history.jsonl"
                assert ANA.run("cat", path).stdout == entry("one").decode() + "\n"
                refused = EVE.run("cat", path)
                assert "Permission denied" in refused.stderr
                assert "Permission denied" in EVE.run("ls", path.parent).stderr
                assert "Permission denied" in ANA.sh(f"echo x > {path}").stderr


@pytest.mark.guarantee("G13c", "G29b")
def test_a_follower_of_the_last_epoch_gets_what_is_appended(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    session = store.session("crab_tg-42_1", *STEPS)
    path = mount().path / session.slug / ".epochs/3/history.jsonl"
    out = tmp_path / "out"
    with out.open("wb") as output:
        tail = subprocess.Popen(["tail", "-s", "0.1", "-n", "+1", "-F", path], stdout=output)
        try:
            until(lambda: out.read_bytes() == entry("five") + b"\n")
            session.add(entry("six"))
            until(lambda: out.read_bytes().endswith(entry("six") + b"\n"))
        finally:
            tail.kill()
            tail.wait(10)


def test_a_shell_that_stands_in_the_past_stays_there(store: StoreOnDisk, mount: Mounts) -> None:
    session: SessionOnDisk = store.session("crab_tg-42_1", *STEPS)
    at = mount().path / session.slug / ".at/3"
    script = (
        "cat history.jsonl; pwd; cd ..; cd 1; cat history.jsonl; cat ../../.epochs/2/history.jsonl"
    )
    told = subprocess.run(
        ["bash", "-c", script], cwd=at, capture_output=True, text=True, check=True, timeout=30
    )
    three, one = (entry(said).decode() for said in ("three", "one"))
    assert told.stdout.splitlines() == [three, str(at), one, three]
