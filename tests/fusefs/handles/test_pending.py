"""Unfinished input is bounded, and no user can take the room of all others."""

from __future__ import annotations

import errno

import pytest

from fusefs.handles.pending import PendingBudget
from storage.errors import StoreError


def _refused(budget: PendingBudget, user: int, before: int, after: int) -> bool:
    held = budget.bytes
    try:
        budget.resize(user, before, after)
    except StoreError as error:
        assert error.errno == errno.ENOBUFS
        assert budget.bytes == held
        return True
    return False


@pytest.mark.guarantee("G23e")
def test_a_user_gets_half_of_what_others_leave_and_everybody_something() -> None:
    budget = PendingBudget(1024)
    assert not _refused(budget, 1, 0, 512)
    assert _refused(budget, 1, 0, 1)
    assert not _refused(budget, 2, 0, 256)
    assert _refused(budget, 2, 256, 257)
    assert not _refused(budget, 3, 0, 128)
    assert budget.bytes < 1024


@pytest.mark.guarantee("G23e")
def test_what_is_released_is_free_room_again() -> None:
    budget = PendingBudget(1024)
    budget.resize(1, 0, 300)
    budget.resize(1, 0, 200)
    assert _refused(budget, 1, 200, 300)
    budget.resize(1, 300, 0)
    assert not _refused(budget, 1, 200, 500)
    budget.resize(1, 500, 0)
    assert budget.bytes == 0
