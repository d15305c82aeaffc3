"""Every test here runs against the file system alone, a real mount, and a mount without events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.drivers import Driver, driving, within_time
from tests.support.far import NO_BINDFS
from tests.support.mounted import seconds_for
from tests.support.stores import StoreOnDisk


@pytest.fixture(scope="module", params=["tree", "mount", pytest.param("far", marks=NO_BINDFS)])
def kind(request: pytest.FixtureRequest) -> str:
    """What the test runs against."""
    return str(request.param)


@pytest.fixture(scope="module")
def served(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A store served with default options to all tests of a module; each test uses its own session."""
    directory = tmp_path_factory.mktemp(kind)
    with driving(kind, StoreOnDisk(directory / "store").path, directory) as driver:
        yield driver


@pytest.fixture
def driver(served: Driver, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The served store; after the test the log must hold exactly the expected messages."""
    with within_time(served, seconds_for(request)), served.checked():
        yield served


@pytest.fixture
def serve(
    kind: str, store: StoreOnDisk, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Driver]]:
    """Serves the test's own store when called, with -o options."""
    with ExitStack() as stack:

        def start(*words: str) -> Driver:
            driver = stack.enter_context(driving(kind, store.path, tmp_path, *words))
            stack.enter_context(within_time(driver, seconds_for(request)))
            stack.enter_context(driver.checked())
            return driver

        yield start
