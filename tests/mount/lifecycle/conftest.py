"""A sample store and a mountpoint for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import clear, serving, stepfs, until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    assert stepfs("demo", tmp_path / "store").returncode == 0
    return tmp_path / "store"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    clear(tmp_path)
    until(lambda: not serving(tmp_path))
