"""The CI configuration runs existing targets, on every supported Python."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WORKFLOW = (PROJECT / ".github/workflows/ci.yml").read_text()
HOOKS = (PROJECT / ".pre-commit-config.yaml").read_text()
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def test_every_target_that_is_made_exists() -> None:
    targets = re.findall(r"\bmake ((?:[a-z-]+ ?)+)", WORKFLOW)
    assert targets
    for target in " ".join(targets).split():
        done = subprocess.run(["make", "-n", "-C", PROJECT, target], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (PROJECT / ".ci/run").exists()


def test_each_supported_python_is_tested() -> None:
    (versions,) = re.findall(r"python: \[(.*)\]", WORKFLOW)
    tested = re.findall(r"[\d.]+", versions)
    assert ABOUT["requires-python"] == f">={tested[0]}"
    assert [f"Programming Language :: Python :: {version}" for version in tested] == [
        text for text in ABOUT["classifiers"] if re.search(r":: 3\.\d+$", text)
    ]


@pytest.mark.parametrize("tool", ["ruff check", "ruff format", "mypy", "tests.support.clauses"])
def test_a_commit_is_checked_locally_as_in_ci(tool: str) -> None:
    assert tool in HOOKS
