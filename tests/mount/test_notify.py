"""Hints between hosts over a real Redis: they save time, and nothing depends on them (G28)."""

from __future__ import annotations

import json
import os
import select
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fusefs.coherence.hints import CHANNEL, FLOOD_MESSAGES
from tests.support.commands import STEPFS, run, until
from tests.support.far import NO_BINDFS, bound
from tests.support.looking import all_shown, line, opened
from tests.support.model import HISTORY
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.redis import NO_REDIS, Redis
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

pytestmark = [
    NO_BINDFS,
    NO_REDIS,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
    ),
]
Mounts = Callable[..., Mount]
TENS_OF_MILLISECONDS = 0.05
SELDOM_LOOKED_MS = 4000
"""After this much quiet, the mount polls every 0.4 s without hints."""
EXPECTED = ("hints are exchanged", "no hints from")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def near(mount: Mounts, redis: Redis) -> Mount:
    """A mount on the host that holds the store locally."""
    served = mount(f"notify={redis.url}", name="near")
    served.expected += EXPECTED
    return served


@pytest.fixture
def far(store: StoreOnDisk, near: Mount, tmp_path: Path, redis: Redis) -> Iterator[Mount]:
    """A mount on another host, where no events report the first one's changes."""
    with ExitStack() as stack:
        stack.enter_context(time_limit(tmp_path))
        stack.enter_context(bound(store.path, tmp_path / "bound"))
        served = stack.enter_context(
            mounted(tmp_path / "bound", tmp_path, f"notify={redis.url}", "sync=never", name="far")
        )
        served.expected += EXPECTED
        until(lambda: state(near) == state(served) == "connected")
        yield served


def hints(served: Mount) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((served.path / ".stepfs/status.json").read_bytes())["notify"]
    return found


def state(served: Mount) -> str:
    return str(hints(served)["state"])


def seconds_until(true: Callable[[], bool], at_most: float) -> float:
    began = time.monotonic()
    until(true, at_most)
    return time.monotonic() - began


@pytest.mark.guarantee("G28b")
def test_another_hosts_step_wakes_a_waiter_within_tens_of_milliseconds(
    store: StoreOnDisk, near: Mount, far: Mount
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    lags = []
    with opened(far.path / session.slug / HISTORY) as fd:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        for number in range(5):
            assert poller.poll(SELDOM_LOOKED_MS) == []
            (near.path / session.slug / "append").write_bytes(line(f"{number}"))
            began = time.monotonic()
            assert poller.poll(2000)
            lags.append(time.monotonic() - began)
    assert statistics.median(lags) < TENS_OF_MILLISECONDS, sorted(lags)
    all_shown(far.path / session.slug, SessionOnDisk(session.path))
    assert hints(near)["sent"] > 0 == hints(near)["received"]


@pytest.mark.guarantee("G28b", "G20b")
def test_a_deletion_is_hinted_too(store: StoreOnDisk, near: Mount, far: Mount) -> None:
    slug = store.session("crab_tg-42_1", entry("one")).slug
    history = far.path / slug / HISTORY
    with opened(history) as fd:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        poller.poll(20)
        (near.path / slug).rmdir()
        began = time.monotonic()
        assert poller.poll(2000)
        assert time.monotonic() - began < 0.5
    with pytest.raises(FileNotFoundError):
        history.stat()


@pytest.mark.guarantee("G28b", "G28a")
def test_a_redis_that_is_silent_or_down_delays_nothing(
    store: StoreOnDisk, near: Mount, far: Mount, redis: Redis
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = far.path / session.slug / HISTORY
    size = history.stat().st_size

    def appended(text: str) -> None:
        nonlocal size
        began = time.monotonic()
        (near.path / session.slug / "append").write_bytes(line(text))
        assert time.monotonic() - began < 0.5
        size += len(line(text))
        assert seconds_until(lambda: history.stat().st_size == size, 5) < 1.2

    with redis.silent():
        for number in range(5):
            appended(f"silent {number}")
        until(lambda: state(near) == state(far) == "waiting for Redis", 15)
        assert hints(near)["error"]
    until(lambda: state(near) == state(far) == "connected", 15)
    redis.stop()
    until(lambda: state(near) == state(far) == "waiting for Redis", 15)
    appended("down")
    redis.start()
    until(lambda: state(near) == state(far) == "connected", 15)
    appended("up again")


@pytest.mark.guarantee("G28b")
def test_forged_malformed_and_too_many_messages_cost_time_at_most(
    store: StoreOnDisk, near: Mount, far: Mount, redis: Redis
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    all_shown(far.path / session.slug, session)
    forged = [
        b"01234567\0" + name for name in (session.slug.encode(), b"../../etc", b"no-such_one_1")
    ]
    redis.publish(CHANNEL, [*forged, b"", b"\xff" * 100_000, b"01234567", b"x\0y"] * 10)
    until(lambda: hints(far)["ignored"] >= 40)
    session.add(entry("two"))
    all_shown(far.path / session.slug, session)
    redis.publish(CHANNEL, forged * FLOOD_MESSAGES)
    until(lambda: state(far).startswith("too many messages"))
    session.add(entry("three"))
    all_shown(far.path / session.slug, session)
    assert far.errors() == near.errors() == []


def test_without_the_client_the_mount_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store, mountpoint = StoreOnDisk(tmp_path / "store").path, tmp_path / "mnt"
    mountpoint.mkdir()
    python, flag, code = STEPFS
    without = f"import sys; sys.modules['coredis'] = None; {code}"
    words = ["mount", "-o", "notify=redis://127.0.0.1", str(store), str(mountpoint)]
    done = run([python, flag, without, *words])
    assert done.returncode == 4
    assert "pip install 'stepfs[redis]'" in done.stderr
