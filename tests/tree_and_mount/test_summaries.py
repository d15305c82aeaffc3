"""Compactions with a summary: the memory has the text before the history is cut."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import memories
from tests.support.drivers import Driver
from tests.support.stores import SessionOnDisk, entry

SUMMARY = "We agreed on blue-green.\n\n“Ok”, said ana; \\ and \0 too."
Serving = Callable[..., Driver]


def line(name: str, summary: object = SUMMARY) -> bytes:
    return json.dumps({"archive_name": name, "summary": summary}).encode() + b"\n"


def messages(driver: Driver, session: SessionOnDisk) -> list[str]:
    shown = driver.text(f"{session.slug}/messages.jsonl").splitlines()
    return [json.loads(text)["content"] for text in shown]


def archive(driver: Driver, name: str) -> Path:
    """The path of an archive in the memory beside the store."""
    return driver.store.path.parent / "memory" / "archives" / f"{name}.md"


@pytest.mark.guarantee("G31a")
def test_a_summary_is_what_the_messages_begin_with_at_once(driver: Driver) -> None:
    session = driver.session(entry("before"))
    path = f"{session.slug}/messages.jsonl"
    with driver.opened(path) as reading:
        inode = driver.stat(path).ino
        driver.put(f"{session.slug}/compact", line("plan-1"))
        assert messages(driver, session) == [SUMMARY]
        assert driver.stat(path).ino != inode
        assert json.loads(driver.read(reading))["content"] == "before"
    assert archive(driver, "plan-1").read_text() == SUMMARY + "\n"
    assert driver.text(f"{session.slug}/compact") == b"plan-1\n"
    driver.append(session, entry("after") + b"\n")
    assert messages(driver, session) == [SUMMARY, "after"]
    assert SUMMARY.split("\n")[0].encode() in driver.text(f"{session.slug}/history.md")
    assert session.numbers() == [1, 2, 3]


@pytest.mark.guarantee("G31a", "G8c", "G5d")
def test_an_object_may_come_in_pieces_with_others_and_without_its_newline(driver: Driver) -> None:
    session = driver.session()
    data = line("in-pieces-1") + b"by-name\n" + line("in-pieces-2", " two ")[:-1]
    with driver.opened(f"{session.slug}/compact", os.O_WRONLY) as handle:
        for at in range(0, len(data) - 5, 7):
            driver.write(handle, data[at : min(at + 7, len(data) - 5)])
        with driver.refuses(errno.EINVAL):
            driver.flush(handle)  # an incomplete object is not a name
        driver.write(handle, data[-5:])
    assert archive(driver, "in-pieces-1").read_text() == SUMMARY + "\n"
    assert [json.loads(step)["archive_name"] for step in session.steps()] == [
        "in-pieces-1",
        "by-name",
        "in-pieces-2",
    ]
    assert messages(driver, session) == ["two"]


@pytest.mark.guarantee("G31b")
@pytest.mark.parametrize(
    ("data", "number", "part"),
    [
        (line("a/b"), errno.EINVAL, "no slash"),
        (line(".hidden"), errno.EINVAL, "no dot"),
        (line("x" * 253), errno.ENAMETOOLONG, "252 bytes"),
        (line("x" * 256), errno.EINVAL, "at most 255"),
        (line(""), errno.EINVAL, "empty"),
        (line("a\tb"), errno.EINVAL, "control character"),
        (line("empty", " \n"), errno.EINVAL, "summary is empty"),
        (line("seven", 7), errno.EINVAL, "not a summary"),
        (line("long", "x" * (1 << 18)), errno.EFBIG, "262144 bytes"),
        (b'{"archive_name":"x"}\n', errno.EINVAL, "not a summary"),
        (b'{"archive_name":"x","summary":"y","more":1}\n', errno.EINVAL, "not a summary"),
        (b' {"archive_name":"x","summary":"he said "yes""}\n', errno.EINVAL, "not JSON"),
        (b'{"archive_name":"x","summary":"a\n', errno.EINVAL, "not JSON"),
    ],
)
def test_what_is_no_summary_is_refused_and_nothing_is_compacted(
    driver: Driver, data: bytes, number: int, part: str
) -> None:
    session = driver.session(entry("stays"))
    before = sorted(archive(driver, "x").parent.glob("*"))
    with driver.opened(f"{session.slug}/compact", os.O_WRONLY) as handle:
        driver.write(handle, data[:5])
        with driver.refuses(number, part):
            driver.write(handle, data[5:])
        assert session.numbers() == [1]
        driver.write(handle, b"a name\n")  # nothing of the refused line is pending
    assert [json.loads(step).get("archive_name") for step in session.steps()] == [None, "a name"]
    assert sorted(archive(driver, "x").parent.glob("*")) == before


@pytest.mark.guarantee("G31b")
def test_an_archive_is_never_replaced_but_the_same_summary_may_be_stored_again(
    driver: Driver,
) -> None:
    session = driver.session(entry("a"))
    driver.put(f"{session.slug}/compact", line("taken"))
    with driver.refuses(errno.EEXIST, "choose a new name"):
        driver.put(f"{session.slug}/compact", line("taken", "another"))
    assert session.numbers() == [1, 2]
    driver.put(f"{session.slug}/compact", line("taken"))
    assert session.numbers() == [1, 2, 3]
    assert archive(driver, "taken").read_text() == SUMMARY + "\n"


@pytest.mark.guarantee("G31a")
def test_the_memory_may_be_a_tree_of_any_place(serve: Serving, tmp_path: Path) -> None:
    tree = tmp_path / "elsewhere"
    tree.mkdir(mode=0o750)
    driver = serve(f"memory={tree}")
    session = driver.session(entry("a"))
    driver.put(f"{session.slug}/compact", line("one"))
    assert messages(driver, session) == [SUMMARY]
    assert sorted(path.name for path in (tree / "archives").iterdir()) == ["one.md"]
    assert (tree / "archives").stat().st_mode & 0o777 == 0o750
    assert not archive(driver, "one").exists()


@pytest.mark.guarantee("G31b", "G19a")
def test_the_daemons_database_is_never_written(serve: Serving, tmp_path: Path) -> None:
    database = memories.database({"plan": "old"})
    (tmp_path / "memory.db").write_bytes(database)
    driver = serve()
    session = driver.session(entry("stays"))
    with driver.refuses(errno.EROFS, "is the daemon's database"):
        driver.put(f"{session.slug}/compact", line("plan-2"))
    assert (tmp_path / "memory.db").read_bytes() == database
    assert driver.history(session) == entry("stays") + b"\n"
    assert not (tmp_path / "memory").exists()
    assert driver.told(session)["errno"] == "EROFS"
    driver.compact(session, "plan")  # a name alone still works
    assert messages(driver, session) == ["old"]


@pytest.mark.guarantee("G31b")
def test_without_a_memory_there_is_nowhere_to_store_a_summary(serve: Serving) -> None:
    driver = serve("memory=none")
    session = driver.session(entry("stays"))
    with driver.refuses(errno.EROFS, "uses no memory"):
        driver.put(f"{session.slug}/compact", line("plan"))
    assert session.numbers() == [1]


@pytest.mark.guarantee("G31a", "G20b")
def test_a_session_that_was_deleted_takes_no_summary(driver: Driver) -> None:
    session = driver.session(entry("a"))
    driver.expect("was deleted")
    with driver.opened(f"{session.slug}/compact", os.O_WRONLY) as handle:
        session.delete()
        with driver.refuses(errno.ENOENT):
            driver.write(handle, line("of-nothing"))
    assert not archive(driver, "of-nothing").exists()
