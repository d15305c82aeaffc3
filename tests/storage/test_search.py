"""Searching finds what was said, in every dialect, and reads no more of a step than necessary."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.formats.kinds import classify
from storage.posix import opened_directory
from storage.search.look import search, search_sessions, sessions
from storage.search.query import Query, needed
from storage.search.texts import Hit, texts
from tests.support.stores import StoreOnDisk, compaction, entry

CALL = {
    "id": "c",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"key":"s3cret"}'},
}


def message(**members: Any) -> bytes:
    return json.dumps({"message": members}).encode()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[int]:
    store = StoreOnDisk(tmp_path / "store")
    made = store.session(
        "crab_x_1",
        entry("the disk is full\nwhich disk?"),
        message(role="assistant", content=None, tool_calls=[CALL], reasoning_content="the Disk…"),
        message(role="tool", content="s3cret", tool_call_id="c"),
        compaction("monday"),
        b"torn disk",
        message(role="assistant", content=[{"type": "text", "text": "a disk, in blocks"}]),
        b'{"message":{"role":"user","content":"a d\\u0069sk, escaped"},"agent":"guest"}',
    )
    fd = os.open(made.path, os.O_RDONLY)
    yield fd
    os.close(fd)


def found(session: int, pattern: str, **options: Any) -> list[tuple[int, str, str]]:
    flags = re.IGNORECASE if options.get("ignore_case") else 0
    literal = needed(pattern, ignore_case=bool(flags))
    query = Query(re.compile(pattern, flags), literal, **options)
    hits = search(session, "crab_x_1", query, [])
    return [(hit.step, hit.role, hit.line) for hit in hits]


def test_each_line_that_matches_is_found_also_before_a_compaction(session: int) -> None:
    assert found(session, "disk") == [
        (1, "user", "the disk is full"),
        (1, "user", "which disk?"),
        (6, "assistant", "a disk, in blocks"),
        (7, "user", "a disk, escaped"),
    ]
    assert (2, "assistant", "the Disk…") in found(session, "DISK", ignore_case=True)


def test_what_tools_were_given_and_answered_is_found_only_when_asked_for(session: int) -> None:
    assert found(session, "s3cret") == []
    assert [step for step, *_ in found(session, "s3cret", tools=True)] == [2, 3]


def test_role_agent_and_time_narrow_the_search(session: int) -> None:
    assert [step for step, *_ in found(session, "disk", role="Assistant")] == [6]
    assert [step for step, *_ in found(session, "disk", agent="GUEST")] == [7]
    assert [step for step, *_ in found(session, "disk", agent="crab")] == [1, 1, 6]
    os.utime("step-000006", (1000, 1000), dir_fd=session)
    assert [step for step, *_ in found(session, "disk", until=2000)] == [6]
    assert [step for step, *_ in found(session, "disk", since=2000)] == [1, 1, 7]


def test_a_hit_tells_where_in_its_line_the_match_is(session: int) -> None:
    hits = search(session, "crab_x_1", Query(re.compile("f.ll")), [])
    assert list(hits) == [Hit("crab_x_1", 1, "user", "text", "the disk is full", 12, 16)]


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("disk", b"disk"),
        ("a disk.*full$", b"a disk"),
        ("disks?", b"disk"),
        ("ab*cd", b"cd"),
        ("ab{0,1}cde", b"cde"),
        (r"\bdisk\d+ fails", b" fails"),
        ("[abc]def", b"def"),
        (r"[]ab]c[^\]de]f", b"c"),
        (r"\x41bc", b""),
        ("disk|plate", b""),
        ("(disk)?", b""),
        ('say "no"', b"say "),
    ],
)
def test_the_literal_that_every_match_contains_is_derived_from_the_pattern(
    pattern: str, literal: bytes
) -> None:
    assert needed(pattern) == literal


def test_reformatted_arguments_are_found_in_their_new_form(store: StoreOnDisk) -> None:
    block = b'{"type": "tool_use", "name": "bash", "input": {"top": 12}}'
    step = b'{"message": {"role": "assistant", "content": [%b]}}' % block
    made = store.session("crab_x_1", step)
    with opened_directory(str(made.path)) as session:
        for pattern in ('bash {"top":12', '":12}', "top"):
            literal = needed(pattern, fixed=True, tools=True)
            query = Query(re.compile(re.escape(pattern)), literal, tools=True)
            (hit,) = search(session, "crab_x_1", query, [])
            assert (hit.part, hit.line) == ("call", 'bash {"top":12}')


@given(
    st.text(min_size=1, max_size=6),
    st.text('abk\u212as\u017f"\\/ .*+?[]{}^', min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_quick_check_never_hides_a_match(
    said: str, pattern: str, ignore_case: bool, escaped: bool, fixed: bool
) -> None:
    """The oracle parses every step."""
    flags = re.IGNORECASE if ignore_case else 0
    try:
        compiled = re.compile(re.escape(pattern) if fixed else pattern, flags)
    except re.error:
        return
    content = said + pattern
    data = json.dumps(
        {"message": {"role": "user", "content": content}}, ensure_ascii=escaped
    ).encode()
    query = Query(compiled, needed(pattern, fixed=fixed, ignore_case=ignore_case), ignore_case)
    if any(compiled.search(text.text) for text in texts(classify(data))):
        assert query.may_match(data)


SAID = st.text('dDiIsSkK\u212a\u017f\\n"\\ ', max_size=8)
STEPS = st.one_of(
    st.builds(lambda said: json.dumps({"message": {"role": "user", "content": said}}), SAID),
    st.builds(lambda said: f'{{"message":{{"role":"user","content":"{said}"}}}}', SAID),
    st.just(json.dumps({"message": {"role": "tool", "content": "x" * (70 << 10) + "disk"}})),
    SAID,
)
NAMES = st.sampled_from(["step-1", "step-000001", "step-000002", "step-9", "step-000000", "step-x"])


@settings(max_examples=150)
@given(
    st.dictionaries(NAMES, STEPS), st.sampled_from(["disk", "D", "[dk]isk", "sk$"]), st.booleans()
)
def test_the_quick_check_does_not_change_the_results(
    steps: dict[str, str], pattern: str, ignore_case: bool
) -> None:
    """The oracle is the same search without the quick check."""
    compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    literal = needed(pattern, ignore_case=ignore_case)
    with tempfile.TemporaryDirectory() as place:
        for name, data in steps.items():
            Path(place, name).write_text(data)
        os.mkfifo(f"{place}/step-000007")
        Path(place, "step-000008").mkdir()
        with opened_directory(place) as session:
            query = Query(compiled, literal, ignore_case, tools=True)
            assert literal
            plain = query._replace(literal=b"")
            assert list(search(session, "s", query, [])) == list(search(session, "s", plain, []))


def test_only_sessions_are_searched_whatever_else_is_in_the_store(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / "store")
    for slug in ("crab_x_2", "crab_x_10", "not_a_session"):
        store.session(slug, entry("the disk"))
    (store.path / "not_a_session/meta").unlink()
    (store.path / "link").symlink_to("crab_x_2")
    (store.path / ".new.x").mkdir()
    (store.path / "file").touch()
    with opened_directory(str(store.path)) as root:
        assert sessions(root) == ["crab_x_10", "crab_x_2", "not_a_session"]
        asked = [*sessions(root), "link", "file", "gone"]
        hits = search_sessions(root, asked, Query(re.compile("disk"), b"disk"), [])
        assert [hit.session for hit in hits] == ["crab_x_10", "crab_x_2"]
