"""Tests of two hosts, run inside a fixture: `tests/shared/fixtures/gluster.sh python -m pytest …`."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import statistics
import time
from functools import partial
from pathlib import Path

import pytest

from tests.shared.two_hosts import Host, at_once, both_hosts, part, until, user
from tests.support.redis import Redis
from tests.support.stores import META, StoreOnDisk, entry

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(900),
]
SLUG = "crab_tg-42_1"


def figure(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[len(seconds) * percent // 100]


def figures(seconds: list[float]) -> str:
    return f"p50 {1000 * figure(seconds, 50):.1f} ms, p99 {1000 * figure(seconds, 99):.1f} ms"


def is_gone(path: Path) -> bool:
    return not path.exists()


def is_longer(path: Path, size: int) -> bool:
    return path.stat().st_size > size


def lines(writer: str, count: int) -> list[str]:
    return [user(f"{writer} {number}") for number in range(count)]


def assert_once_in_order(found: list[str], writers: dict[str, int]) -> None:
    for writer, count in writers.items():
        said = [text for text in found if text.rpartition(" ")[0] == writer]
        assert said == [f"{writer} {number}" for number in range(count)], writer
    assert len(found) == sum(writers.values())


@pytest.mark.guarantee("G25a")
def test_lines_of_eight_writers_land_once_and_in_order(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    count = part(100)
    writers = {f"{host.on} {n}": count for host in hosts for n in range(4)}
    at_once(
        *(
            partial(host.write, SLUG, lines(f"{host.on} {n}", count))
            for host in hosts
            for n in range(4)
        )
    )
    for host in hosts:
        assert_once_in_order(host.contents(SLUG), writers)
        assert host.errors() == []
    assert a.contents(SLUG) == b.contents(SLUG)


@pytest.mark.guarantee("G25a", "G12c")
def test_an_open_after_the_other_hosts_close_is_exact(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    for number in range(part(60)):
        writer, reader = hosts if number % 2 else (b, a)
        writer.write(SLUG, [user(f"line {number}")])
        assert reader.contents(SLUG)[-1] == f"line {number}"
        if number % 10 == 9:
            writer.write(SLUG, ["archive"], file="compact")
            assert reader.contents(SLUG) == []


@pytest.mark.guarantee("G12a", "G20b", "G25a")
def test_an_open_shows_every_step_while_another_host_renames_over_them(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    steps = [entry(f"{number}") for number in range(20)]
    session = StoreOnDisk(a.store).session(SLUG, *steps)
    until((b.path / SLUG).is_dir)

    def renames() -> None:
        for number in range(part(500)):
            session.put(1 + number % len(steps), entry(f"again {number}"))
            time.sleep(0.01)

    def opens() -> None:
        for _ in range(part(500)):
            assert len(b.contents(SLUG)) == len(steps)

    at_once(renames, opens)
    assert b.errors() == []


@pytest.mark.guarantee("G25a", "G11b")
def test_every_session_of_many_creators_is_its_own(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    count = part(250)

    def create(host: Host, out: Path) -> None:
        slugs = []
        for _ in range(count):
            with open(host.path / ".stepfs/create", "r+b", buffering=0) as control:
                control.write(b'{"agent":"Crab","created_by":"tg:42"}')
                slugs.append(control.read(100).decode().strip())
        out.write_text("\n".join(slugs))

    outs = [a.path.parent / f"made{n}" for n in range(4)]
    at_once(*(partial(create, host, out) for host, out in zip((a, a, b, b), outs, strict=True)))
    made = [slug for out in outs for slug in out.read_text().split()]
    assert sorted(made) == sorted(f"crab_tg-42_{n}" for n in range(1, 4 * count + 1))
    for host in hosts:
        assert sorted(os.listdir(host.path)) == sorted([".stepfs", *made])


@pytest.mark.guarantee("G25b", "G10c")
def test_no_change_of_a_meta_is_lost_or_refused(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    count = part(150)

    def patch(host: Host, writer: int) -> None:
        for number in range(count):
            (host.path / SLUG / "meta.json").write_text(f'{{"k{writer}.{number}":{number}}}')

    at_once(*(partial(patch, host, n) for n, host in enumerate((a, a, b, b))))
    for host in hosts:
        found = json.loads((host.path / SLUG / "meta.json").read_text())
        lost = [f"k{w}.{n}" for w in range(4) for n in range(count) if f"k{w}.{n}" not in found]
        assert lost == []
        assert host.errors() == []


@pytest.mark.guarantee("G25c", "G20b")
def test_nothing_is_acknowledged_into_a_session_that_another_host_deleted(
    hosts: tuple[Host, Host],
) -> None:
    for number in range(1, part(20)):
        slug = f"crab_tg-42_{number}"
        deleter, writer = hosts if number % 2 else hosts[::-1]
        (deleter.path / slug).mkdir()
        until((writer.path / slug).is_dir)
        writer.write(slug, [user("kept until it goes")])
        with open(writer.path / slug / "append", "ab", buffering=0) as control:
            (deleter.path / slug).rmdir()
            with pytest.raises(OSError) as refused:
                control.write(user("too late").encode() + b"\n")
        assert refused.value.errno == errno.ENOENT
        until(partial(is_gone, writer.path / slug), 5)


@pytest.mark.guarantee("G25a")
def test_daemons_on_both_hosts_and_mounts_share_a_store(hosts: tuple[Host, Host]) -> None:
    """Each daemon writes its own sessions, as the reference does, and the other host follows."""
    count = part(100)

    def daemon(host: Host, slug: str) -> None:
        session = host.store / slug
        session.mkdir()
        (session / "meta").write_text(json.dumps(META))
        for number in range(1, count + 1):
            temporary = session / f"step-{number:06}.tmp.1"
            temporary.write_bytes(entry(f"{slug} {number - 1}"))
            temporary.rename(session / f"step-{number:06}")

    slugs = ["crab_d-a_1", "crab_d-b_1"]
    at_once(*(partial(daemon, host, slug) for host, slug in zip(hosts, slugs, strict=True)))
    for host in hosts:
        for slug in slugs:
            until((host.path / slug).is_dir)
            assert_once_in_order(host.contents(slug), {slug: count})


@pytest.mark.guarantee("G12b")
def test_another_hosts_steps_are_seen_within_a_second_by_stat(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    lags = []
    for number in range(part(40)):
        size = (b.path / SLUG / "history.jsonl").stat().st_size
        a.write(SLUG, [user(f"line {number}")])
        lags.append(until(partial(is_longer, b.path / SLUG / "history.jsonl", size)))
    print(f"figure: lag of stat {figures(lags)}")
    assert max(lags) < 1.5


def lags_of_a_waiter(a: Host, b: Host, pauses: list[float]) -> list[float]:
    """How long after each append on a, after each of these pauses, a waiter on b is woken."""
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    fd = os.open(b.path / SLUG / "history.jsonl", os.O_RDONLY)
    poller, lags = select.poll(), []
    poller.register(fd, select.POLLPRI)
    try:
        for number, pause in enumerate(pauses):
            assert poller.poll(pause * 1000) == []
            a.write(SLUG, [user(f"line {number}")])
            began = time.monotonic()
            assert poller.poll(10_000)
            lags.append(time.monotonic() - began)
            assert b.contents(SLUG)[-1] == f"line {number}"
    finally:
        os.close(fd)
    return lags


@pytest.mark.guarantee("G28a")
def test_another_hosts_steps_wake_a_waiter_within_a_second(hosts: tuple[Host, Host]) -> None:
    pauses = [0.05, 0.3, 1.0, 0.1, 2.5] * (part(100) // 5 + 1)
    lags = lags_of_a_waiter(*hosts, pauses)
    print(f"figure: lag of POLLPRI {figures(lags)}")
    assert figure(lags, 99) < 1


@pytest.mark.guarantee("G28b")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_with_hints_they_wake_it_within_tens_of_milliseconds() -> None:
    a, b = both_hosts("hinted")
    redis = Redis(a.path.parent)
    redis.start()
    try:
        with a.mounted(f"notify={redis.url}"), b.mounted(f"notify={redis.url}"):
            for host in (a, b):
                until(partial(is_hinted, host))
            lags = lags_of_a_waiter(a, b, [0.05, 0.3, 1.0, 0.1] * (part(200) // 4 + 1))
            print(f"figure: lag of POLLPRI with hints {figures(lags)}")
            assert statistics.median(lags) < 0.05
    finally:
        redis.stop()


def is_hinted(host: Host) -> bool:
    found = host.status()["notify"]
    return isinstance(found, dict) and found["state"] == "connected"


def test_what_an_append_costs_beside_a_create_and_a_link(hosts: tuple[Host, Host]) -> None:
    a = hosts[0]
    (a.path / SLUG).mkdir()
    bare, appends = [], []
    for number in range(part(100)):
        temporary = a.store / SLUG / f".bare{number}.tmp"
        began = time.monotonic()
        temporary.write_bytes(entry("text"))
        os.link(temporary, a.store / SLUG / f"bare{number}")
        bare.append(time.monotonic() - began)
        began = time.monotonic()
        a.write(SLUG, [user(f"line {number}")])
        appends.append(time.monotonic() - began)
    print(f"figure: create and link {figures(bare)}; append, synced {figures(appends)}")
    assert len(a.contents(SLUG)) == part(100)


@pytest.mark.guarantee("G25d")
def test_an_append_costs_the_same_in_a_long_session(hosts: tuple[Host, Host]) -> None:
    a = hosts[0]
    cost = {}
    for slug, steps in (("crab_tg-42_1", 2), ("crab_tg-42_2", part(2000))):
        session = a.store / slug
        session.mkdir()
        (session / "meta").write_text(json.dumps(META))
        for number in range(1, steps + 1):
            (session / f"step-{number:06}").write_bytes(entry("text"))
        until((a.path / slug).is_dir)
        took = []
        for number in range(30):
            began = time.monotonic()
            a.write(slug, [user(f"line {number}")])
            took.append(time.monotonic() - began)
        cost[steps] = statistics.median(took)
    print({steps: f"{seconds * 1000:.1f} ms" for steps, seconds in cost.items()})
    short, long = cost.values()
    assert long < 2 * short + 0.005


def test_status_says_what_the_file_system_can_do(hosts: tuple[Host, Host]) -> None:
    found = hosts[0].status()["file_system"]
    assert isinstance(found, dict)
    assert found["exclusive_links"] and found["whole_files"] and found["locks"]
    assert not found["near"] and found["reason"]
    assert found["rename_exchange"] == (found["filesystem"] not in ("fuse.glusterfs", "nfs4"))
    print(found)
    for host in hosts:
        assert [name for name in os.listdir(host.store) if name.startswith(".probe")] == []


@pytest.mark.guarantee("G26b")
def test_check_finds_the_two_clients_sound() -> None:
    a, b = both_hosts("peers")
    done = a.stepfs("check", a.store, "--peer", b.store, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
