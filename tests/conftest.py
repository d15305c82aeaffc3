"""Fixtures that every level shares, and the mark that ties a test to what it guarantees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mounted import Mount, mounted, time_limit
from tests.support.stores import StoreOnDisk


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "guarantee(clause, …): the clauses of SEMANTICS.md that the test pins"
    )
    config.addinivalue_line("markers", "soak: the long form of a test, run by `make soak`")


@pytest.fixture
def store(tmp_path: Path) -> StoreOnDisk:
    """An empty store."""
    return StoreOnDisk(tmp_path / "store")


@pytest.fixture
def mount(store: StoreOnDisk, tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """Mounts the store when called, with -o options; each mount must end well."""
    with time_limit(tmp_path), ExitStack() as stack:

        def start(*options: str, name: str = "mnt", check: bool = True) -> Mount:
            return stack.enter_context(
                mounted(store.path, tmp_path, *options, name=name, check=check)
            )

        yield start
