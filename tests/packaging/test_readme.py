"""Every command that the README shows is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.commands import clear
from tests.support.readme import blocks

ELSEWHERE = {
    "make demo": ("make demo\n", "test_demo_session.py"),
    "make test": ("make test\n", "this very run"),
    "make install": ("make install", "test_installation.py and tests/container"),
    "pip install": ("pip install .\n", "test_distributions.py"),
    "container": ("systemctl enable --now stepfs@crab\n", "tests/container"),
    "container user": ("systemctl --user enable --now stepfs\n", "tests/container"),
}


def test_every_block_of_commands_says_where_it_is_run() -> None:
    assert set(blocks()) == {"session", *ELSEWHERE}
    for name, (command, _) in ELSEWHERE.items():
        assert command in blocks()[name]


def test_the_session_can_be_pasted(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-e"],
            input=blocks()["session"],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        clear(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1, said
    assert said[0].endswith("write error: Invalid argument")
    lines = done.stdout.splitlines()
    assert '{"message":{"role":"user","content":"hello"}}' in lines
    refused = lines.index("refused")
    assert lines[refused + 1].startswith("not JSON at byte")
    assert lines[refused + 2] == "0", "the history is not empty after the compaction"
