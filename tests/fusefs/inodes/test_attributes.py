"""How modes and owners shown by a mount follow from those in the store."""

from __future__ import annotations

import os
import stat

import pytest

from fusefs.config import MountOptions, parse
from fusefs.inodes.attributes import Rights, Rules

MOUNTER = (7, 8)
ANA, BEN = (1001, 1002), (2001, 2002)


def status(bits: int, owner: tuple[int, int] = ANA, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | bits, 1, 1, 1, *owner, 0, 0, 0, 0))


def directory(bits: int, owner: tuple[int, int] = ANA) -> os.stat_result:
    return status(bits, owner, stat.S_IFDIR)


RULES = Rules(MountOptions(), MOUNTER)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize(
    ("meta", "shown"),
    [(0o644, 0o444), (0o600, 0o400), (0o640, 0o440), (0o222, 0), (0o4777, 0o444), (0o004, 0o004)],
)
def test_a_view_is_read_by_whoever_may_read_the_meta(meta: int, shown: int) -> None:
    assert RULES.view(status(meta)) == Rights(*ANA, shown)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize(
    ("bits", "shown"),
    [
        (0o755, 0o644),
        (0o700, 0o600),
        (0o770, 0o660),
        (0o777, 0o666),
        (0o1777, 0o666),
        (0o2775, 0o664),
        (0o711, 0o644),
        (0o722, 0o600),
        (0o333, 0o666),
        (0o555, 0o444),
        (0o644, 0),
    ],
)
def test_append_is_written_by_whoever_may_create_files_in_the_directory(
    bits: int, shown: int
) -> None:
    assert RULES.append(directory(bits)) == Rights(*ANA, shown)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize(
    ("bits", "meta", "shown"),
    [
        (0o755, 0o644, 0o644),
        (0o777, 0o600, 0o622),
        (0o700, 0o644, 0o644),
        (0o770, 0o640, 0o660),
        (0o744, 0o644, 0o644),
        (0o766, 0o644, 0o644),
        (0o555, 0o666, 0o444),
    ],
)
def test_other_controls_are_read_as_the_meta_and_written_as_append(
    bits: int, meta: int, shown: int
) -> None:
    assert RULES.control(directory(bits), status(meta)) == Rights(*ANA, shown)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize(
    ("meta", "readable"),
    [(0o644, 0o444), (0o640, 0), (0o600, 0), (0o604, 0), (0o666, 0o444)],
)
def test_where_owners_differ_a_control_is_read_only_if_anybody_may_read_the_meta(
    meta: int, readable: int
) -> None:
    """Only the directory's owner is shown, and the meta's bits say nothing about its rights."""
    for owner in (BEN, (ANA[0], BEN[1]), (BEN[0], ANA[1])):
        rights = RULES.control(directory(0o755), status(meta, owner))
        assert rights == Rights(*ANA, 0o200 | readable)


@pytest.mark.guarantee("G21a")
def test_directories_are_as_in_the_store() -> None:
    for bits in (0o755, 0o700, 0o2775, 0o1777, 0):
        assert RULES.directory(directory(bits)) == Rights(*ANA, bits)


@pytest.mark.guarantee("G21c")
@pytest.mark.parametrize(
    ("root", "file", "folder"),
    [(0o755, 0o444, 0o555), (0o700, 0o400, 0o500), (0o711, 0o400, 0o500), (0o750, 0o440, 0o550)],
)
def test_files_that_reveal_no_more_than_a_listing_are_for_whoever_may_list(
    root: int, file: int, folder: int
) -> None:
    assert RULES.public(directory(root), directory=False) == Rights(*ANA, file)
    assert RULES.public(directory(root), directory=True) == Rights(*ANA, folder)


@pytest.mark.guarantee("G21c")
def test_files_that_reveal_all_sessions_are_for_the_mounting_user() -> None:
    assert RULES.private() == Rights(*MOUNTER, 0o400)


@pytest.mark.guarantee("G21a")
def test_options_replace_owners_and_take_bits_away() -> None:
    rules = Rules(parse(["uid=5,gid=6,umask=027"]), MOUNTER)
    assert rules.view(status(0o666)) == Rights(5, 6, 0o440)
    assert rules.append(directory(0o777)) == Rights(5, 6, 0o640)
    assert rules.directory(directory(0o777)) == Rights(5, 6, 0o750)
    assert Rules(parse(["uid=5"]), MOUNTER).view(status(0o644)) == Rights(5, ANA[1], 0o444)
