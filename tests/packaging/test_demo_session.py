"""`make demo` shows the main job and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "demo.sh"


def demo(directory: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path, "TMPDIR": str(directory)}
    return subprocess.run([DEMO], env=environment, text=True, capture_output=True)


@pytest.fixture
def path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_the_demo_appends_compacts_and_leaves_nothing(tmp_path: Path, path: str) -> None:
    done = demo(tmp_path, path)
    assert (done.returncode, done.stderr) == (0, "")
    _, _, appended = done.stdout.partition("tail -n 1 sessions/crab_tg-42_1/history.jsonl\n")
    message = '{"message":{"role":"user","content":"And now from the shell."}}'
    assert appended.splitlines()[0] == message
    assert message in appended.partition("$ cat ")[2]
    _, _, compacted = done.stdout.partition("/compact\n$ cat ")
    assert compacted.splitlines()[1] == "tuesday"
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_demo_that_fails_half_way_leaves_nothing(tmp_path: Path, path: str) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "tail").symlink_to("/bin/false")
    place = tmp_path / "place"
    place.mkdir()
    assert demo(place, f"{broken}:{path}").returncode != 0
    assert list(place.iterdir()) == []
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
