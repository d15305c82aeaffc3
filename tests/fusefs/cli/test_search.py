"""A search begins at once: it loads what it needs when it needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusefs.exits import Exit
from tests.support.commands import run, stepfs
from tests.support.stores import StoreOnDisk, entry

LOADED = """
import sys
from fusefs.cli.main import main
main(sys.argv[1:])
print(*sys.modules, sep="\\n")
"""
LATER = {"orjson", "dataclasses", "inspect", "rich", "concurrent.futures", "storage.formats.kinds"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = StoreOnDisk(tmp_path / "store")
    made.session("crab_x_1", entry("the disk is full"))
    return made.path


def _loaded(*arguments: str | Path) -> set[str]:
    """What a command has loaded at its end."""
    answer = run([sys.executable, "-c", LOADED, *map(str, arguments)])
    assert (answer.returncode, answer.stderr) == (0, "")
    return set(answer.stdout.split())


def test_a_search_without_a_find_loads_nothing_that_reads_steps(store: Path) -> None:
    assert not LATER & _loaded("search", "no such words", store)
    assert {"orjson", "storage.formats.kinds"} <= _loaded("search", "disk", store)


def test_python_says_nothing_about_a_pattern(store: Path) -> None:
    answer = stepfs("search", "[[d]isk", store)
    assert (answer.returncode, answer.stderr) == (Exit.OK, "")
