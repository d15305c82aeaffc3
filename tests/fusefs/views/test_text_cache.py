"""The cache of text: bounded, evicts the least recently used, never loses pinned text (G13, G23)."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from array import array
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fusefs.views import text_cache
from fusefs.views.spool import Spool
from fusefs.views.text_cache import SPOOL_FACTOR, Segment, TextCache
from storage.session.replay import Text
from tests.support.gates import gated

LIMIT = 100


class Owner:
    """An owner of segments, which may pin them."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.spool: Spool | None = None
        self.pinned = False

    def add(self, cache: TextCache, text: bytes) -> Segment:
        """Add a segment."""
        number = len(self.segments) + 1
        segment = Segment(0, Text(number, number, array("Q", [number]), text))
        self.segments.append(segment)
        cache.keep(self, segment, text)
        return segment


def full(_spool: Spool, _at: int, _text: bytes) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def test_the_most_recently_used_text_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "Spool", None)  # nothing here is pinned

    async def main() -> None:
        cache, owner, other = TextCache(LIMIT), Owner(), Owner()
        first, second = (owner.add(cache, bytes([number]) * 40) for number in (1, 2))
        assert await cache.text(owner, first) == b"\x01" * 40
        third = other.add(cache, b"\x03" * 40)
        held = [segment for segment in (first, second, third) if segment.held]
        assert held == [first, third]
        assert await cache.text(owner, second) is None
        assert (cache.hits, cache.misses, cache.lost, cache.bytes) == (1, 1, 1, 80)

    trio.run(main)


@pytest.mark.guarantee("G13c", "G23a")
def test_pinned_text_over_the_limit_is_spooled_and_read_from_there() -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        texts = [bytes([number]) * 60 for number in range(8)]
        for text in texts:
            owner.add(cache, text)
            await cache.settle()
            assert cache.bytes <= LIMIT
        assert all(segment.held for segment in owner.segments)
        assert [await cache.text(owner, segment) for segment in owner.segments] == texts
        assert cache.lost == 0
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G23a")
def test_memory_is_within_its_limit_after_spooled_text_was_read() -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        for number in range(2):
            owner.add(cache, bytes([number]) * 60)
        await cache.settle()
        assert await cache.text(owner, owner.segments[0]) == b"\0" * 60
        assert cache.bytes <= LIMIT
        assert all(segment.held for segment in owner.segments)
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G23a", "G24a")
def test_text_that_exceeds_the_memory_alone_is_spooled_before_anybody_opens_it() -> None:
    async def main() -> None:
        cache, owner, other = TextCache(LIMIT), Owner(), Owner()
        other.add(cache, b"short" * 10)
        for number in range(4):
            owner.add(cache, bytes([number]) * 40)
            await cache.settle()
            assert cache.bytes <= LIMIT
        assert all(segment.held for segment in owner.segments)
        assert not other.segments[0].held
        assert other.spool is None
        for number in range(4, 3 * SPOOL_FACTOR):
            owner.add(cache, bytes([number]) * 40)
            await cache.settle()
        assert owner.spool is not None
        assert owner.spool.size <= SPOOL_FACTOR * LIMIT + 40
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G23a")
def test_a_spool_that_was_handed_over_is_dropped_when_others_need_the_room() -> None:
    async def main() -> None:
        cache, draft, owner, other = TextCache(LIMIT), Owner(), Owner(), Owner()
        for number in range(4):
            draft.add(cache, bytes([number]) * 40)
            await cache.settle()
        owner.segments, draft.segments = draft.segments, []
        cache.hand_over(draft, owner)
        assert draft.spool is None
        for number in range(3 * SPOOL_FACTOR):
            other.add(cache, bytes([number]) * 40)
            await cache.settle()
        assert owner.spool is None
        cache.drop(other)

    trio.run(main)


@pytest.mark.guarantee("G23a")
def test_text_that_nobody_has_open_is_evicted_where_it_cannot_be_spooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(Spool, "put", full)
        cache, owner = TextCache(LIMIT), Owner()
        for number in range(4):
            owner.add(cache, bytes([number]) * 40)
            await cache.settle()
        assert [segment.held for segment in owner.segments] == [False, False, True, True]
        assert (cache.bytes, cache.lost) == (80, 2)

    trio.run(main)


@pytest.mark.guarantee("G13c")
def test_where_nothing_can_be_spooled_pinned_text_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        for number in range(4):
            owner.add(cache, bytes([number]) * 60)
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "put", full)
            await cache.settle()
        assert all(segment.text is not None for segment in owner.segments)
        assert len(caplog.records) == 1
        owner.add(cache, b"x" * 60)  # there is room again
        await cache.settle()
        assert cache.bytes <= LIMIT
        assert all(segment.held for segment in owner.segments)
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G23a")
def test_text_that_was_owed_to_a_spool_counts_no_more_once_its_file_is_closed() -> None:
    cache, owner = TextCache(LIMIT), Owner()
    owner.pinned = True
    first, second = (owner.add(cache, bytes([number]) * 60) for number in (1, 2))
    assert cache.bytes == 120
    owner.pinned = False
    cache.unpinned(owner)
    assert [segment for segment in (first, second) if segment.held] == [second]
    assert cache.bytes == 60
    cache.drop(owner)
    assert cache.bytes == 0


def test_spools_of_closed_files_are_kept_up_to_a_limit() -> None:
    async def main() -> None:
        cache = TextCache(LIMIT)
        owners = [Owner() for _ in range(SPOOL_FACTOR)]
        for owner in owners:
            owner.pinned = True
            for number in range(4):
                owner.add(cache, bytes([number]) * 60)
                await cache.settle()
            owner.pinned = False
            cache.unpinned(owner)
        kept = [owner for owner in owners if owner.spool is not None]
        assert 0 < len(kept) < len(owners)
        assert kept == owners[-len(kept) :]
        assert sum(owner.spool.size for owner in kept if owner.spool) <= SPOOL_FACTOR * LIMIT
        assert cache.lost > 0
        for owner in owners:
            cache.drop(owner)
        assert cache.bytes == 0

    trio.run(main)


@pytest.mark.guarantee("G19c")
@pytest.mark.parametrize("call", ["write", "read"])
def test_the_loop_goes_on_while_a_spool_waits_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        for number in range(3):
            owner.add(cache, bytes([number]) * 60)
        if call == "read":
            await cache.settle()
        gate = gated(monkeypatch, call)
        async with trio.open_nursery() as nursery:
            if call == "read":
                spooled = next(segment for segment in owner.segments if segment.text is None)
                nursery.start_soon(cache.text, owner, spooled)
            else:
                nursery.start_soon(cache.settle)
            await trio.sleep(0.05)
            gate.set()
        assert all(segment.held for segment in owner.segments)
        cache.drop(owner)

    trio.run(main)


def two_texts(cache: TextCache, letter: bytes) -> Owner:
    """An owner of one text in memory and one that is owed to a spool."""
    owner = Owner()
    owner.pinned = True
    for half in (b"1", b"2"):
        owner.add(cache, letter + half * 60)
    return owner


def hand_over(cache: TextCache, draft: Owner, owner: Owner) -> None:
    """As `Epoch.adopt` does."""
    cache.drop(owner)
    for segment in draft.segments:
        text = segment.text
        cache.drop(draft, [segment])
        if text is not None:
            cache.keep(owner, segment, text)
    owner.segments, draft.segments = draft.segments, []
    cache.hand_over(draft, owner)


class Making:
    """The files of spools are made, or fail to be, only after a gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> None:
        self._begun, self._gate = threading.Event(), threading.Event()
        make = tempfile.mkstemp

        def made(*args: Any, **named: Any) -> Any:
            self._begun.set()
            assert self._gate.wait(10)
            if error is not None:
                raise error
            return make(*args, **named)

        monkeypatch.setattr(tempfile, "mkstemp", made)

    async def meanwhile(self, cache: TextCache, act: Callable[[], object]) -> None:
        """Spool what is owed, and call `act` while a file is made for that."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.settle)
            while not self._begun.is_set():
                await trio.sleep(0.001)
            act()
            self._gate.set()


@pytest.mark.guarantee("G23f")
def test_a_spool_that_is_made_for_an_owner_which_goes_meanwhile_keeps_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        cache = TextCache(LIMIT)
        owner = two_texts(cache, b"a")
        await trio.to_thread.run_sync(os.getpid)  # a thread has descriptors of its own
        before = os.listdir("/proc/self/fd")
        making = Making(monkeypatch)
        await making.meanwhile(cache, lambda: cache.drop(owner))
        assert os.listdir("/proc/self/fd") == before
        assert cache.bytes == 0

    trio.run(main)


@pytest.mark.guarantee("G13c")
def test_an_owner_that_takes_over_texts_while_a_spool_is_made_for_it_shows_these(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        cache = TextCache(LIMIT)
        draft = two_texts(cache, b"b")
        await cache.settle()
        owner = two_texts(cache, b"a")
        making = Making(monkeypatch)
        await making.meanwhile(cache, lambda: hand_over(cache, draft, owner))
        shown = [await cache.text(owner, segment) for segment in owner.segments]
        assert shown == [b"b" + b"1" * 60, b"b" + b"2" * 60]
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G13c", "G23a")
def test_text_that_is_handed_over_while_it_is_spooled_is_read_from_that_spool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        draft = two_texts(cache, b"a")
        making = Making(monkeypatch)
        await making.meanwhile(cache, lambda: hand_over(cache, draft, owner))
        assert all(segment.held for segment in owner.segments)
        assert cache.bytes <= LIMIT
        shown = [await cache.text(owner, segment) for segment in owner.segments]
        assert shown == [b"a" + b"1" * 60, b"a" + b"2" * 60]
        cache.drop(owner)

    trio.run(main)


@pytest.mark.guarantee("G13c")
def test_text_that_is_handed_over_to_an_open_file_stays_though_it_cannot_be_spooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        cache, owner = TextCache(LIMIT), Owner()
        owner.pinned = True
        draft = two_texts(cache, b"a")

        def act() -> None:
            hand_over(cache, draft, owner)
            draft.pinned = False

        making = Making(monkeypatch, OSError(errno.ENOSPC, "no space left on device"))
        await making.meanwhile(cache, act)
        assert all(segment.held for segment in owner.segments)
        cache.drop(owner)

    trio.run(main)


class Texts(RuleBasedStateMachine):
    """Text is added, used, pinned and evicted in any order, and compared with a model."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = TextCache(LIMIT)
        self.owners = [Owner() for _ in range(3)]
        self.model: dict[Segment, bytes] = {}
        self.number = 0

    def run(self, work: object, *args: object) -> object:
        async def main() -> object:
            found = await work(*args)  # type: ignore[operator]
            await self.cache.settle()
            return found

        return trio.run(main)

    @rule(at=st.integers(0, 2), size=st.integers(1, 70))
    def text_comes(self, at: int, size: int) -> None:
        self.number += 1
        text = b"%d " % self.number * size
        segment = self.owners[at].add(self.cache, text[:size])
        self.model[segment] = text[:size]
        self.run(trio.lowlevel.checkpoint)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def text_is_used(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(list(self.model)))
        owner = next(owner for owner in self.owners if segment in owner.segments)
        found = self.run(self.cache.text, owner, segment)
        assert found in (self.model[segment], None)
        if found is None:
            assert not owner.pinned
            self.cache.keep(owner, segment, self.model[segment])  # as if rendered again
            self.run(trio.lowlevel.checkpoint)

    @rule(at=st.integers(0, 2))
    def is_opened(self, at: int) -> None:
        owner = self.owners[at]
        owner.pinned = True
        for segment in owner.segments:  # as `held_text.pin` does
            if not segment.held:
                self.cache.keep(owner, segment, self.model[segment])
                self.run(trio.lowlevel.checkpoint)

    @rule(at=st.integers(0, 2))
    def is_closed(self, at: int) -> None:
        if self.owners[at].pinned:
            self.owners[at].pinned = False
            self.cache.unpinned(self.owners[at])

    @rule(at=st.integers(0, 2))
    def goes(self, at: int) -> None:
        owner = self.owners[at]
        if not owner.pinned:
            self.cache.drop(owner)
            for segment in owner.segments:
                del self.model[segment]
            owner.segments = []

    @invariant()
    def memory_is_bounded_and_counted(self) -> None:
        texts = [segment.text for segment in self.model if segment.text is not None]
        assert self.cache.bytes == sum(map(len, texts))
        assert self.cache.bytes <= LIMIT

    @invariant()
    def pinned_text_is_held(self) -> None:
        for owner in self.owners:
            if owner.pinned:
                assert all(segment.held for segment in owner.segments)

    def teardown(self) -> None:
        for owner in self.owners:
            self.cache.drop(owner)


TestTexts = Texts.TestCase
TestTexts.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
