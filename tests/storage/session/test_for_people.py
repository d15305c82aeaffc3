"""What `history.md` adds to an entry's document: number, time, and the tool name of a result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from storage.formats.kinds import classify
from storage.session import for_people
from storage.session.for_people import CALL_STEPS_MAX
from storage.session.steps import step_name
from tests.support.stores import compaction, entry, event

CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "t1", "name": "grep", "input": {}}
ANSWERS = (
    {"role": "tool", "content": "ok", "tool_call_id": "c1"},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
)
ASKS = (
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": [USE]},
)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def stored(tmp_path: Path, number: int, data: bytes) -> None:
    (tmp_path / step_name(number)).write_bytes(data)


def message(about: Mapping[str, object]) -> bytes:
    return json.dumps({"message": about}).encode()


def heading(session: int, tmp_path: Path, number: int) -> str:
    name = step_name(number)
    section = for_people.entry(classify((tmp_path / name).read_bytes()), session, name)
    assert section is not None
    return section.decode().partition("\n")[0]


@pytest.mark.guarantee("G2e")
def test_a_heading_tells_the_step_and_when_it_was_stored(session: int, tmp_path: Path) -> None:
    stored(tmp_path, 12, entry("a"))
    os.utime(tmp_path / step_name(12), (1777385685, 1777385685))
    assert heading(session, tmp_path, 12) == "## user · step 12 · 2026-04-28 14:14:45"


def test_a_step_that_has_gone_or_of_an_odd_time_is_shown_without(
    session: int, tmp_path: Path
) -> None:
    step = classify(entry("a"))
    section = for_people.entry(step, session, step_name(3)) or b""
    assert section.decode() == "## user · step 3\n\na\n\n"
    stored(tmp_path, 4, entry("a"))
    os.utime(tmp_path / step_name(4), ns=(0, -(10**18)))
    assert "step 4 · 1938-04-24 22:13:20" in heading(session, tmp_path, 4)


@pytest.mark.guarantee("G2e")
@pytest.mark.parametrize(("asked", "answer"), [*zip(ASKS, ANSWERS, strict=True)])
def test_a_nameless_result_has_the_name_of_its_call(
    session: int, tmp_path: Path, asked: Mapping[str, object], answer: Mapping[str, object]
) -> None:
    stored(tmp_path, 1, message(asked))
    stored(tmp_path, 2, event())
    stored(tmp_path, 3, b"torn")
    stored(tmp_path, 5, message(answer))
    name = "bash" if asked is ASKS[0] else "grep"
    assert f"## tool `{name}` `" in heading(session, tmp_path, 5)
    stored(tmp_path, 4, compaction("crab-1"))
    assert name not in heading(session, tmp_path, 5)


def test_a_call_is_not_looked_for_far_back_nor_where_a_result_has_a_name(
    session: int, tmp_path: Path
) -> None:
    stored(tmp_path, 1, message(ASKS[0]))
    stored(tmp_path, CALL_STEPS_MAX + 2, message(ANSWERS[0]))
    assert "bash" not in heading(session, tmp_path, CALL_STEPS_MAX + 2)
    stored(tmp_path, 2, message({**ANSWERS[0], "name": "other"}))
    assert "`other` `c1`" in heading(session, tmp_path, 2)
    began = time.monotonic()
    stored(tmp_path, 10**12, message(ANSWERS[0]))
    heading(session, tmp_path, 10**12)
    assert time.monotonic() - began < 1


def test_the_head_of_a_session_with_a_broken_meta_has_only_its_name(
    session: int, tmp_path: Path
) -> None:
    assert for_people.head(session, "crab_x_1") == b"# `crab_x_1`\n\nTimes are in UTC.\n\n"
    (tmp_path / "meta").write_text("{")
    assert for_people.head(session, "crab_x_1") == b"# `crab_x_1`\n\nTimes are in UTC.\n\n"
