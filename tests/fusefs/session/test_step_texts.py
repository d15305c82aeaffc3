"""Texts of steps: in memory while few, then in a spool, and freed when no longer needed."""

from __future__ import annotations

import os

import pytest
import trio

from fusefs.session import step_texts
from fusefs.session.step_texts import MEMORY_BYTES, SETTLED_BYTES, StepTexts
from fusefs.views.spool import Spool
from tests.support.gates import gated

TEXT = b"{" + b"x" * (SETTLED_BYTES // 4) + b"}"


def test_many_texts_are_spooled_and_read_back() -> None:
    async def keep() -> None:
        texts = StepTexts()
        places = [(texts.keep(b"%d" % n + TEXT), len(b"%d" % n + TEXT)) for n in range(9)]
        await texts.settle()
        assert texts._memory_bytes == 0
        late = texts.keep(b"late")
        found = await texts.read([*places, (late, 4)])
        assert found == [*(b"%d" % n + TEXT for n in range(9)), b"late"]
        texts.close()

    trio.run(keep)


def test_disk_space_that_is_not_needed_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    punched: list[int] = []
    monkeypatch.setattr(Spool, "punch", lambda _spool, _at, length: punched.append(length))

    async def keep() -> None:
        texts = StepTexts()
        places = [(texts.keep(TEXT), len(TEXT)) for _ in range(5)]
        await texts.settle()
        for place in places[1:]:
            texts.free(*place)
        assert punched == []
        texts.free(*places[0])
        assert punched == [5 * len(TEXT)]
        assert texts.size == 0
        assert await texts.read(places) == [None] * 5
        texts.close()

    trio.run(keep)


@pytest.mark.guarantee("G23a")
def test_memory_is_bounded_where_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_spool: Spool, _at: int, _text: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Spool, "put", full)

    async def keep() -> None:
        texts = StepTexts()
        places = []
        for _ in range(2 * MEMORY_BYTES // len(TEXT)):
            places.append((texts.keep(TEXT), len(TEXT)))
            await texts.settle()
        assert texts.size <= MEMORY_BYTES
        found = await texts.read(places)
        assert found[0] == TEXT
        assert found[-1] is None
        texts.close()

    trio.run(keep)
    assert len(caplog.records) == 1


def test_the_size_of_the_spool_is_bounded() -> None:
    async def keep() -> None:
        texts = StepTexts(spool_bytes=2 * SETTLED_BYTES)
        for _ in range(40):
            texts.keep(TEXT)
            await texts.settle()
        assert texts.size <= 2 * SETTLED_BYTES + MEMORY_BYTES
        texts.close()

    trio.run(keep)
    assert step_texts.SPOOL_BYTES > MEMORY_BYTES


@pytest.mark.guarantee("G19c")
@pytest.mark.parametrize("call", ["put", "read"])
def test_the_loop_goes_on_while_the_spool_waits_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    gate = gated(monkeypatch, call)

    async def main() -> None:
        texts = StepTexts()
        places = [(texts.keep(TEXT), len(TEXT)) for _ in range(5)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_settled_and_read, texts, places)
            await trio.sleep(0.05)
            gate.set()
        texts.close()

    trio.run(main)


async def _settled_and_read(texts: StepTexts, places: list[tuple[int, int]]) -> None:
    await texts.settle()
    assert texts._memory_bytes == 0
    assert await texts.read(places) == [TEXT] * len(places)
