"""`stepfs status`: the state of one mount, for people and programs, and the list of mounts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fusefs import mounts as mountinfo
from tests.support.commands import mounted, server_pid, stepfs, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)


def test_the_status_is_told_for_people(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    answer = stepfs("status", mountpoint)
    assert answer.returncode == 0
    assert f" {server_pid(mountpoint)}\n" in answer.stdout
    assert "{" not in answer.stdout


def test_without_a_mountpoint_the_status_lists_all_mounts_and_what_to_do_about_dead_ones(
    store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    odd = store.rename(tmp_path / "100%25, ümlaut")
    mounted(odd, mountpoint)
    wanted = {"mountpoint": str(mountpoint), "store": str(odd), "state": "alive"}
    assert wanted in [json.loads(line) for line in stepfs("status", "--json").stdout.splitlines()]
    os.kill(server_pid(mountpoint), signal.SIGKILL)
    until(lambda: mountinfo.health(str(mountpoint)) is mountinfo.Health.DEAD)
    answer = stepfs("status")
    assert answer.returncode == 0
    assert f"{mountpoint}\t{odd}\tdead" in answer.stdout.splitlines()
    assert f"clear the mount: stepfs umount {mountpoint}" in answer.stderr
