"""Where the histories of a session begin and end, for each cut, as its steps change (G29, G30)."""

from __future__ import annotations

import errno

import pytest

from fusefs.session.extents import Extents
from fusefs.views.cuts import AtStep, AtTime, Cut, InEpoch
from storage.errors import StoreError
from storage.session.epochs import Seen
from storage.session.index import Index
from storage.session.replay import Boundary


def indexed(*numbers: int) -> Index:
    index = Index()
    for number in numbers:
        index.add(f"step-{number:06}")
    return index


def surveyed(extents: Extents, index: Index, *compactions: int) -> None:
    """Check all steps, as `survey` does."""
    while (look := extents.compactions.next_pass(index)) is not None:
        numbers = list(look.numbers)
        seen = [number for number in compactions if number in numbers]
        extents.compactions.found(look, Seen(len(numbers), seen))


@pytest.mark.guarantee("G30a")
@pytest.mark.parametrize(
    ("cut", "end"),
    [
        (None, 9),
        (AtStep(9), 9),
        (AtStep(5), 4),
        (AtStep(1), 0),
        (AtStep(0), 0),
        (AtTime("1970-01-01T00:00:00Z", 0), 9),
        (InEpoch(1), 3),
        (InEpoch(2), 7),
        (InEpoch(3), 9),
    ],
)
def test_the_last_step_that_a_cut_leaves(cut: Cut | None, end: int) -> None:
    extents, index = Extents("a_b_1"), indexed(2, 3, 4, 6, 7, 8, 9)
    surveyed(extents, index, 4, 8)
    assert extents.end(cut, index) == end


@pytest.mark.guarantee("G29b")
def test_an_epoch_that_no_longer_exists_is_not_a_valid_name() -> None:
    extents, index = Extents("a_b_1"), indexed(1, 2, 3)
    surveyed(extents, index, 2)
    extents.begins(InEpoch(2), Boundary(2, "name"))
    index.discard("step-000002")
    extents.changed(2)
    surveyed(extents, index)
    with pytest.raises(StoreError) as refused:
        extents.end(InEpoch(2), index)
    assert refused.value.errno == errno.ENOENT
    assert extents.end(InEpoch(1), index) == 3


def test_a_beginning_is_known_until_its_compaction_changes() -> None:
    extents = Extents("a_b_1")
    boundary = Boundary(4, "name")
    extents.begins(None, boundary)
    extents.changed(5)
    assert extents.boundary(None) == boundary
    extents.changed(4)
    assert extents.boundary(None) is None
    extents.begins(None, boundary)
    extents.forget_all()
    assert extents.boundary(None) is None


@pytest.mark.parametrize(("number", "same"), [(2, False), (5, False), (6, False), (7, True)])
def test_a_beginning_stays_the_same_until_a_step_changes_on_which_its_lead_depends(
    number: int, same: bool
) -> None:
    extents = Extents("a_b_1")
    extents.begins(None, Boundary(4, "name"))
    beginning = extents.beginning(None)
    assert beginning is not None
    beginning.reach = 6
    extents.changed(number)
    assert (extents.beginning(None) is beginning) is same
    assert extents.boundary(None) == Boundary(4, "name")


def test_as_long_as_nobody_knows_on_which_steps_a_lead_depends_each_of_them_counts() -> None:
    extents = Extents("a_b_1")
    extents.begins(None, Boundary(4, "name"))
    beginning = extents.beginning(None)
    extents.changed(1000)
    assert extents.beginning(None) is not beginning


@pytest.mark.guarantee("G30b")
def test_the_time_of_a_step_matters_to_beginnings_at_a_time_alone() -> None:
    extents, then = Extents("a_b_1"), AtTime("1970-01-01T00:00:00Z", 0)
    for cut in (None, AtStep(9), then):
        extents.begins(cut, Boundary(4, "name"))
    extents.redated(4)
    known = [extents.boundary(cut) is not None for cut in (None, AtStep(9), then)]
    assert known == [True, True, False]


def test_only_what_nobody_uses_any_more_is_forgotten() -> None:
    extents = Extents("a_b_1")
    extents.begins(None, Boundary(4, "name"))
    extents.begins(AtStep(9), Boundary(4, "name"))
    extents.forget(AtStep(9))
    assert extents.boundary(AtStep(9)) is None
    assert extents.boundary(None) == Boundary(4, "name")


def test_a_beginning_that_contradicts_the_survey_has_both_checked_again() -> None:
    extents, index = Extents("a_b_1"), indexed(1, 2, 3, 4)
    surveyed(extents, index, 2)
    extents.begins(InEpoch(2), Boundary(3, "name"))
    assert extents.boundary(InEpoch(2)) is None
    look = extents.compactions.next_pass(index)
    assert look is not None
    assert list(look.numbers) == [2, 3]
