"""Any lines, cut in any way into writes and closes, give the same as a small model of the framing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import StoreError
from storage.formats.accept import stored_form
from tests.support.drivers import TreeDriver, driving
from tests.support.stores import StoreOnDisk, compaction, entry, event

LIMIT = 120
LINES = [
    entry("a"),
    entry("日本語"),
    event("e"),
    b'{"role":"user","content":"bare"}',
    b' {"role":"user"} ',
    b"",
    b" ",
    b"x",
    b"{}",
    b"\xff",
    compaction("archive"),
    b"[" + entry("a") + b"]",
    entry("x" * (LIMIT - len(entry("")))),
    entry("x" * (LIMIT + 1 - len(entry("")))),
    b"y" * (2 * LIMIT),
]
GOOD = LINES[:4]
FLUSH = None


@dataclass
class Model:
    """The framing in a few lines: clauses G5d, G6 and G7, byte by byte."""

    steps: list[bytes] = field(default_factory=list)
    pending: bytes = b""
    own_newline: bool = False
    """The next newline belongs to a line that a close has already stored."""

    def write(self, data: bytes) -> int | str:
        """The number of bytes taken, or the name of the errno."""
        steps, pending, taken = len(self.steps), self.pending, 0
        for at in range(len(data)):
            if data[at : at + 1] != b"\n":
                pending += data[at : at + 1]
                self.own_newline = False
                continue
            if self.own_newline:
                self.own_newline = False
                taken = at + 1
                continue
            try:
                self.steps.append(self._stored(pending))
            except StoreError as error:
                self.pending = b""
                return taken or errno.errorcode[error.errno]
            pending, taken = b"", at + 1
        if len(pending) > LIMIT:
            self.pending = b""
            return taken or "EFBIG"
        self.pending = pending
        assert len(self.steps) >= steps
        return len(data)

    def flush(self) -> str | None:
        if not self.pending:
            return None
        try:
            self.steps.append(self._stored(self.pending))
        except StoreError as error:
            return errno.errorcode[error.errno]
        self.pending, self.own_newline = b"", True
        return None

    @staticmethod
    def _stored(line: bytes) -> bytes:
        if len(line) > LIMIT:
            raise StoreError(errno.EFBIG, "line-too-long", "too long")
        return stored_form(line).data


@st.composite
def sequences(draw: st.DrawFn, lines: list[bytes]) -> list[bytes | None]:
    """Writes, with closes between them, of lines with or without a final newline."""
    text = b"\n".join(draw(st.lists(st.sampled_from(lines), min_size=1, max_size=8)))
    text += draw(st.sampled_from([b"", b"\n"]))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    done: list[bytes | None] = []
    for piece in pieces:
        done += [piece] * bool(piece)
        done += [FLUSH] * draw(st.sampled_from([0, 0, 0, 1, 2]))
    return done


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreeDriver]:
    directory: Path = tmp_path_factory.mktemp("framing")
    store = StoreOnDisk(directory / "store")
    with driving("tree", store.path, directory, f"line_limit={LIMIT}", "sync=never") as made:
        assert isinstance(made, TreeDriver)
        yield made


def told(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def attempt(driver: TreeDriver, handle: int, data: bytes) -> int | str:
    try:
        return driver.write(handle, data)
    except OSError as error:
        return told(error)


def close(driver: TreeDriver, handle: int) -> str | None:
    try:
        driver.close(handle)
    except OSError as error:
        return told(error)
    return None


def flush(driver: TreeDriver, handle: int) -> str | None:
    try:
        driver.flush(handle)
    except OSError as error:
        return told(error)
    return None


QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.guarantee("G5d", "G6a", "G6b", "G6c", "G6d", "G7a", "G7b", "G7d")
@given(done=sequences(LINES))
@QUICK
def test_lines_cut_in_any_way_give_the_same_as_the_model(
    driver: TreeDriver, done: list[bytes | None]
) -> None:
    session, model = driver.session(), Model()
    handle = driver.open(f"{session.slug}/append", os.O_WRONLY)
    for data in done:
        if data is FLUSH:
            assert flush(driver, handle) == model.flush()
        else:
            while data:  # after a short write the rest is written again, as programs do
                count = attempt(driver, handle, data)
                assert count == model.write(data)
                if isinstance(count, str):
                    break
                data = data[count:]
        assert session.steps() == model.steps
    assert close(driver, handle) == model.flush()
    assert session.steps() == model.steps
    assert session.numbers() == list(range(1, len(model.steps) + 1))


@pytest.mark.guarantee("G5c", "G5d", "G7a")
@given(done=sequences(GOOD))
@QUICK
def test_good_lines_are_all_stored_once_and_in_order_however_they_are_cut(
    driver: TreeDriver, done: list[bytes | None]
) -> None:
    session = driver.session()
    text = b"".join(data for data in done if data is not FLUSH)
    handle = driver.open(f"{session.slug}/append", os.O_WRONLY)
    for data in done:
        if data is FLUSH:
            flush(driver, handle)
        else:
            assert driver.write(handle, data) == len(data)
    driver.close(handle)
    assert session.steps() == [stored_form(line).data for line in text.split(b"\n") if line]
