"""Fixtures for all tests, and the marker that ties a test to the clauses it pins."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.mounted import Mount, mounted, seconds_for, time_limit
from tests.support.stores import StoreOnDisk

CONNECTIONS = "/sys/fs/fuse/connections"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "guarantee(clause, …): the clauses of SEMANTICS.md that the test pins"
    )
    config.addinivalue_line("markers", "soak: the long form of a test, run by `make soak`")


# How slowly a machine generates examples says nothing about the project.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def connections() -> None:
    """Mount fusectl, through which connections are aborted; systemd would do so at boot."""
    if os.geteuid() == 0 and not os.path.ismount(CONNECTIONS):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", CONNECTIONS], check=False)


@pytest.fixture
def store(tmp_path: Path) -> StoreOnDisk:
    """An empty store."""
    return StoreOnDisk(tmp_path / "store")


@pytest.fixture
def mount(
    store: StoreOnDisk, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Mount]]:
    """Mounts the store when called, with -o options; each mount must end well."""
    with time_limit(tmp_path, seconds_for(request)), ExitStack() as stack:

        def start(
            *options: str,
            name: str = "mnt",
            check: bool = True,
            limits: Mapping[int, int] | None = None,
        ) -> Mount:
            return stack.enter_context(
                mounted(store.path, tmp_path, *options, name=name, check=check, limits=limits)
            )

        yield start
