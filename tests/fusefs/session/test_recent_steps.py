"""What is remembered of the steps that a mount stored, as events report what happens to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.session.reach import GAP
from fusefs.session.recent_steps import RecentSteps
from fusefs.session.step_table import Remembered
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
    numbers = {step.number for step in recent.doubted(100)}
    assert numbers >= set(gone + others)
    assert not recent.doubted(100)
    recent.looked(recent.kept(gone), recent.kept(others))


@pytest.mark.guarantee("G16a")
def test_what_a_daemon_renames_over_is_displaced_and_what_is_stored_again_is_kept() -> None:
    recent = remembering(2, 3, 4)
    daemon(recent, 2, 3)
    assert list(recent.displaced_numbers()) == [2, 3]
    target = recent.refuge(4)
    assert target == 4 + GAP
    for step in recent.to_restore(10):
        recent.restored(step, target, target)
        target += 1
    assert not recent.displaced
    assert recent.order.to_move(10) == [4]


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
    daemon(recent, 10)  # one daemon will write 11 next
    for number in (11, 12, 30):
        recent.remember(number, number, b"{}")
    daemon(recent, 20)  # another daemon, which began later
    assert len(recent) == 3
    daemon(recent, 11)
    assert list(recent.displaced_numbers()) == [11]
    daemon(recent, 12, *range(13, 20))
    assert list(recent.displaced_numbers()) == [11, 12]
    assert [step.number for step in recent.kept((30,))] == [30]
    daemon(recent, 21, *range(22, 32))
    assert list(recent.displaced_numbers()) == [11, 12, 30]


@pytest.mark.guarantee("G16d")
def test_no_step_counts_as_passed_while_it_is_doubted() -> None:
    recent = remembering(1, 2)
    recent.doubt()  # the event about step 1 was lost
    daemon(recent, 2)
    looked(recent, gone=[], others=[1])
    assert list(recent.displaced_numbers()) == [1, 2]


@pytest.mark.guarantee("G16d")
def test_after_lost_events_all_steps_are_checked_and_replaced_ones_are_displaced() -> None:
    recent = remembering(*range(1, 6))
    recent.doubt()
    assert recent.owed
    looked(recent, gone=[2], others=[3, 4])
    assert list(recent.displaced_numbers()) == [3, 4]
    assert [step.number for step in recent.kept(range(1, 6))] == [1, 5]
    assert not recent.doubtful


@pytest.mark.guarantee("G16d")
def test_what_happens_to_a_step_before_it_is_remembered_counts() -> None:
    recent = RecentSteps(StepTexts())
    with recent.claiming():
        daemon(recent, 1)
        recent.forget(2)
        recent.forget(3)
        recent.created(3)
        for number in (1, 2, 3):
            recent.remember(number, number, b"{}")
    assert list(recent.displaced_numbers()) == [1]
    assert [step.number for step in recent.kept((2, 3))] == [3]


@pytest.mark.guarantee("G16d")
def test_a_step_whose_name_was_created_again_before_it_is_remembered_is_examined() -> None:
    recent = RecentSteps(StepTexts())
    with recent.claiming():
        daemon(recent, 1)  # after our claim
        recent.created(1)  # by another mount, once that was removed
        recent.remember(1, 1, b"{}")
    assert recent.doubted(10) == recent.kept((1,))


@pytest.mark.guarantee("G16d")
def test_a_step_whose_claim_is_among_lost_events_is_examined_and_not_forgotten() -> None:
    recent = RecentSteps(StepTexts())
    with recent.claiming():
        recent.forget(1)  # its name is free, and claimed next; the event of that is lost
        recent.doubt()
        recent.remember(1, 1, b"{}")
    assert recent.doubted(10) == recent.kept((1,))
    assert len(recent) == 1


@pytest.mark.guarantee("G16d")
def test_a_step_that_was_not_moved_is_checked_again() -> None:
    recent = remembering(1, 2, 3)
    with recent.claiming():
        one, two, three = recent.take((1, 2, 3))
        recent.forget(1)  # the event of the mount's own move
        recent.restored(one, 1005, 1)
        daemon(recent, 2)
        recent.back(two)
        recent.back(three)
    assert list(recent.displaced_numbers()) == [2]
    assert recent.doubted(10) == recent.kept((3,))
    assert len(recent) == 3


@pytest.mark.guarantee("G16b")
def test_a_compaction_in_its_place_is_never_moved() -> None:
    recent = remembering(1)
    recent.remember(2, 2, b"{}", archive="archive")
    recent.remember(3, 3, b"{}")
    daemon(recent, 1)
    (step,) = recent.to_restore(1)
    recent.restored(step, 1003, 1)
    assert recent.order.to_move(10) == [3]


@pytest.mark.guarantee("G16a")
def test_restored_steps_out_of_reach_need_no_second_gap() -> None:
    recent = remembering(1, 2)
    daemon(recent, 1)
    (step,) = recent.to_restore(1)
    first = recent.refuge(2)
    recent.restored(step, first, 1)
    assert recent.refuge(first) == first + 1
    assert recent.refuge(first + 1) == first + 1 + GAP  # behind a step of another writer
    assert recent.refuge(998_500) == 998_501


WORDS = st.sampled_from(["remember", "daemon", "restore", "find", "take", "move", "back", "forget"])


@pytest.mark.guarantee("G16a")
@given(st.lists(st.tuples(WORDS, st.integers(0, 30)), max_size=60), st.integers(1, 4))
def test_whatever_happens_to_them_steps_end_up_in_order(
    operations: list[tuple[str, int]], most: int
) -> None:
    recent, greatest = RecentSteps(StepTexts()), 0
    taken: list[Remembered] = []
    archive: str | None
    for word, choice in operations:
        displaced = recent.to_restore(choice + 1)
        match word:
            case "remember":
                greatest += 1
                archive = f"archive {choice}" if choice == 0 else None
                recent.remember(greatest, greatest, b"{}", archive)
            case "daemon":
                daemon(recent, choice)
            case "forget":
                recent.forget(choice)
            case "restore" if displaced and recent.archive(displaced[-1]) is None:
                greatest += 1
                recent.restored(displaced[-1], greatest, greatest)
            case "find" if displaced:
                recent.found(displaced[-1])
            case "take" if not displaced and not taken:
                taken = recent.take(recent.order.to_move(most))
            case "move" if taken:
                greatest += 1
                recent.restored(taken.pop(0), greatest, greatest)
            case "back":
                while taken:
                    recent.back(taken.pop(0))
    while taken:
        recent.back(taken.pop(0))
    for step in recent.to_restore(100):
        recent.given_up(step)
    while recent.order.broken:
        for step in recent.take(recent.order.to_move(most)):
            greatest += 1
            recent.restored(step, greatest, greatest)
    left = [step for step in recent.kept(range(greatest + 1)) if recent.archive(step) is None]
    assert [step.at for step in left] == sorted(step.at for step in left)


@pytest.mark.guarantee("G19c")
def test_the_work_at_a_time_does_not_grow_with_the_steps_remembered() -> None:
    recent = remembering(*range(1, 5001))
    recent.doubt()
    assert [len(recent.doubted(2000)) for _ in range(4)] == [2000, 2000, 1000, 0]
    daemon(recent, 1)
    (step,) = recent.to_restore(10)
    recent.restored(step, 6001, 6001)
    assert recent.order.to_move(3) == [2, 3, 4]
    recent = remembering(*range(1, 5001))
    daemon(recent, 4000)  # it has counted past 3999 of them
    assert 4900 < len(recent) < 5000


@pytest.mark.guarantee("G19c", "G23a")
def test_the_steps_of_a_deleted_session_are_forgotten_in_parts() -> None:
    texts = StepTexts()
    recent = RecentSteps(texts)
    for number in range(1, 101):
        recent.remember(number, number, b"{}")
    daemon(recent, 1)
    recent.clear()
    assert len(recent) == 0
    recent.remember(101, 101, b"{}")
    sizes = []
    while recent.owed:
        recent.let_go(40)
        sizes.append(texts.size)
    assert sizes == [122, 42, 2]
    assert len(recent) == 1
