"""A name written to `compact` becomes a compaction, after which the history begins anew."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta

import pytest

from storage.formats.kinds import Kind, classify
from tests.support.drivers import Driver
from tests.support.stores import SessionOnDisk, compaction, entry

NAMES = [
    "archive",
    "crab-session-1",
    "日本語 🦀",
    "x" * 255,
    "é" * 127,
    " spaces ",
    "a/b",
    '"',
    ".",
]
REFUSED = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\xff", id="not-utf8"),
    pytest.param(b"\xed\xa0\x80", id="surrogate"),
    pytest.param(b"x" * 256, id="too-long"),
    pytest.param("é".encode() * 128, id="too-long-in-bytes"),
    pytest.param(b"a\tb", id="tab"),
    pytest.param(b"a\r", id="carriage-return"),
    pytest.param(b"a\0b", id="nul"),
    pytest.param(b"\x7f", id="delete"),
    pytest.param("\x85".encode(), id="c1"),
]


def opened_for_writing(driver: Driver, session: SessionOnDisk) -> int:
    return driver.open(f"{session.slug}/compact", os.O_WRONLY)


@pytest.mark.guarantee("G8a", "G8d")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_becomes_a_compaction_and_the_history_begins_anew(driver: Driver, name: str) -> None:
    session = driver.session(entry("before"))
    driver.compact(session, name)
    step = classify(session.step(2))
    assert (step.kind, step.archive) == (Kind.COMPACTION, name)
    assert list(step.value) == ["archive_name", "archived_at"]
    at = datetime.fromisoformat(step.value["archived_at"][:26] + "+00:00")
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert step.value["archived_at"].endswith("+00:00")
    assert driver.history(session) == b""
    assert driver.text(f"{session.slug}/compact") == name.encode() + b"\n"
    driver.append(session, entry("after") + b"\n")
    assert driver.history(session) == entry("after") + b"\n"
    assert session.numbers() == [1, 2, 3]


@pytest.mark.guarantee("G8b", "G19a")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_name_is_refused(driver: Driver, name: bytes) -> None:
    session = driver.session(entry("stays"))
    handle = opened_for_writing(driver, session)
    with driver.refuses(errno.EINVAL, f"write {session.slug}/compact: "):
        driver.write(handle, name + b"\n")
    driver.close(handle)
    assert session.numbers() == [1]
    assert driver.history(session) == entry("stays") + b"\n"
    assert driver.text(f"{session.slug}/compact") == b""
    told = driver.told(session)
    assert (told["session"], told["errno"]) == (session.slug, "EINVAL")


@pytest.mark.guarantee("G8b", "G6b")
def test_names_before_a_refused_one_count_and_those_after_it_do_not(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    assert driver.write(handle, b"one\ntwo\n\nthree\n") == 8
    with driver.refuses(errno.EINVAL, "empty"):
        driver.write(handle, b"\nthree\n")
    driver.close(handle)
    assert [classify(data).archive for data in session.steps()] == ["one", "two"]


@pytest.mark.guarantee("G8c")
def test_a_name_without_newline_is_taken_at_close_if_it_came_at_once(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, b"archive")
    assert session.numbers() == []
    driver.flush(handle)
    assert [classify(data).archive for data in session.steps()] == ["archive"]
    driver.write(handle, b"\n")
    driver.close(handle)
    assert session.numbers() == [1]


@pytest.mark.guarantee("G8c", "G7c")
def test_a_name_in_pieces_needs_its_newline(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, b"first\nar")
    driver.write(handle, b"chi")
    with driver.refuses(errno.EINVAL):
        driver.flush(handle)
    driver.write(handle, b"ve\nlo")
    driver.write(handle, b"st")
    with driver.refuses(errno.EINVAL, f"release {session.slug}/compact: "):
        driver.close(handle)
    assert driver.told(session)["operation"] == "release"
    assert [classify(data).archive for data in session.steps()] == ["first", "archive"]


@pytest.mark.guarantee("G8c", "G8b")
def test_a_refused_name_without_newline_fails_the_close(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, b"a\tb")
    with driver.refuses(errno.EINVAL, f"{session.slug}/compact: "):
        driver.close(handle)
    assert driver.told(session)["operation"] == "release"
    assert session.numbers() == []


@pytest.mark.guarantee("G8d")
def test_compact_tells_the_present_archive_or_nothing(driver: Driver) -> None:
    legacy = b'{"compact":"said","title":"","archived_at":""}'
    for steps, text in (
        ([], b""),
        ([entry("a")], b""),
        ([compaction("one"), entry("a")], b"one\n"),
        ([compaction("one"), compaction("two")], b"two\n"),
        ([compaction("one"), legacy], b""),
    ):
        session = driver.session(*steps)
        assert driver.text(f"{session.slug}/compact") == text
        assert driver.stat(f"{session.slug}/compact").size == len(text)
        session.add(compaction("theirs"))
        assert driver.text(f"{session.slug}/compact") == b"theirs\n"
