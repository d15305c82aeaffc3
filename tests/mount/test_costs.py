"""The files that an operation opens, seen by inotify: no more in a longer session (G24)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from inotify_simple import INotify, flags

from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

MANY = 3000


@contextmanager
def opened(session: SessionOnDisk) -> Iterator[list[str]]:
    """The names opened in the session's directory meanwhile; `""` is the directory itself."""
    names: list[str] = []
    with INotify() as inotify:
        inotify.add_watch(session.path, flags.OPEN)
        yield names
        names += [event.name for event in inotify.read(timeout=0)]


def steps(names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("step-")}


@pytest.mark.guarantee("G24a")
def test_opening_a_history_reads_the_steps_since_the_last_compaction(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    before = [entry(f"old {n}") for n in range(MANY)]
    after = [entry(f"new {n}") for n in range(10)]
    session = store.session("crab_tg-42_1", *before, compaction("archive"), *after)
    history = mount().path / session.slug / "history.jsonl"
    with opened(session) as names:
        assert history.read_bytes() == b"".join(line + b"\n" for line in after)
    assert steps(names) == {f"step-{n:06}" for n in range(MANY + 1, MANY + 12)}

    session.add(entry("one more"))
    with opened(session) as names:
        assert history.read_bytes().endswith(entry("one more") + b"\n")
    assert steps(names) <= {f"step-{MANY + 12:06}"}
    assert "" not in names, "the directory was listed again"


@pytest.mark.guarantee("G24b")
def test_an_append_and_a_change_elsewhere_open_no_step_and_list_nothing(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("crab_tg-42_1", *(entry(f"old {n}") for n in range(MANY)))
    other = store.session("crab_tg-42_2", entry("other"))
    here = mount().path / session.slug
    (here / "append").write_bytes(entry("first") + b"\n")
    with opened(session) as names:
        (here / "append").write_bytes(entry("second") + b"\n")
        other.add(entry("elsewhere"))
        assert (here.parent / other.slug / "history.jsonl").read_bytes().endswith(b'elsewhere"}}\n')
    assert session.step(MANY + 2) == entry("second")
    assert steps(names) <= {f"step-{MANY + 2:06}"}, "that one was opened by the test itself"
    assert "" not in names, "the directory was listed again"
