"""The states of an epoch and their transitions, and that its bytes only ever grow (G13)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fusefs.views.epoch import Epoch, PrefixCheck, State
from fusefs.views.formats import HISTORY, View
from fusefs.views.text_cache import TextCache
from storage.session.replay import START, Boundary, Text

VIEW = View(HISTORY)


def lines(*numbers: int) -> Text:
    """One line for each of these steps."""
    found = b"".join(b"%d\n" % number for number in numbers)
    return Text(numbers[0], numbers[-1], array("Q", numbers), found)


def whole(epoch: Epoch) -> bytes:
    """The whole text; the cache is large enough here for everything."""
    return b"".join(segment.text or b"?" for segment in epoch.segments)


def empty(cache: TextCache | None = None) -> Epoch:
    return Epoch(VIEW, TextCache(1 << 20) if cache is None else cache)


def building() -> Epoch:
    epoch = empty()
    epoch.begin(Boundary(4, "name"), b"lead\n", 1)
    return epoch


def current() -> Epoch:
    epoch = building()
    epoch.extend([lines(5, 6)])
    epoch.last = 6
    epoch.complete()
    return epoch


def suspect() -> Epoch:
    epoch = current()
    epoch.doubt()
    return epoch


def superseded() -> Epoch:
    epoch = suspect()
    epoch.supersede()
    return epoch


MADE: dict[State, Callable[[], Epoch]] = {
    State.EMPTY: empty,
    State.BUILDING: building,
    State.CURRENT: current,
    State.SUSPECT: suspect,
    State.SUPERSEDED: superseded,
}


def draft() -> Epoch:
    """A draft that was built beside an epoch: the same text, and one more line."""
    made = building()
    made.extend([lines(5, 6, 7)])
    made.last = 7
    made.complete()
    return made


DOES: dict[str, Callable[[Epoch], None]] = {
    "begin": lambda epoch: epoch.begin(START, b"", None),
    "complete": lambda epoch: epoch.complete(),
    "doubt": lambda epoch: epoch.doubt(),
    "adopt": lambda epoch: epoch.adopt(draft()),
    "supersede": lambda epoch: epoch.supersede(),
    "gather backwards": lambda epoch: epoch.end_backwards(START, b"", None, 0),
}
LEADS_TO = {
    State.EMPTY: {
        "begin": State.BUILDING,
        "doubt": State.EMPTY,
        "adopt": State.CURRENT,
        "gather backwards": State.CURRENT,
    },
    State.BUILDING: {
        "begin": State.BUILDING,
        "complete": State.CURRENT,
        "doubt": State.EMPTY,
        "adopt": State.CURRENT,
    },
    State.CURRENT: {
        "complete": State.CURRENT,
        "doubt": State.SUSPECT,
        "adopt": State.CURRENT,
        "supersede": State.SUPERSEDED,
    },
    State.SUSPECT: {
        "doubt": State.SUSPECT,
        "adopt": State.CURRENT,
        "supersede": State.SUPERSEDED,
    },
    State.SUPERSEDED: {"doubt": State.SUPERSEDED, "supersede": State.SUPERSEDED},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("does", DOES)
def test_every_transition_is_in_the_diagram(state: State, does: str) -> None:
    epoch = MADE[state]()
    assert epoch.state is state
    expected = LEADS_TO[state].get(does)
    if expected is None:
        with pytest.raises(AssertionError):
            DOES[does](epoch)
        assert epoch.state is state
    else:
        DOES[does](epoch)
        assert epoch.state is expected


@pytest.mark.parametrize("state", State)
def test_only_a_complete_epoch_may_be_shown(state: State) -> None:
    epoch = MADE[state]()
    assert epoch.built is (state not in (State.EMPTY, State.BUILDING))
    assert epoch.grows is (state in (State.BUILDING, State.CURRENT))
    assert epoch.superseded is (state is State.SUPERSEDED)


def test_an_epoch_doubted_before_it_was_shown_is_emptied() -> None:
    epoch = building()
    epoch.extend([lines(5)])
    epoch.doubt()
    assert (epoch.segments, epoch.size, epoch.last, epoch.boundary) == ([], 0, 0, START)


def test_a_history_that_is_gathered_from_its_end_shows_nothing_until_it_is_whole() -> None:
    epoch = empty()
    epoch.extend_backwards([lines(7), lines(8, 9)])
    assert (epoch.size, epoch.built) == (0, False)
    epoch.extend_backwards([lines(5), lines(6)])
    epoch.end_backwards(Boundary(4, "name"), b"lead\n", 1, 9)
    assert whole(epoch) == b"lead\n5\n6\n7\n8\n9\n"
    assert (epoch.size, epoch.last) == (len(whole(epoch)), 9)
    assert epoch.ranges() == [(5, 9)]


def test_adopting_a_draft_takes_its_text_and_frees_the_old_one() -> None:
    cache = TextCache(1 << 20)
    epoch, other = empty(cache), empty(cache)
    for each, numbers in ((epoch, (1, 2)), (other, (1, 2, 3))):
        each.begin(START, b"", None)
        each.extend([lines(*numbers)])
        each.complete()
    epoch.adopt(other)
    assert whole(epoch) == b"1\n2\n3\n"
    assert cache.bytes == epoch.size == len(whole(epoch))


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, unique=True).map(sorted), max_size=12))
def test_consecutive_shown_steps_are_returned_as_ranges(parts: list[list[int]]) -> None:
    """Also across the end of a segment."""
    epoch = empty()
    epoch.begin(START, b"", None)
    shown: list[int] = []
    for part in parts:
        numbers = [number + (shown[-1] if shown else 0) for number in part]
        epoch.extend([lines(*numbers)])
        shown += numbers
    told = [number for first, last in epoch.ranges() for number in range(first, last + 1)]
    assert told == shown
    assert all(a[1] + 1 < b[0] for a, b in zip(epoch.ranges(), epoch.ranges()[1:], strict=False))
    assert (epoch.lines, epoch.last_shown) == (len(shown), shown[-1] if shown else 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.data())
def test_a_stream_is_accepted_only_if_it_begins_with_what_is_shown(
    cuts: list[int], data: st.DataObject
) -> None:
    """However the stream and the epoch are divided into pieces."""
    epoch = empty()
    epoch.begin(START, data.draw(st.sampled_from([b"", b"lead\n"])), None)
    for number, length in enumerate(cuts, 1):
        epoch.extend([lines(*range(number * 100, number * 100 + length))])
    shown = whole(epoch)
    stream = data.draw(
        st.sampled_from([shown, shown + b"more", shown[:-1], b"x" + shown, shown[:-1] + b"x"])
    )
    check = PrefixCheck(epoch)
    for piece in pieces(stream, data.draw(st.lists(st.integers(1, 400), max_size=9))):
        check.feed(piece)
    assert check.passed is stream.startswith(shown)


def pieces(stream: bytes, lengths: Iterable[int]) -> Iterable[bytes]:
    for length in lengths:
        yield stream[:length]
        stream = stream[length:]
    yield stream


class Shown(RuleBasedStateMachine):
    """An epoch as `refresh` drives it: bytes that were announced to anybody never change."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = TextCache(1 << 20)
        self.epoch = Epoch(VIEW, self.cache)
        self.model = b""
        """Its whole text."""
        self.told = b""
        """The text that may have been announced."""
        self.next = 1

    @precondition(lambda self: not self.epoch.built)
    @rule(lead=st.sampled_from([b"", b"lead\n", b"other\n"]))
    def begins(self, lead: bytes) -> None:
        self.epoch.begin(START, lead, None)
        self.model, self.next = lead, 1

    @precondition(lambda self: self.epoch.grows)
    @rule(count=st.integers(1, 5))
    def gets_lines(self, count: int) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        self.epoch.extend([lines(*numbers)])
        self.epoch.last = self.next - 1
        self.model += lines(*numbers).text

    @precondition(lambda self: self.epoch.grows)
    @rule()
    def is_whole(self) -> None:
        self.epoch.complete()

    @rule()
    def is_doubted(self) -> None:
        if self.epoch.state is State.BUILDING:
            self.model, self.next = b"", 1
        self.epoch.doubt()

    @precondition(lambda self: self.epoch.state is State.SUSPECT)
    @rule(same=st.booleans(), more=st.integers(0, 3))
    def is_made_again(self, same: bool, more: int) -> None:
        made = Epoch(VIEW, self.cache)
        text = self.model if same else b"else\n"
        made.begin(START, text, None)
        if more:
            made.extend([lines(*range(self.next, self.next + more))])
        made.last = self.next + more - 1
        made.complete()
        check = PrefixCheck(self.epoch)
        check.feed(whole(made))
        assert check.passed is whole(made).startswith(self.model)
        if check.passed:
            self.model = whole(made)
            self.next += more
            self.epoch.adopt(made)
        else:
            self.epoch.supersede()
            self.cache.drop(made)

    @invariant()
    def what_was_told_stays(self) -> None:
        if self.epoch.built:
            assert whole(self.epoch).startswith(self.told)
            self.told = whole(self.epoch)
        else:
            assert self.told == b""

    @invariant()
    def it_has_what_it_was_given(self) -> None:
        assert whole(self.epoch) == self.model
        assert self.epoch.size == len(self.model)
        assert self.cache.bytes == self.epoch.size


TestShown = Shown.TestCase
