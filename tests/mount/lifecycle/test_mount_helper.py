"""The mount helper, run as mount(8) and fstab run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import HELPER, PROJECT, SECONDS, mount_stepfs, run, stepfs

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)


def test_the_mount_helper_exits_when_the_mount_is_live(store: Path, mountpoint: Path) -> None:
    """As libmount runs it: no HOME, the default PATH."""
    bare = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [
            *HELPER,
            store,
            mountpoint,
            "-n",
            "-v",
            "-o",
            "rw,nofail,user,x-systemd.automount,_netdev",
        ],
        env=bare,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(mountpoint)
    again = mount_stepfs(store, mountpoint, "-o", "rw")
    assert again.returncode == 32
    assert "already mounted" in again.stderr


def test_mount_fuse_is_understood(store: Path, mountpoint: Path) -> None:
    assert stepfs(store, mountpoint, "-o", "rw,dev,suid").returncode == 0
    assert os.listdir(mountpoint)


@pytest.mark.usefixtures("mountpoint")
def test_mount_finds_its_helper(tmp_path: Path, store: Path) -> None:
    """mount(8) searches only /sbin, so an overlay on it in a mount namespace holds the helper."""
    (tmp_path / "sbin").mkdir()
    helper = tmp_path / "sbin" / "mount.fuse.stepfs"
    helper.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n{HELPER[2]}\n"
    )
    helper.chmod(0o755)
    script = (
        'set -e; mount -t overlay overlay -o lowerdir="$1/sbin:/sbin" "$(readlink -f /sbin)"; '
        'mount -t fuse.stepfs "$1/store" "$1/mnt" -o nofail,cache=1M,ro; ls "$1/mnt"; '
        'findmnt -n -o FSTYPE,SOURCE "$1/mnt"; umount "$1/mnt"; ! findmnt "$1/mnt"'
    )
    done = run(["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path)])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"fuse.stepfs {store}" in done.stdout
