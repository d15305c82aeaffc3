"""Many processes append to one session at once: every line lands exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from inotify_simple import INotify, flags

from tests.support import writers
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk

Mounting = Callable[..., Mount]
IN_THE_RUN = 200
IN_SOAK = 1000


def _names_linked(watching: INotify) -> Counter[str]:
    """How often each step's name was created; none may be moved, replaced or removed."""
    made: Counter[str] = Counter()
    for event in watching.read(timeout=0):
        assert not event.mask & flags.Q_OVERFLOW
        if event.name.startswith("step-"):
            assert event.mask & flags.CREATE, f"{event.name} was not linked"
            made[event.name] += 1
    return made


def _write_from_everywhere(session: SessionOnDisk, mounts: list[Mount], count: int) -> set[str]:
    one, other = (mount.path / session.slug / "append" for mount in mounts)
    running = {f"one-{n}": writers.start("mount", one, f"one-{n}", count, 1) for n in range(6)}
    running |= {f"bulk-{n}": writers.start("mount", one, f"bulk-{n}", count, 25) for n in range(2)}
    running["other-0"] = writers.start("mount", other, "other-0", count, 1)
    running["other-1"] = writers.start("mount", other, "other-1", count, 7)
    running["direct"] = writers.start("direct", session.path, "direct", count)
    writers.finish(running.values())
    return set(running)


def _all_once(session: SessionOnDisk, names: set[str], count: int) -> None:
    found = writers.contents(session.steps())
    for name in names:
        assert writers.of(name, found) == writers.texts(name, count)
    assert len(found) == len(names) * count


def _eleven_writers(store: StoreOnDisk, mount: Mounting, count: int) -> None:
    session = store.session()
    mounts = [mount(name="one"), mount(name="other")]
    with INotify(nonblocking=True) as watching:
        mask = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.EXCL_UNLINK
        watching.add_watch(str(session.path), mask)
        names = _write_from_everywhere(session, mounts, count)
        made = _names_linked(watching)
    _all_once(session, names, count)
    assert set(made.values()) == {1}
    assert len(made) == len(names) * count
    # A number lost in a race was taken by another writer, so there are no gaps.
    assert session.numbers() == list(range(1, len(made) + 1))
    lines = b"".join(step + b"\n" for step in session.steps())
    for at in mounts:
        assert (at.path / session.slug / "history.jsonl").read_bytes() == lines
        assert at.errors() == []


@pytest.mark.guarantee("G15a", "G15b", "G5b", "G5c")
def test_every_line_of_many_writers_lands_once_and_in_its_writers_order(
    store: StoreOnDisk, mount: Mounting
) -> None:
    _eleven_writers(store, mount, IN_THE_RUN)


@pytest.mark.soak
@pytest.mark.guarantee("G15b")
def test_every_line_of_many_writers_lands_once_in_the_long_run(
    store: StoreOnDisk, mount: Mounting
) -> None:
    _eleven_writers(store, mount, IN_SOAK)


@pytest.mark.guarantee("G5c")
def test_lines_written_alone_get_consecutive_numbers(store: StoreOnDisk, mount: Mounting) -> None:
    session = store.session()
    append = mount().path / session.slug / "append"
    writers.through_mount(str(append), "alone", 60, 20)
    assert session.numbers() == list(range(1, 61))
    assert writers.contents(session.steps()) == writers.texts("alone", 60)


@pytest.mark.guarantee("G15b", "G8a")
def test_a_compaction_among_many_writers_hides_what_came_before_it_and_nothing_else(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session()
    at = mount().path / session.slug
    running = [writers.start("mount", at / "append", f"w{n}", 100, 5) for n in range(3)]
    for number in range(10):
        (at / "compact").write_text(f"archive-{number}\n")
    writers.finish(running)
    steps = session.steps()
    boundary = max(n for n, step in enumerate(steps) if b"archive_name" in step)
    assert b"archive-9" in steps[boundary]
    assert sum(b"archive_name" in step for step in steps) == 10
    shown = b"".join(step + b"\n" for step in steps[boundary + 1 :])
    assert (at / "history.jsonl").read_bytes() == shown
    assert len(steps) == 310
