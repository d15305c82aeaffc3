"""The sample store: everything a store can hold, as the daemon writes it, and reproducible."""

import json
import os
from pathlib import Path

import pytest

from storage.demo import demo
from storage.errors import StoreError
from storage.formats.kinds import Kind, NotAStep, classify
from storage.formats.slug import parse_session, session_prefix
from storage.posix import open_directory
from storage.session.snapshot import load


def test_sample_stores_are_equal_to_the_last_byte_and_time(tmp_path: Path) -> None:
    slugs = demo.write(str(tmp_path / "one"))
    assert demo.write(str(tmp_path / "two")) == slugs
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_every_session_loads_and_is_named_after_its_agent_and_sender(tmp_path: Path) -> None:
    slugs = demo.write(str(tmp_path))
    assert len(slugs) >= 12
    assert sorted(slugs) == sorted(os.listdir(tmp_path))
    for slug in slugs:
        fd = open_directory(str(tmp_path / slug))
        snapshot = load(fd)
        os.close(fd)
        assert snapshot is not None
        assert parse_session(slug) is not None
        prefix = session_prefix(snapshot.meta["agent"], snapshot.meta["created_by"])
        assert slug.startswith(prefix)
        archived = snapshot.archive is not None
        assert snapshot.meta["message_count"] == len(snapshot.history) + archived


def test_it_holds_every_kind_of_step_and_block_guests_gaps_and_exactly_one_broken_step(
    tmp_path: Path,
) -> None:
    kinds, guests, broken, gaps, blocks = set(), 0, 0, 0, set()
    for slug in demo.write(str(tmp_path)):
        names = sorted(path.name for path in (tmp_path / slug).glob("step-*"))
        if names and int(names[-1].removeprefix("step-")) > len(names):
            gaps += 1
        for name in names:
            try:
                step = classify((tmp_path / slug / name).read_bytes())
            except NotAStep:
                broken += 1
                continue
            kinds.add(step.kind)
            guests += bool(step.value.get("agent"))
            content = step.value.get("message", {}).get("content")
            blocks |= {part["type"] for part in content} if isinstance(content, list) else set()
            # The daemon writes compact JSON and escapes only what it must.
            again = json.dumps(step.value, ensure_ascii=False, separators=(",", ":"))
            assert step.data == again.encode()
    assert kinds == set(Kind)
    assert guests >= 2
    assert blocks >= {"text", "thinking", "tool_use", "tool_result", "image"}
    assert broken == 1
    assert gaps >= 1


def test_a_directory_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StoreError) as refused:
        demo.write(str(tmp_path))
    assert refused.value.errno_name == "ENOTEMPTY"
    assert os.listdir(tmp_path) == ["mine"]


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as refused:
        demo.write(str(tmp_path / "file"))
    assert refused.value.errno_name == "ENOTDIR"


def contents(store: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(store)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime_ns,
        )
        for path in store.rglob("*")
    }
