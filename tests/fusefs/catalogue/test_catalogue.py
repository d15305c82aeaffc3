"""sessions.jsonl is current at each open, whatever happened to sessions and metas before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs.catalogue.catalogue import Catalogue
from fusefs.work import Work
from storage.latest import links
from storage.posix import exchange
from storage.store import Store
from tests.support.stores import StoreOnDisk


@pytest.fixture(params=["watched", "watched in part", "not watched"])
def told(store: StoreOnDisk, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """A check that queries the catalogue twice and compares the answers with the store."""
    opened = Store(str(store.path))
    catalogue = Catalogue(opened, Work(near=request.param != "not watched"))
    if request.param == "watched in part":
        assert catalogue._watches is not None
        catalogue._watches._most = 1

    def compare() -> None:
        for _ in range(2):
            slugs, text = expected(store.path)
            assert list(catalogue._names()) == slugs
            told = catalogue._text()
            assert told.read(0, len(told) + 1) == text
            assert catalogue._links() == links(slugs, opened.meta_of)

    compare()
    yield compare
    catalogue.close()
    opened.close()


def expected(root: Path) -> tuple[list[str], bytes]:
    slugs, lines = [], []
    for session in sorted(root.iterdir()):
        if not session.is_symlink() and (session / "meta").is_file():
            about = json.loads((session / "meta").read_text())
            line = {"session": session.name, **about}
            slugs.append(session.name)
            lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return slugs, b"".join(lines)


def write(session: Path, title: str) -> Path:
    """Overwrite the meta in place."""
    session.mkdir(exist_ok=True)
    (session / "meta").write_text(json.dumps({"title": title}, separators=(",", ":")))
    return session


def test_metas_written_replaced_exchanged_and_removed_are_noticed(
    store: StoreOnDisk, told: Callable[[], None]
) -> None:
    one, two = write(store.path / "a_b_1", "one"), write(store.path / "a_b_2", "two")
    told()
    write(one, "again")
    told()
    (one / "aside").write_text('{"title":"renamed"}')
    (one / "aside").rename(one / "meta")
    told()
    (two / "aside").write_text('{"title":"exchanged"}')
    fd = os.open(two, os.O_RDONLY)
    exchange("aside", "meta", fd)
    os.close(fd)
    told()
    (two / "meta").rename(two / "away")
    told()
    (two / "away").rename(two / "meta")
    told()


def test_sessions_made_in_steps_renamed_replaced_and_deleted_are_noticed(
    store: StoreOnDisk, told: Callable[[], None]
) -> None:
    one, two = write(store.path / "a_b_1", "one"), write(store.path / "a_b_2", "two")
    (store.path / "a_b_3").mkdir()
    told()
    write(store.path / "a_b_3", "later")
    told()
    one.rename(store.path / "away")
    two.rename(one)
    (store.path / "away").rename(two)
    told()
    write(one, "after")
    told()
    shutil.rmtree(two)
    two.symlink_to(one)
    told()


def test_a_change_of_a_meta_shared_by_two_sessions_is_noticed_for_both(
    store: StoreOnDisk, told: Callable[[], None]
) -> None:
    one, two = write(store.path / "a_b_1", "one"), store.path / "a_b_2"
    two.mkdir()
    (two / "meta").hardlink_to(one / "meta")
    told()
    for title in ("both", "again"):
        write(one, title)
        told()


def test_more_changes_than_inotify_queues_are_noticed(
    store: StoreOnDisk, told: Callable[[], None]
) -> None:
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    sessions = [write(store.path / f"a_b_{number}", "") for number in range(1, 201)]
    told()
    for at in range(queued // 400):
        for session in sessions:
            write(session, str(at))
    told()
