"""A daemon counts steps in memory and renames over existing ones: no appended step is lost."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier

import pytest
from inotify_simple import INotify, flags

from tests.support import daemon, writers
from tests.support.commands import until
from tests.support.daemon import Daemon
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

Mounting = Callable[..., Mount]
DISPLACED = "compaction-displaced"
LINES_A_WRITE = (1, 6)
SETTLED = 10.0
"""Seconds within which the last displaced steps are stored again."""


def _append(mount: Mount, session: SessionOnDisk, *texts: str) -> None:
    lines = b"".join(entry(text) + b"\n" for text in texts)
    (mount.path / session.slug / "append").write_bytes(lines)


def _compact(mount: Mount, session: SessionOnDisk, name: str) -> None:
    (mount.path / session.slug / "compact").write_text(f"{name}\n")


def _contents(session: SessionOnDisk) -> list[str]:
    """The contents of all entries; a step may be moved away between the listing and the read."""
    while True:
        try:
            return writers.contents(session.steps())
        except FileNotFoundError:
            continue


def _archives(session: SessionOnDisk) -> Counter[str]:
    values = map(json.loads, session.steps())
    return Counter(value["archive_name"] for value in values if "archive_name" in value)


def _lost_compactions(mount: Mount) -> list[str]:
    errors = map(json.loads, mount.errors())
    return [error["error"] for error in errors if error["code"] == DISPLACED]


@pytest.mark.guarantee("G16a")
def test_displaced_messages_are_stored_again_in_their_order_out_of_the_daemons_reach(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount()
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    _append(at, session, "mine 0", "mine 1", "mine 2")
    for number in (1, 2):
        reference.store_step(session.slug, entry(f"daemon {number}"))
    mine = ["mine 0", "mine 1", "mine 2"]
    until(lambda: writers.of("mine", _contents(session)) == mine, SETTLED)
    until(lambda: max(session.numbers()) >= 1003, SETTLED)
    assert len(_contents(session)) == 7
    assert writers.of("daemon", _contents(session)) == ["daemon 0", "daemon 1", "daemon 2"]
    assert session.numbers()[:4] == [1, 2, 3, 4]
    assert session.numbers()[-1] > 1000
    history = (at.path / session.slug / "history.jsonl").read_bytes()
    assert history == b"".join(step + b"\n" for step in session.steps())


@pytest.mark.guarantee("G16a")
def test_close_to_six_digits_a_displaced_step_takes_the_next_free_number(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    session.put(998_500, entry("high"))
    at = mount()
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    _append(at, session, "mine 0")
    reference.store_step(session.slug, entry("daemon 1"))
    until(lambda: "mine 0" in _contents(session), SETTLED)
    assert session.numbers() == [998_500, 998_501, 998_502, 998_503]


@pytest.mark.guarantee("G16b")
def test_a_displaced_compaction_is_reported_and_not_stored_again(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount()
    at.expected.append("is not stored again")
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    _compact(at, session, "mine")
    reference.store_step(session.slug, entry("daemon 1"))
    until(lambda: len(_lost_compactions(at)) == 1, SETTLED)
    assert "mine" in _lost_compactions(at)[0]
    assert _contents(session) == ["first", "daemon 0", "daemon 1"]
    history = (at.path / session.slug / "history.jsonl").read_bytes()
    assert history == b"".join(step + b"\n" for step in session.steps())


@pytest.mark.guarantee("G16c")
def test_an_edit_by_other_means_is_respected(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session()
    at = mount()
    _append(at, session, *(f"secret {number}" for number in range(5)))
    _, in_place, removed, moved, kept = (session.path / f"step-{n:06}" for n in range(1, 6))
    subprocess.run(["sed", "-i", "s/secret 0/redacted/", session.path / "step-000001"], check=True)
    in_place.write_bytes(entry("redacted"))
    removed.unlink()
    (session.path / "draft").write_bytes(entry("redacted"))
    (session.path / "draft").rename(moved)
    # Displace one step, so that a restore is certain to run.
    (session.path / "step-000005.tmp.1").write_bytes(entry("daemon"))
    (session.path / "step-000005.tmp.1").rename(kept)
    until(lambda: "secret 4" in _contents(session), SETTLED)
    _append(at, session, "last")
    assert _contents(session) == [*["redacted"] * 3, "daemon", "secret 4", "last"]


@pytest.mark.guarantee("G16c")
def test_a_redaction_of_a_restored_message_is_respected(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    _append(at, session, "secret 0", "secret 1")
    reference.store_step(session.slug, entry("daemon 1"))
    until(lambda: sorted(_contents(session))[-2:] == ["secret 0", "secret 1"], SETTLED)
    until(lambda: min(n for n in session.numbers() if n > 2) > 1000, SETTLED)
    high = [session.path / f"step-{n:06}" for n in session.numbers() if n > 1000]
    subprocess.run(["sed", "-i", "s/secret ./redacted/", *high], check=True)
    for number in range(2, 6):
        reference.store_step(session.slug, entry(f"daemon {number}"))
    _append(at, session, "last")
    assert "secret" not in "".join(_contents(session))
    assert Counter(_contents(session))["redacted"] == 2


@pytest.mark.guarantee("G16c")
def test_only_the_mount_that_wrote_a_step_restores_it(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session()
    one, other = mount(name="one"), mount(name="other")
    reference = Daemon(store.path)
    reference.store_step(session.slug, entry("daemon 0"))
    for round_ in range(10):
        _append(one, session, f"one {round_}")
        _append(other, session, f"other {round_}")
        reference.store_step(session.slug, entry(f"daemon {2 * round_ + 1}"))
        reference.store_step(session.slug, entry(f"daemon {2 * round_ + 2}"))
    until(lambda: len(_contents(session)) >= 41, SETTLED)
    _append(one, session, "last 0")
    found = Counter(_contents(session))
    assert set(found.values()) == {1}
    assert len(found) == 42


def _everybody_at_once(
    store: StoreOnDisk, mount: Mounting, sessions: int, count: int, every: int
) -> None:
    """Two mounts and a daemon write to the same sessions, and all of them compact."""
    mounts = [mount(name="one"), mount(name="other")]
    for at in mounts:
        at.expected.append("is not stored again")
    made = [store.session(f"crab_tg-42_{number}") for number in range(1, sessions + 1)]
    running: list[subprocess.Popen[bytes]] = []
    for session in made:
        running.append(daemon.start(store.path, session.slug, "daemon", count, every))
        for at in mounts:
            append, by = at.path / session.slug / "append", at.path.name
            running += [
                writers.start("mount", append, f"{by}-{n}", count, n) for n in LINES_A_WRITE
            ]
    compactions: list[set[str]] = [set(), set()]
    round_ = 0
    while any(process.poll() is None for process in running):
        for at, names in zip(mounts, compactions, strict=True):
            name = f"{at.path.name}-archive-{round_}"
            _compact(at, made[round_ % sessions], name)
            names.add(name)
        round_ += 1
    writers.finish(running)
    names_of_all = [
        "daemon",
        *(f"{at.path.name}-{lines}" for at in mounts for lines in LINES_A_WRITE),
    ]
    for session in made:
        _all_there_once(session, names_of_all, count)
    _compactions_there_or_told(made, mounts, compactions)
    _daemons_compactions_there(made, count, every)


def _all_there_once(session: SessionOnDisk, names: list[str], count: int) -> None:
    wanted = {name: writers.texts(name, count) for name in names}

    def written() -> dict[str, list[str]]:
        found = _contents(session)
        return {name: writers.of(name, found) for name in names}

    with suppress(AssertionError):  # what is missing is shown below
        until(lambda: written() == wanted, SETTLED)  # the order comes after the steps themselves
    found = _contents(session)
    assert len(set(found)) == len(names) * count
    twice = {text: times for text, times in Counter(found).items() if times > 1}
    assert twice == {}
    for name in names:
        assert writers.of(name, found) == wanted[name]


def _compactions_there_or_told(
    made: list[SessionOnDisk], mounts: list[Mount], compactions: list[set[str]]
) -> None:
    there: Counter[str] = Counter()
    for session in made:
        there += _archives(session)
    for at, names in zip(mounts, compactions, strict=True):
        told = _lost_compactions(at)
        for name in names:
            assert there[name] + sum(f"'{name}'" in sentence for sentence in told) == 1


def _daemons_compactions_there(made: list[SessionOnDisk], count: int, every: int) -> None:
    wanted = {daemon.archive("daemon", n) for n in range(every, count, every)}
    for session in made:
        found = _archives(session)
        assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, 1)


@pytest.mark.guarantee("G16a", "G16b", "G16c")
def test_nothing_is_lost_when_everybody_writes_at_once(store: StoreOnDisk, mount: Mounting) -> None:
    _everybody_at_once(store, mount, sessions=2, count=150, every=40)


@pytest.mark.soak
@pytest.mark.guarantee("G16a")
def test_nothing_is_lost_when_everybody_writes_for_long(
    store: StoreOnDisk, mount: Mounting
) -> None:
    _everybody_at_once(store, mount, sessions=3, count=1500, every=200)


def _daemon_was_last(watching: INotify) -> bool:
    """Whether the daemon was the last to replace the meta."""
    sources = dict[int, str]()
    last = False
    for event in watching.read(timeout=0):
        if event.mask & flags.MOVED_FROM:
            sources[event.cookie] = event.name
        elif event.name == "meta":
            last = sources.get(event.cookie, "").startswith("meta.tmp.")
    return last


def _both_write_the_meta(
    session: SessionOnDisk, write: Callable[[int], object], rounds: int
) -> tuple[int, int, int]:
    """Run `write` and the daemon at the same time, `rounds` times.

    Returns in how many rounds the daemon's change was lost, in how many that of `write` was lost
    although it came last, and in how many the daemon was not last.
    """
    reference = Daemon(session.path.parent)
    lost_daemon = lost_mount = mount_last = 0
    chance, took = random.Random(7), 0.002
    with ThreadPoolExecutor(1) as pool, INotify(nonblocking=True) as watching:
        watching.add_watch(str(session.path), flags.MOVED_TO | flags.MOVED_FROM)
        for number in range(rounds):
            start, delay = Barrier(2), chance.uniform(0, 2 * took)

            def daemon_writes(
                start: Barrier = start, delay: float = delay, number: int = number
            ) -> None:
                start.wait()
                time.sleep(delay)
                reference.store_meta(session.slug, title=f"title {number}")

            writing = pool.submit(daemon_writes)
            start.wait()
            began = time.monotonic()
            write(number)
            took = time.monotonic() - began  # so that they meet on a machine of any speed
            writing.result()
            found = session.meta()
            lost_daemon += found["title"] != f"title {number}"
            if not _daemon_was_last(watching):
                mount_last += 1
                lost_mount += found.get("mine") != number
    return lost_daemon, lost_mount, mount_last


@pytest.mark.guarantee("G10c")
def test_neither_a_daemon_nor_the_mount_loses_a_change_of_the_meta(
    store: StoreOnDisk, mount: Mounting, record_property: Callable[[str, object], None]
) -> None:
    session = store.session()
    path = mount().path / session.slug / "meta.json"

    def patch(number: int) -> None:
        path.write_text(json.dumps({"mine": number}))

    lost_daemon, lost_mount, mount_last = _both_write_the_meta(session, patch, 300)
    record_property("mount was last", mount_last)
    assert (lost_daemon, lost_mount) == (0, 0)
    assert 30 <= mount_last <= 270, "the two never met"


def _is_titled(session: SessionOnDisk, title: str) -> bool:
    return session.meta()["title"] == title


@pytest.mark.guarantee("G9a", "G9b", "G10c")
def test_counting_messages_undoes_no_change_of_a_daemon(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount()
    reference = Daemon(store.path)
    seen = 0
    for number in range(40):
        _append(at, session, f"mine {number}")
        for _ in range(20):
            seen += 1
            reference.store_meta(session.slug, title=f"title {seen}", message_count=0)
            # The mount may have written an older title until it notices what it replaced.
            until(partial(_is_titled, session, f"title {seen}"), SETTLED)
    _append(at, session, "last 0")
    until(lambda: session.meta()["message_count"] != 0, SETTLED)
    assert session.meta()["title"] == f"title {seen}"
    assert session.meta()["message_count"] in range(1, 42)


@pytest.mark.soak
@pytest.mark.guarantee("G10c")
def test_no_change_of_the_meta_is_lost_in_the_long_run(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session()
    path = mount().path / session.slug / "meta.json"
    lost = _both_write_the_meta(session, lambda n: path.write_text(f'{{"mine":{n}}}'), 20_000)
    assert lost[:2] == (0, 0)
    assert lost[2] in range(2000, 18_000), "the two never met"
