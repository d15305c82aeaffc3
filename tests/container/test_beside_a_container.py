"""The README's recipe: a container sees the mount through a bind mount.

The tests do by hand what container engines do for `--volume DIR:/agents:rslave`: a recursive bind
mount, in a separate mount namespace, that receives later mounts below the original.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import clear, stepfs, until
from tests.support.readme import blocks

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a mount namespace")

CONTAINER = """
mount --rbind --make-rslave "$1" "$2"
mount -o remount,bind,ro "$2"
cd "$2"
echo ready
while read -r command; do
    status=0
    setpriv --reuid 4242 --regid 4242 --clear-groups sh -c "$command" </dev/null 2>&1 || status=$?
    echo "= $status"
done
"""


class Container:
    """Runs commands as another user who sees only a bind mount of `outside`."""

    def __init__(self, outside: Path, inside: Path) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", CONTAINER, "container",
             outside, inside],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def sh(self, command: str) -> tuple[int, list[str]]:
        """The exit status and the lines of a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        lines = []
        while not (line := self._line()).startswith("= "):
            lines.append(line)
        return int(line[2:]), lines

    def end(self) -> None:
        """End the process, and its namespace with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with shared mount propagation, as on a host with systemd."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    shared = tmp_path / "agents"
    (shared / "sessions").mkdir(parents=True)
    (tmp_path / "inside").mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        yield tmp_path
    finally:
        clear(tmp_path)
        subprocess.run(["umount", "-l", shared], check=True)


def test_a_container_sees_the_mount_also_when_it_is_made_again(place: Path) -> None:
    assert stepfs("demo", place / "store").returncode == 0
    mountpoint = place / "agents/sessions"
    container = Container(place / "agents", place / "inside")
    for _ in range(2):
        made = stepfs("mount", "-o", "ro,allow_other", place / "store", mountpoint)
        assert made.returncode == 0, made.stderr
        status, lines = container.sh("cat sessions/crab_tg-42_1/history.jsonl")
        assert status == 0
        assert all(line.startswith('{"') for line in lines)
        assert len(lines) > 1
        assert container.sh("cat sessions/.stepfs/sessions.jsonl")[0] == 1
        assert stepfs("umount", mountpoint).returncode == 0
        until(lambda: container.sh("ls sessions") == (0, []))
    container.end()


def test_read_only_is_said_to_stepfs_and_not_to_the_bind_mount(place: Path) -> None:
    """A read-only bind mount does not cover what is mounted below it afterwards."""
    assert stepfs("demo", place / "store").returncode == 0
    for path in (place / "store").iterdir():
        path.chmod(0o777)
    container = Container(place / "agents", place / "inside")
    line = 'echo \'{"role":"user","content":"in"}\' >sessions/crab_tg-42_1/append'
    for option, status in (("ro", 2), ("rw", 0)):
        made = stepfs(
            "mount", "-o", f"{option},allow_other", place / "store", place / "agents/sessions"
        )
        assert made.returncode == 0, made.stderr
        assert container.sh(line)[0] == status
        assert stepfs("umount", place / "agents/sessions").returncode == 0
    container.end()


def test_the_readme_says_so() -> None:
    recipe = blocks()["beside a container"]
    assert "stepfs mount -o ro,allow_other" in recipe
    assert "/srv/agents:/agents:rslave" in recipe
