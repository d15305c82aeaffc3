"""Step files: which names are step names, and how much of a file is ever read."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.session.index import Index, scan
from storage.session.reader import TOO_LONG, Reader
from storage.session.replay import backwards, forwards
from storage.session.steps import (
    STEP_BYTES_MAX,
    is_usual,
    read_step,
    step_name,
    step_number,
)
from tests.support.stores import entry


@pytest.fixture
def session_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.guarantee("S1")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("step-000001", 1),
        ("step-1", 1),
        ("step-18446744073709551616", 1 << 64),
        ("step-000000", None),
        ("step-0", None),
        ("step-", None),
        ("step-1 ", None),
        ("step-²", None),
        ("step-000001.tmp.7", None),
    ],
)
def test_only_a_number_from_1_in_ascii_digits_names_a_step(name: str, number: int | None) -> None:
    assert step_number(name) == number


@given(st.integers(1, 1 << 64), st.integers(1, 22))
def test_the_usual_name_of_a_step_is_told_by_its_length(number: int, digits: int) -> None:
    name = f"step-{number:0{digits}}"
    assert is_usual(name) is (name == step_name(number))


@pytest.mark.guarantee("S1", "S2")
def test_a_step_of_number_0_is_skipped_and_named(tmp_path: Path, session_fd: int) -> None:
    for name in ("step-000000", "step-000001"):
        (tmp_path / name).write_bytes(entry("text"))
    index = scan(session_fd)
    assert (list(index.numbers), index.strange) == ([1], [("step-000000", "numbers begin at 1")])
    assert Index().add("step-000000") is None


@pytest.mark.guarantee("S5")
def test_a_step_over_64_mib_is_broken_and_costs_nothing(tmp_path: Path, session_fd: int) -> None:
    (tmp_path / "step-000001").write_bytes(entry("text"))
    (tmp_path / "step-000002").write_bytes(entry("text"))
    os.truncate(tmp_path / "step-000002", 3 << 29)
    before = time.process_time()
    for found in (
        forwards(
            Reader(session_fd), [1, 2], {}, lambda step, _fd, _name: step.data, compactions=False
        ),
        backwards(Reader(session_fd), [1, 2], {}, lambda step, _fd, _name: step.data),
    ):
        assert found.skipped == [("step-000002", TOO_LONG)]
        assert b"".join(text.text for text in found.texts) == entry("text")
    assert time.process_time() - before < 0.1


@pytest.mark.guarantee("S5")
def test_64_mib_are_read(tmp_path: Path, session_fd: int) -> None:
    (tmp_path / "step-000001").touch()
    os.truncate(tmp_path / "step-000001", STEP_BYTES_MAX)
    assert len(read_step("step-000001", session_fd)) == STEP_BYTES_MAX
    os.truncate(tmp_path / "step-000001", STEP_BYTES_MAX + 1)
    with pytest.raises(OSError) as refused:
        read_step("step-000001", session_fd)
    assert refused.value.errno == errno.EFBIG
