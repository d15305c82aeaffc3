"""Lines written to `append` become steps: framing, refusals, limits, missing final newlines."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from storage.formats.kinds import Kind, classify
from tests.support.drivers import Driver
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

BARE = b'{"role":"user","content":"hi"}'
STORED = [
    pytest.param(entry("as it is"), entry("as it is"), id="entry"),
    pytest.param(event(), event(), id="event"),
    pytest.param(BARE, b'{"message":' + BARE + b"}", id="message"),
    pytest.param(
        b'{ "message" : { "role":"user" , "content":"spaces" } } ',
        b'{ "message" : { "role":"user" , "content":"spaces" } } ',
        id="white-space",
    ),
    pytest.param(
        b' {"role":"tool","tool_call_id":"c1","content":"ok","x":[1.0,"\\u00e9"]}',
        b'{"message": {"role":"tool","tool_call_id":"c1","content":"ok","x":[1.0,"\\u00e9"]}}',
        id="message-with-unknown-keys",
    ),
    pytest.param(
        b'{"agent":"guest","message":{"role":"assistant","content":"done"},"k":1}\r',
        b'{"agent":"guest","message":{"role":"assistant","content":"done"},"k":1}\r',
        id="carriage-return",
    ),
    pytest.param(
        b'{"event":"tool_result","call_id":"c","duration_ms":12,"ts":"t"}',
        b'{"event":"tool_result","call_id":"c","duration_ms":12,"ts":"t"}',
        id="tool-result",
    ),
]
REFUSED = [
    pytest.param(b"", "empty", id="empty"),
    pytest.param(b" \t\r", "empty", id="blank"),
    pytest.param(b"hello", "JSON", id="no-json"),
    pytest.param(entry("torn")[:-1], "JSON", id="torn"),
    pytest.param(entry("a") + b" " + entry("b"), "JSON", id="two-documents"),
    pytest.param(b'{"role":"user","content":"\xff"}', "UTF-8", id="not-utf8"),
    pytest.param(b"\xef\xbb\xbf" + entry("bom"), "", id="byte-order-mark"),
    pytest.param(b"{}", "", id="no-keys"),
    pytest.param(b"42", "", id="number"),
    pytest.param(b'"text"', "", id="string"),
    pytest.param(b"null", "", id="null"),
    pytest.param(b"[" + entry("a") + b"]", "", id="array"),
    pytest.param(b'[{"role":"user","content":"a"},null]', "", id="array-as-entry"),
    pytest.param(b'{"message":["user","hi"]}', "", id="array-as-message"),
    pytest.param(compaction("archive"), "compact", id="compaction"),
    pytest.param(b'{"compact":"summary"}', "compact", id="legacy-compaction"),
    pytest.param(b'{"event":"unheard-of","ts":"t"}', "", id="unknown-event"),
    pytest.param(b'{"event":"user_steered","content":5,"ts":"t"}', "", id="event-of-wrong-type"),
    pytest.param(b'{"event":"user_steered","ts":"t"}', "", id="event-that-lacks-a-key"),
    pytest.param(b'{"message":{"content":"no role"}}', "", id="message-without-role"),
    pytest.param(b'{"message":{"role":5}}', "", id="role-of-wrong-type"),
    pytest.param(b'{"role":5}', "", id="bare-role-of-wrong-type"),
    pytest.param(b'{"role":"user","role":"user"}', "", id="known-key-twice"),
    pytest.param(b'{"role":"user","content":"\\ud800"}', "", id="lone-surrogate"),
    pytest.param(b'{"role":"user","content":"a\tb"}', "", id="control-character"),
    pytest.param(b'{"role":"user","content":1e400}', "", id="number-beyond-a-double"),
    pytest.param(b'{"role":"user","content":NaN}', "", id="not-a-number"),
    pytest.param(
        b'{"role":"user","content":' + b"[" * 126 + b"]" * 126 + b"}",
        "",
        id="too-deep-once-it-is-wrapped",
    ),
    pytest.param(b'{"role":"user","compact":"x"}', "", id="message-or-compaction"),
    pytest.param(b'{"role":"user","event":"done"}', "", id="message-or-event"),
]


def steps(session: SessionOnDisk) -> list[bytes]:
    """All steps, which must have consecutive numbers from 1."""
    assert session.numbers() == list(range(1, len(session.numbers()) + 1))
    return session.steps()


def opened_for_writing(driver: Driver, session: SessionOnDisk) -> int:
    return driver.open(f"{session.slug}/append", os.O_WRONLY | os.O_APPEND)


@pytest.mark.guarantee("G5a")
@pytest.mark.parametrize(("line", "stored"), STORED)
def test_a_line_becomes_a_step(driver: Driver, line: bytes, stored: bytes) -> None:
    session = driver.session()
    driver.append(session, line + b"\n")
    assert steps(session) == [stored]
    assert driver.text(f"{session.slug}/log.jsonl") == stored.strip() + b"\n"
    assert classify(stored).kind in (Kind.ENTRY, Kind.EVENT)


@pytest.mark.guarantee("G5b", "G12a")
def test_when_write_returns_the_line_is_there_for_everyone(driver: Driver) -> None:
    session = driver.session(entry("before"))
    with driver.opened(f"{session.slug}/history.jsonl") as reader:
        handle = opened_for_writing(driver, session)
        for count in range(1, 20):
            line = entry(f"line {count}") + b"\n"
            assert driver.write(handle, line) == len(line)
            assert session.step(1 + count) == line[:-1]
            assert driver.history(session).endswith(line)
            assert driver.fstat(reader).size == len(driver.history(session))
            assert driver.read(reader).endswith(line)
        driver.close(handle)
    assert len(steps(session)) == 20


@pytest.mark.guarantee("G5c")
def test_lines_get_consecutive_numbers_in_their_order(driver: Driver) -> None:
    session = driver.session()
    session.put(7, entry("after a gap"))
    driver.append(session, b"".join(entry(str(n)) + b"\n" for n in range(100)))
    assert session.numbers() == [7, *range(8, 108)]
    assert session.steps()[1:] == [entry(str(n)) for n in range(100)]


@pytest.mark.guarantee("G5c", "G15a")
def test_a_number_taken_by_another_writer_is_skipped(driver: Driver) -> None:
    session = driver.session(entry("one"))
    handle = opened_for_writing(driver, session)
    for number in range(2, 40, 2):
        session.put(number, entry(f"theirs {number}"))
        driver.write(handle, entry(f"ours {number + 1}") + b"\n")
    driver.close(handle)
    expected = [entry("one")]
    for number in range(2, 40, 2):
        expected += [entry(f"theirs {number}"), entry(f"ours {number + 1}")]
    assert steps(session) == expected


@pytest.mark.guarantee("G5d")
def test_a_line_comes_in_many_writes_and_many_lines_in_one(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    text = entry("in single bytes: 日本語") + b"\n"
    for at in range(len(text)):
        assert driver.write(handle, text[at : at + 1]) == 1
        assert len(steps(session)) == (at == len(text) - 1)
    both = BARE + b"\n" + event() + b"\n" + entry("half")[:9]
    assert driver.write(handle, both) == len(both)
    assert len(steps(session)) == 3
    assert driver.write(handle, entry("half")[9:] + b"\n") > 0
    driver.close(handle)
    wrapped = b'{"message":' + BARE + b"}"
    assert steps(session) == [text[:-1], wrapped, event(), entry("half")]


@pytest.mark.guarantee("G5d")
def test_truncation_and_attributes_mean_nothing(driver: Driver) -> None:
    session = driver.session()
    path = f"{session.slug}/append"
    handle = driver.open(path, os.O_WRONLY | os.O_TRUNC)
    driver.write(handle, entry("a")[:5])
    driver.truncate(path)
    driver.write(handle, entry("a")[5:] + b"\n")
    driver.close(handle)
    driver.truncate(f"{session.slug}/compact")
    assert steps(session) == [entry("a")]
    assert driver.text(path) == b""
    assert driver.stat(path).size == 0


@pytest.mark.guarantee("G5d")
def test_open_files_do_not_share_their_pending_lines(driver: Driver) -> None:
    session = driver.session()
    one, other = (opened_for_writing(driver, session) for _ in range(2))
    driver.write(one, entry("one")[:7])
    driver.write(other, entry("other")[:3])
    driver.write(one, entry("one")[7:] + b"\n")
    driver.write(other, entry("other")[3:] + b"\n")
    driver.close(one)
    driver.close(other)
    assert steps(session) == [entry("one"), entry("other")]


@pytest.mark.guarantee("G6a", "G19a")
@pytest.mark.parametrize(("line", "word"), REFUSED)
def test_a_refused_line_stores_nothing_and_says_why(driver: Driver, line: bytes, word: str) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    with driver.refuses(errno.EINVAL, f"write {session.slug}/append: "):
        driver.write(handle, line + b"\n")
    driver.close(handle)
    assert session.numbers() == []
    told = driver.told(session)
    assert (told["session"], told["file"], told["operation"]) == (session.slug, "append", "write")
    assert told["errno"] == "EINVAL"
    assert word in told["error"]
    assert len(told["error"]) > 20


@pytest.mark.guarantee("G6b")
@pytest.mark.parametrize(("bad", "word"), REFUSED)
def test_lines_before_a_refused_one_are_stored_and_those_after_are_not_touched(
    driver: Driver, bad: bytes, word: str
) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    before = entry("one") + b"\n" + event() + b"\n"
    rest = bad + b"\n" + entry("after") + b"\n"
    assert driver.write(handle, before + rest) == len(before)
    assert steps(session) == [entry("one"), event()]
    with driver.refuses(errno.EINVAL, f"write {session.slug}/append: "):
        driver.write(handle, rest)
    driver.close(handle)
    assert steps(session) == [entry("one"), event()]
    assert word in driver.told(session)["error"]


@pytest.mark.guarantee("G6b", "G6d")
def test_who_writes_on_after_a_refusal_writes_lines_of_their_own(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    with driver.refuses(errno.EINVAL, "not"):
        driver.write(handle, b"bad\n" + entry("not touched") + b"\n")
    driver.write(handle, entry("next") + b"\n")
    driver.close(handle)
    assert steps(session) == [entry("next")]


@pytest.mark.guarantee("G6c")
def test_a_line_over_the_limit_is_too_large_and_one_at_it_is_not(
    store: StoreOnDisk, serve: Callable[..., Driver]
) -> None:
    session = store.session()
    driver = serve("line_limit=1K")
    fits = entry("x" * (1024 - len(entry(""))))
    assert len(fits) == 1024
    driver.append(session, fits + b"\n" + fits + b"\n")
    assert len(steps(session)) == 2
    handle = opened_for_writing(driver, session)
    with driver.refuses(errno.EFBIG, "longer than 1024 bytes"):
        driver.write(handle, fits[:-3] + b"y" + fits[-3:] + b"\n")
    with driver.refuses(errno.EFBIG):
        driver.write(handle, b"x" * 1025)
    assert driver.write(handle, b"x" * 1024) == 1024
    with driver.refuses(errno.EFBIG):
        driver.write(handle, b"x")
    assert driver.write(handle, b"x" * 1000) == 1000
    with driver.refuses(errno.EFBIG):
        driver.write(handle, b"x" * 25 + b"\n" + fits + b"\n")
    good = entry("good") + b"\n"
    assert driver.write(handle, good + b"x" * 1025) == len(good)
    with driver.refuses(errno.EFBIG):
        driver.write(handle, b"x" * 1025)
    driver.write(handle, good)
    driver.close(handle)
    assert steps(session) == [fits, fits, entry("good"), entry("good")]


@pytest.mark.guarantee("G6d")
def test_a_refusal_discards_what_was_pending_of_the_line(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, b"{ this ")
    with driver.refuses(errno.EINVAL, f"write {session.slug}/append"):
        driver.write(handle, b"is no JSON\n")
    driver.write(handle, entry("new")[:10])
    driver.write(handle, entry("new")[10:] + b"\n")
    driver.close(handle)
    assert steps(session) == [entry("new")]


@pytest.mark.guarantee("G7a")
@pytest.mark.parametrize(("line", "stored"), STORED)
def test_a_complete_last_line_is_stored_at_close(
    driver: Driver, line: bytes, stored: bytes
) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, line[:4])
    driver.write(handle, line[4:])
    assert session.numbers() == []
    driver.close(handle)
    assert steps(session) == [stored]


@pytest.mark.guarantee("G7b")
def test_an_incomplete_line_fails_a_close_and_can_still_be_completed(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, entry("first") + b"\n" + entry("second")[:8])
    for _ in range(3):
        with driver.refuses(errno.EINVAL):
            driver.flush(handle)
    assert steps(session) == [entry("first")]
    driver.write(handle, entry("second")[8:])
    driver.flush(handle)
    assert steps(session) == [entry("first"), entry("second")]
    driver.close(handle)
    assert steps(session) == [entry("first"), entry("second")]


@pytest.mark.guarantee("G7b")
def test_a_newline_after_a_line_taken_at_a_close_is_its_own(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, entry("one"))
    driver.flush(handle)
    assert driver.write(handle, b"\n" + entry("two")) == 1 + len(entry("two"))
    driver.flush(handle)
    assert driver.write(handle, b"\n") == 1
    with driver.refuses(errno.EINVAL, "empty"):
        driver.write(handle, b"\n")
    driver.write(handle, entry("three"))
    driver.flush(handle)
    driver.write(handle, entry("four") + b"\n")
    with driver.refuses(errno.EINVAL):
        driver.write(handle, b"\n")
    driver.write(handle, entry("five"))
    driver.flush(handle)
    assert driver.write(handle, b"\n\n") == 1
    with driver.refuses(errno.EINVAL):
        driver.write(handle, b"\n")
    driver.close(handle)
    assert steps(session) == [entry(text) for text in ("one", "two", "three", "four", "five")]


@pytest.mark.guarantee("G7c", "G19a")
@pytest.mark.parametrize("line", [entry("cut")[:-3], b"no JSON at all", compaction("x"), b" "])
def test_what_is_pending_at_the_end_is_lost_and_reported(driver: Driver, line: bytes) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.write(handle, entry("kept") + b"\n" + line)
    with driver.refuses(errno.EINVAL, f"release {session.slug}/append: "):
        driver.close(handle)
    told = driver.told(session)
    assert (told["file"], told["operation"], told["errno"]) == ("append", "release", "EINVAL")
    assert f"{len(line)} bytes" in told["error"]
    assert steps(session) == [entry("kept")]


@pytest.mark.guarantee("G7d")
def test_closes_with_nothing_pending_store_nothing(driver: Driver) -> None:
    session = driver.session()
    handle = opened_for_writing(driver, session)
    driver.flush(handle)
    driver.write(handle, entry("once"))
    for _ in range(3):
        driver.flush(handle)
    driver.close(handle)
    assert steps(session) == [entry("once")]
    with driver.opened(f"{session.slug}/append", os.O_RDWR) as both:
        assert driver.read(both) == b""
    assert steps(session) == [entry("once")]
