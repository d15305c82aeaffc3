"""The two hosts of a fixture, with a store for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.shared.two_hosts import Host, both_hosts


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    """The store is mounted on both hosts."""
    pair = both_hosts(f"store{abs(hash(request.node.name)):x}")
    with ExitStack() as stack:
        for host in pair:
            stack.enter_context(host.mounted())
        yield pair
