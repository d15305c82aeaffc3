"""Fixtures for the tests of storage: an open store, and an open session directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import Store


@pytest.fixture
def opened_store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, open."""
    (tmp_path / "store").mkdir()
    opened = Store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def root(opened_store: Store) -> Path:
    """The path of the open store."""
    return Path(opened_store.path)


@pytest.fixture
def session_fd(session: Path) -> Iterator[int]:
    """A descriptor of the directory of the module's `session` fixture."""
    descriptor = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)
