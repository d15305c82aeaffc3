"""What is remembered of the steps that a mount stored, as events say what befell them."""

from __future__ import annotations

import pytest

from fusefs.session.recent_steps import GAP, RecentSteps
from fusefs.session.step_texts import StepTexts


def remembering(*numbers: int) -> RecentSteps:
    recent = RecentSteps(StepTexts())
    for number in numbers:
        recent.remember(number, number, b"{%d}" % number)
    return recent


def daemon(recent: RecentSteps, *numbers: int) -> None:
    for number in numbers:
        recent.moved_over(number, f"step-{number:06}.tmp.1")


def looked(recent: RecentSteps, gone: list[int], others: list[int]) -> None:
    numbers = recent.doubted()
    assert set(gone + others) <= set(numbers)
    recent.looked(recent.kept(gone), recent.kept(others))


@pytest.mark.guarantee("G16a")
def test_what_a_daemon_renames_over_is_displaced_and_what_is_stored_again_is_kept() -> None:
    recent = remembering(2, 3, 4)
    daemon(recent, 2, 3)
    assert recent.displaced_numbers() == [2, 3]
    target = recent.refuge(4)
    assert target == 4 + GAP
    for step in recent.to_restore(10):
        recent.restored(step, target, target)
        target += 1
    assert not recent.displaced
    assert recent.to_move() == [4]


@pytest.mark.guarantee("G16c")
@pytest.mark.parametrize("source", ["sedAbC", "step-000003.tmp.1", "draft", ""])
def test_what_is_edited_or_removed_is_forgotten(source: str) -> None:
    recent = remembering(2, 3)
    recent.moved_over(2, source)
    recent.forget(3)
    assert len(recent) == 0
    assert not recent.owed


@pytest.mark.guarantee("G16d")
def test_a_step_is_forgotten_only_when_every_daemon_has_counted_past_it() -> None:
    recent = RecentSteps(StepTexts())
    daemon(recent, 10)  # one daemon is to write 11 next
    for number in (11, 12, 30):
        recent.remember(number, number, b"{}")
    daemon(recent, 20)  # another, that began later
    assert len(recent) == 3
    daemon(recent, 11)
    assert recent.displaced_numbers() == [11]
    daemon(recent, 12, *range(13, 20))
    assert recent.displaced_numbers() == [11, 12]
    assert [step.number for step in recent.kept((30,))] == [30]
    daemon(recent, 21, *range(22, 32))
    assert recent.displaced_numbers() == [11, 12, 30]


@pytest.mark.guarantee("G16d")
def test_lost_events_have_everything_looked_at_and_what_differs_displaced() -> None:
    recent = remembering(*range(1, 6))
    recent.doubt()
    assert recent.owed
    looked(recent, gone=[2], others=[3, 4])
    assert recent.displaced_numbers() == [3, 4]
    assert [step.number for step in recent.kept(range(1, 6))] == [1, 5]
    assert not recent.doubtful


@pytest.mark.guarantee("G16d")
def test_what_befalls_a_step_before_it_is_remembered_counts() -> None:
    recent = RecentSteps(StepTexts())
    with recent.claiming():
        daemon(recent, 1)
        recent.forget(2)
        recent.forget(3)
        recent.created(3)
        for number in (1, 2, 3):
            recent.remember(number, number, b"{}")
    assert recent.displaced_numbers() == [1]
    assert [step.number for step in recent.kept((2, 3))] == [3]


@pytest.mark.guarantee("G16d")
def test_a_step_that_was_not_moved_is_looked_at_again() -> None:
    recent = remembering(1, 2, 3)
    with recent.claiming():
        one, two, three = recent.take((1, 2, 3))
        recent.forget(1)  # the event of the mount's own move
        recent.restored(one, 1005, 1)
        daemon(recent, 2)
        recent.back(two)
        recent.back(three)
    assert recent.displaced_numbers() == [2]
    assert list(recent.doubted()) == [3]
    assert len(recent) == 3


@pytest.mark.guarantee("G16b")
def test_a_compaction_in_its_place_is_never_moved() -> None:
    recent = remembering(1)
    recent.remember(2, 2, b"{}", archive="archive")
    recent.remember(3, 3, b"{}")
    daemon(recent, 1)
    (step,) = recent.to_restore(1)
    recent.restored(step, 1003, 1)
    assert recent.to_move() == [3]


@pytest.mark.guarantee("G16a")
def test_no_second_gap_is_left_behind_steps_that_are_out_of_reach() -> None:
    recent = remembering(1, 2)
    daemon(recent, 1)
    (step,) = recent.to_restore(1)
    first = recent.refuge(2)
    recent.restored(step, first, 1)
    assert recent.refuge(first) == first + 1
    assert recent.refuge(first + 1) == first + 1 + GAP  # behind another's step
    assert recent.refuge(998_500) == 998_501
