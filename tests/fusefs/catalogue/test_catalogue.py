"""sessions.jsonl is current at each open, whatever happened to sessions and metas before."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from fusefs.catalogue.catalogue import Catalogue
from fusefs.work import Work
from storage.errors import StoreError
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


@pytest.fixture
def catalogue(store: StoreOnDisk) -> Iterator[Catalogue]:
    opened = Store(str(store.path))
    made = Catalogue(opened, Work(near=True))
    yield made
    made.close()
    opened.close()


def failing(call: Callable[..., Any], failures: int, number: int) -> Callable[..., Any]:
    """As `call`, but its first calls fail with this errno."""
    left = [OSError(number, os.strerror(number))] * failures

    def fails(*args: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return call(*args, **named)

    return fails


@pytest.mark.guarantee("G19b")
@pytest.mark.parametrize(
    ("call", "number"),
    [("open", errno.EMFILE), ("open", errno.EACCES), ("open", errno.EIO), ("stat", errno.EIO)],
)
def test_a_session_that_cannot_be_examined_for_a_moment_is_listed_all_the_time(
    store: StoreOnDisk,
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    one = write(store.path / "a_b_1", "one")
    assert list(catalogue._names()) == ["a_b_1"]
    write(one, "two")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(getattr(os, call), 2, number))
        assert list(catalogue._names()) == ["a_b_1"]
    told = catalogue._text()
    assert (list(catalogue._names()), told.read(0, len(told))) == expected(store.path)


@pytest.mark.guarantee("G19b", "G12d")
def test_a_session_that_cannot_be_examined_when_it_is_new_is_listed_later(
    store: StoreOnDisk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(catalogue._names()) == []
    write(store.path / "a_b_1", "one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing(os.open, 1, errno.EMFILE))
        catalogue._names()
    assert list(catalogue._names()) == ["a_b_1"]


@pytest.mark.guarantee("G19b")
def test_a_meta_that_cannot_be_read_for_a_moment_is_read_later(
    store: StoreOnDisk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store.path / "a_b_1", "one")
    read = failing(catalogue._read, 1, errno.EMFILE)
    monkeypatch.setattr(catalogue, "_read", read)
    told = catalogue._text()
    assert told.read(0, len(told)) == b'{"session":"a_b_1"}\n'
    told = catalogue._text()
    assert told.read(0, len(told)) == expected(store.path)[1]


@pytest.mark.guarantee("G19b", "G12d")
def test_the_sessions_of_a_store_that_could_not_be_listed_are_found_later(
    store: StoreOnDisk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store.path / "a_b_1", "one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", failing(os.scandir, 1, errno.EMFILE))
        with pytest.raises(StoreError):
            catalogue._names()
    assert list(catalogue._names()) == ["a_b_1"]


@pytest.mark.guarantee("G19b", "G12d")
def test_changes_are_noticed_though_for_a_while_nothing_could_be_watched(
    store: StoreOnDisk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(store.path / "a_b_1", "one")
    catalogue._text()
    with monkeypatch.context() as patched:
        patched.setattr("fusefs.inotify.INotify", failing(INotify, 100, errno.EMFILE))
        catalogue.missed()
        for title in ("unwatched", "again"):
            write(one, title)
            told = catalogue._text()
            assert told.read(0, len(told)) == expected(store.path)[1]
    for title in ("watched", "again"):
        write(one, title)
        told = catalogue._text()
        assert told.read(0, len(told)) == expected(store.path)[1]
    assert catalogue.is_followed


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
