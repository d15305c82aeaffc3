"""A search starts quickly: it loads modules only when it needs them."""

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
    """The modules that a command has loaded when it ends."""
    answer = run([sys.executable, "-c", LOADED, *map(str, arguments)])
    assert (answer.returncode, answer.stderr) == (0, "")
    return set(answer.stdout.split())


def test_a_search_without_a_match_loads_nothing_that_reads_steps(store: Path) -> None:
    assert not LATER & _loaded("search", "no such words", store)
    assert {"orjson", "storage.formats.kinds"} <= _loaded("search", "disk", store)


def test_pythons_warnings_about_a_pattern_are_not_shown(store: Path) -> None:
    answer = stepfs("search", "[[d]isk", store)
    assert (answer.returncode, answer.stderr) == (Exit.OK, "")
