"""What a follower remembers, and how it explains that a history was replaced by another."""

import random
import sys
from array import array

from fusefs.dotdir.step_ranges import (
    NONE,
    Seen,
    Shown,
    begins_anew,
    compaction_told,
    numbers_told,
    runs_told,
    what_happened,
)


def shown(**lines: str) -> Shown:
    """What is shown, given as lines by step number: `_3="text"`."""
    numbers = array("Q", [int(name[1:]) for name in lines])
    return Shown(numbers, array("q", [hash(text) for text in lines.values()]))


def test_each_number_is_new_exactly_once() -> None:
    numbers = random.Random(4).choices([1, 2, 4095, 4096, 999_999, 2**64 - 1], k=99)
    seen = Seen()
    new = [number for number in numbers if seen.add(number)]
    assert sorted(new) == sorted(set(numbers))
    assert seen.greatest == 2**64 - 1


def test_a_million_numbers_are_remembered_in_a_bit_each() -> None:
    seen = Seen()
    for number in range(1, 1_000_001):
        seen.add(number)
    assert sum(sys.getsizeof(bits) for bits in seen._chunks.values()) < 200_000


def test_a_compaction_is_told_with_its_archive_and_a_legacy_one_without() -> None:
    told = "compacted: what was said so far is in the archive crab-1"
    assert compaction_told("crab-1") == told
    assert compaction_told("") == "the history begins anew"
    assert what_happened(shown(_1="a", _2="b"), shown(), "", "crab-1") == [told]


def test_a_history_begins_anew_where_all_of_it_is_later() -> None:
    assert begins_anew([1, 2], [4, 5])
    assert begins_anew([1, 2], [])
    assert not begins_anew([1, 2], [2, 3])


def test_the_removal_of_all_steps_is_told_even_if_others_come() -> None:
    told = ["steps 1-2 were removed"]
    assert what_happened(shown(_1="a", _2="b"), shown(), "", "") == told
    assert what_happened(shown(_1="a", _2="b"), shown(_7="a"), "", "") == told


def test_the_removal_of_a_compaction_is_told() -> None:
    told = what_happened(shown(_5="c"), shown(_1="a", _5="c"), "crab-1", "")
    assert told == ["a compaction was removed: what it had hidden is in the history again"]
    told = what_happened(shown(_9="c"), shown(_5="b", _9="c"), "crab-2", "crab-1")
    assert told == ["the history now begins after the archive crab-1"]


def test_removed_replaced_and_back_filled_steps_are_told_by_their_numbers() -> None:
    before = shown(_1="a", _2="b", _3="c", _4="d", _9="e")
    now = shown(_1="a", _4="D", _6="x", _7="y", _9="e", _10="new")
    assert what_happened(before, now, "", "") == [
        "steps 2-3 were removed",
        "step 4 was replaced, and not printed again",
        "steps 6-7 were back-filled",
    ]


def test_a_history_that_only_grows_needs_no_explanation() -> None:
    assert what_happened(shown(_1="a"), shown(_1="a", _2="b"), "", "") == []
    assert what_happened(shown(), shown(_1="a"), "", "") == []


def test_many_runs_are_not_all_told() -> None:
    before = Shown(array("Q", range(1, 101)), array("q", range(1, 101)))
    now = Shown(array("Q", range(2, 101, 2)), array("q", range(2, 101, 2)))
    (told,) = what_happened(before, now, "", "")
    assert told == "steps 1, 3, 5, 7, 9, 11, 13, 15 and 42 more runs were removed"


def test_numbers_are_told_from_any_line_on() -> None:
    runs = [(3, 5), (9, 9), (20, 2**64 - 1)]
    assert runs_told(runs, 0) == "3-5,9-9,20-18446744073709551615"
    assert runs_told(runs, 2).startswith("5-5,9-9,20-")
    assert runs_told(runs, 3).startswith("9-9,20-")
    assert runs_told([(1, 4)], 4) == NONE
    assert list(numbers_told("3-5,9")) == [3, 4, 5, 9]


def test_any_number_of_numbers_is_told_in_answers_that_fit_into_a_link() -> None:
    greatest = 2**64 - 1
    numbers = list(range(greatest - 10_001, greatest + 1, 2))
    known: list[int] = []
    while (answer := runs_told(((number, number) for number in numbers), len(known))) != NONE:
        assert len(answer) < 4096
        known.extend(numbers_told(answer))
    assert known == numbers
