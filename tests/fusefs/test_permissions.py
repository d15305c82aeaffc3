"""What a caller may do in a session follows from the mode bits, as in the kernel (G21)."""

from __future__ import annotations

import os
import stat
from itertools import product
from pathlib import Path

import pytest

from fusefs.failures import Caller
from fusefs.permissions import may_change, may_read

OWNER, GROUP, OTHER = 61001, 61002, 61003
CALLERS = {
    "owner": Caller(0, OWNER, OTHER),
    "group": Caller(0, OTHER, GROUP),
    "other": Caller(0, OTHER, OTHER),
}
SHIFTS = {"owner": 6, "group": 3, "other": 0}


def status(mode: int) -> os.stat_result:
    """The result of stat(2) for a directory with the test's owner and group."""
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, OWNER, GROUP, 0, 0, 0, 0))


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize("who", CALLERS)
def test_the_bits_of_ones_own_class_count_and_no_others(who: str) -> None:
    for mode in range(0o1000):
        bits = mode >> SHIFTS[who] & 0o7
        assert may_change(status(mode), CALLERS[who]) is (bits & 0o3 == 0o3)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize("who", CALLERS)
def test_reading_requires_search_in_the_directory_and_read_of_the_meta(who: str) -> None:
    for directory, meta in product(range(8), repeat=2):
        shift = SHIFTS[who]
        may = may_read(status(directory << shift), status(meta << shift), CALLERS[who])
        assert may is bool(directory & 1 and meta & 4)


def test_root_may_do_everything() -> None:
    root = Caller(0, 0, 0)
    assert may_change(status(0), root)
    assert may_read(status(0), status(0), root)


@pytest.mark.skipif(not os.getgroups(), reason="the process is in no other groups")
def test_groups_beside_the_first_count_too() -> None:
    group = os.getgroups()[-1]
    found = os.stat_result((stat.S_IFDIR | 0o030, 1, 1, 1, OWNER, group, 0, 0, 0, 0))
    assert may_change(found, Caller(os.getpid(), OTHER, OTHER))
    assert not may_change(found, Caller(0, OTHER, OTHER))


def test_of_a_process_that_has_ended_only_its_first_group_is_known() -> None:
    ended = 4_000_000
    assert not Path(f"/proc/{ended}").exists()
    assert may_change(status(0o030), Caller(ended, OTHER, GROUP))
    assert not may_change(status(0o030), Caller(ended, OTHER, OTHER))
