"""A store that takes 20 ms for each call, inside the fixture `slowfs.sh` (G27)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shared.two_hosts import Host, both_hosts, until, user
from tests.support.stores import META, entry

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(300),
]
SHORT, LONG = "crab_tg-42_1", "crab_tg-42_2"
LONG_STEPS = 5000
ROUNDS = 9
CALL_SECONDS = 0.02


@contextmanager
def slow() -> Iterator[None]:
    """Each call of host a takes 20 ms."""
    subprocess.run(["delay-a", "20"], check=True, timeout=5)
    try:
        yield
    finally:
        subprocess.run(["delay-a", "0"], check=True, timeout=5)


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def made(host: Host, slug: str, steps: int) -> Path:
    session = host.store / slug
    session.mkdir()
    (session / "meta").write_text(json.dumps(META))
    for number in range(1, steps + 1):
        (session / f"step-{number:06}").write_bytes(entry("text"))
    return session


@pytest.mark.guarantee("G27a", "G25d")
def test_a_slow_store_costs_what_its_calls_cost_and_reading_far_less() -> None:
    a = both_hosts("slow")[0]
    made(a, SHORT, 2)
    long = made(a, LONG, LONG_STEPS)
    with a.mounted():
        for slug in (SHORT, LONG):
            a.write(slug, [user("the session is known from here on")])
        until((a.path / SHORT).is_dir)
        with slow():
            bare = [seconds(lambda n=n: stored_barely(long, n)) for n in range(ROUNDS)]  # type: ignore[misc]
            append: dict[str, list[float]] = {SHORT: [], LONG: []}
            for _ in bare:  # alternating, so that other load affects both alike
                for slug, took in append.items():
                    took.append(seconds(lambda slug=slug: a.write(slug, [user("line")])))  # type: ignore[misc]
            lines = [user(f"of many {number}") for number in range(16)]
            together = seconds(lambda: write_at_once(a, lines))
            known = seconds((a.path / ".stepfs/status.json").read_bytes)
    costs = {slug: statistics.median(took) for slug, took in append.items()}
    barely = statistics.median(bare)
    print(f"figure: create and link p50 {1000 * barely:.0f} ms, append p50 {costs}")
    print(f"figure: 16 lines of one write {together:.2f} s; status.json {1000 * known:.0f} ms")
    assert costs[LONG] < 1.3 * costs[SHORT]
    assert costs[SHORT] < 2.2 * barely
    assert together < 16 * 0.75 * costs[SHORT]
    assert known < 0.5
    with a.mounted(), slow():
        cold = seconds((a.path / LONG / "history.jsonl").read_bytes)
        steps = [long / f"step-{number:06}" for number in range(1, 20)]
        one = statistics.median(seconds(step.read_bytes) for step in steps)
    print(
        f"figure: cold open of {LONG_STEPS} steps {cold:.1f} s, one after the other {one:.2f} s each"
    )
    assert cold < one * LONG_STEPS / 10


@pytest.mark.guarantee("G24a", "G12c")
def test_opening_a_known_history_stats_its_steps_many_at_a_time() -> None:
    a, b = both_hosts("known")
    made(a, LONG, LONG_STEPS)
    history = a.path / LONG / "history.jsonl"
    with a.mounted():
        assert len(history.read_bytes().splitlines()) == LONG_STEPS
        with slow():
            warm = statistics.median(seconds(history.read_bytes) for _ in range(ROUNDS))
            (b.store / LONG / f"step-{LONG_STEPS + 1:06}").write_bytes(entry("of the other host"))
            assert len(history.read_bytes().splitlines()) == LONG_STEPS + 1
            (b.store / LONG / "step-000003").write_bytes(entry("edited there"))
            assert b"edited there" in history.read_bytes()
    print(f"figure: warm open of {LONG_STEPS} steps {warm:.2f} s")
    assert warm < CALL_SECONDS * LONG_STEPS / 20


def stored_barely(session: Path, number: int) -> None:
    temporary = session / f".bare{number}.tmp"
    temporary.write_bytes(entry("text"))
    os.link(temporary, session / f"bare{number}")


def write_at_once(host: Host, lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    assert (host.path / SHORT / "append").write_bytes(data) == len(data)
