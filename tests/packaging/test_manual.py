"""The manual pages are well formed and cover the whole command line."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs import config as options
from fusefs.cli import main as cli
from fusefs.exits import Exit

PROJECT = Path(__file__).resolve().parents[2]
PAGES = ("stepfs.1", "stepfs.5", "mount.stepfs.8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, str(PROJECT / "systemd/man/build.py"), str(directory)], check=True
    )
    return directory


def shown(page: Path) -> str:
    """The page as man(1) shows it, without line breaks."""
    done = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--no-hyphenation", "-l", page],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "1000", "MANPAGER": "cat"},
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_the_pages_are_these(pages: Path) -> None:
    assert {path.name for path in pages.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_neither_formatter_warns(pages: Path, name: str) -> None:
    lint = ["mandoc", "-T", "lint", "-W", "warning", str(pages / name)]
    done = subprocess.run(lint, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "stepfs 0.1.0" in shown(pages / name)


def test_stepfs_1_has_every_command_and_flag(pages: Path) -> None:
    text = shown(pages / "stepfs.1")
    for command, parser in commands().items():
        assert re.search(rf"^ +{command} [A-Z ]+$", text, re.MULTILINE), command
        for flag in flags(parser):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{command} {flag}"


@pytest.mark.parametrize("name", ["stepfs.1", "mount.stepfs.8"])
def test_every_mount_option_is_explained(pages: Path, name: str) -> None:
    text = shown(pages / name)
    for option in {*options.SWITCHES, *options.VALUED} - {"rw"}:
        assert re.search(rf"^ +(\w+=\w+, )?{option}\b", text, re.MULTILINE), option


def test_every_exit_status_is_explained(pages: Path) -> None:
    _, _, text = shown(pages / "stepfs.1").partition("EXIT STATUS")
    for code in Exit:
        assert re.search(rf"^ +{int(code)}\b", text, re.MULTILINE), code


def commands() -> dict[str, argparse.ArgumentParser]:
    for action in cli.parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command line has no commands")


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {
        flag
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
        for flag in action.option_strings
    }
