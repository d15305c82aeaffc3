"""Every command in the README is run, and the session that it shows is the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs import config as options
from tests.support.commands import clear
from tests.support.readme import README, blocks

BIN = Path(sys.executable).parent
ELSEWHERE = {
    "make demo": ("make demo\n", "test_demo_session.py"),
    "make test": ("make test\n", "this very run"),
    "make install": ("make install", "test_installation.py and tests/container"),
    "pip install": ("pip install .", "test_distributions.py"),
    "deb": ("make deb\n", "tests/container/test_deb.py"),
    "wheelhouse": ("make wheelhouse\n", "test_wheelhouse.py"),
    "beside a container": ("rslave", "tests/container/test_beside_a_container.py"),
    "container": ("systemctl enable --now stepfs@crab\n", "tests/container"),
    "container user": ("systemctl --user enable --now stepfs\n", "tests/container"),
}


def bash(script: str, directory: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run a script that mounts below `directory`; unmount whatever it leaves."""
    try:
        return subprocess.run(
            ["bash", "-e"],
            input=script,
            cwd=directory,
            env={**os.environ, **changed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        clear(directory)


def test_every_block_of_commands_says_where_it_is_run() -> None:
    assert set(blocks()) == {"session", "own store", *ELSEWHERE}
    for name, (command, _) in ELSEWHERE.items():
        assert command in blocks()[name]


def test_the_session_can_be_pasted(tmp_path: Path) -> None:
    """As after `make demo`: the command is in the environment beside it, not on the PATH."""
    (tmp_path / ".venv").symlink_to(BIN.parent)
    elsewhere = [path for path in os.environ["PATH"].split(":") if path != str(BIN)]
    done = bash(blocks()["session"], tmp_path, PATH=":".join(elsewhere))
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1, said
    assert said[0].endswith("write error: Invalid argument")
    lines = done.stdout.splitlines()
    assert '{"message":{"role":"user","content":"hello"}}' in lines
    refused = lines.index("refused")
    assert "not JSON at byte" in lines[refused + 1]
    compacted = lines.index("0")  # the history is empty, and the summary precedes this line
    assert json.loads(lines[compacted - 1])["content"].startswith("The journal filled the disk")


def test_ones_own_store_is_mounted_where_the_readme_says(tmp_path: Path) -> None:
    script = "stepfs demo ~/.crabtalk/sessions\n" + blocks()["own store"] + "ls ~/sessions\n"
    path = f"{BIN}:{os.environ['PATH']}"
    done = bash(script + "stepfs umount ~/sessions\n", tmp_path, PATH=path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "crab_tg-42_1" in done.stdout.splitlines()


def test_what_it_shows_before_and_after_is_real_output(tmp_path: Path) -> None:
    script = "stepfs demo store; mkdir mnt; stepfs mount store mnt;" + (
        "ls store/crab_tg-42_1; echo ======; cat mnt/crab_tg-42_1/history.md; stepfs umount mnt"
    )
    done = bash(script, tmp_path, PATH=f"{BIN}:{os.environ['PATH']}")
    before, _, after = done.stdout.partition("======\n")
    for name, whole in (("before", before), ("after", after)):
        (shown,) = re.findall(rf"<!-- {name} -->\n```\n(.*?)```", README.read_text(), re.DOTALL)
        assert shown in whole, whole[:1000]


def test_the_picture_is_up_to_date(tmp_path: Path) -> None:
    """Drawn again, it must show the same text; `make picture` updates it."""
    record = README.parent / "docs/record.py"
    path = f"{BIN}:{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, record, tmp_path / "now.svg"], check=True, env={**os.environ, "PATH": path}
    )
    assert shown_by(tmp_path / "now.svg") == shown_by(README.parent / "docs/session.svg")


def shown_by(picture: Path) -> list[str]:
    return re.findall(r"<text [^>]*>(.*?)</text>", picture.read_text())


def test_every_mount_option_is_in_the_table() -> None:
    rows = "\n".join(re.findall(r"^\| (`.*?) \|", README.read_text(), re.MULTILINE))
    for option in {*options.SWITCHES, *options.VALUED} - {"rw"}:
        assert re.search(rf"`{option}[=`]", rows), option


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)\)", README.read_text()))
def test_no_link_leads_nowhere(link: str) -> None:
    assert (README.parent / link).exists()


@pytest.mark.parametrize(
    "path", re.findall(r"`((?:storage|fusefs|tests|systemd)/[\w./-]+\.\w+)`", README.read_text())
)
def test_every_file_that_it_names_is_there(path: str) -> None:
    assert (README.parent / path).exists()
