"""A host behind a network with a latency, inside the fixture `nfs.sh`: there, round trips count."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shared.two_hosts import both_hosts, part, user
from tests.support.stores import entry

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(300),
]
SLUG = "crab_tg-42_1"
ROUNDS = 20
LATENCY_MS = 20


@contextmanager
def latency() -> Iterator[None]:
    """What host a sends is delayed."""
    subprocess.run(["delay-a", str(LATENCY_MS)], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["delay-a", "0"], check=True, timeout=30)


@pytest.mark.guarantee("G25d")
def test_an_append_takes_at_most_twice_the_round_trips_of_a_create_and_a_link() -> None:
    a = both_hosts("latency")[0]
    bare, appends = [], []
    with a.mounted():
        (a.path / SLUG).mkdir()
        a.write(SLUG, [user("the session is known from here on")])
        with latency():
            for number in range(part(ROUNDS)):
                time.sleep(2)  # the count of messages is written meanwhile: nobody waits for it
                began = time.monotonic()
                stored_barely(a.store / SLUG, number)
                between = time.monotonic()
                a.write(SLUG, [user(f"line {number}")])
                bare.append(between - began)
                appends.append(time.monotonic() - between)
    barely, append = statistics.median(bare), statistics.median(appends)
    print(
        f"figure: with {LATENCY_MS} ms more for each request, create and link p50"
        f" {1000 * barely:.0f} ms, append p50 {1000 * append:.0f} ms"
    )
    assert append <= 2 * barely


def stored_barely(session: Path, number: int) -> None:
    temporary = session / f".bare{number}.tmp"
    temporary.write_bytes(entry("text"))
    os.link(temporary, session / f"bare{number}")
