"""A step is moved to another number; a daemon's step found there keeps its name (G16)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StoreError
from storage.posix import rename_new
from storage.session import moving
from storage.session.claims import Claimer
from storage.session.moving import Mover
from storage.session.steps import Ownership, step_identity, step_name


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "meta").write_bytes(b"{}")
    return tmp_path


@pytest.fixture
def claimer(session: Path) -> Iterator[Claimer]:
    descriptor = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
    yield Claimer(descriptor, unnamed=False)
    os.close(descriptor)


@pytest.fixture(params=["rename", "link"])
def mover(claimer: Claimer, request: pytest.FixtureRequest) -> Mover:
    return Mover(claimer, renames=request.param == "rename")


def claim(claimer: Claimer, number: int, data: bytes) -> int:
    assert claimer.claim(number, data, Ownership(0o640, None)).number == number
    return number


def identity(session: Path, number: int) -> int:
    return step_identity((session / step_name(number)).stat())


def daemon_writes(session: Path) -> None:
    temporary = session / "step-000001.tmp.9"
    temporary.write_bytes(b"the daemon's")
    temporary.rename(session / step_name(1))


def holding(session: Path, data: bytes) -> list[str]:
    return [name for name in os.listdir(session) if (session / name).read_bytes() == data]


@pytest.mark.guarantee("G16a")
def test_a_step_is_moved_behind_others_and_keeps_its_bytes(
    session: Path, claimer: Claimer, mover: Mover
) -> None:
    for number in (1, 2, 7):
        claim(claimer, number, b"%d" % number)
    assert mover.move(1, identity(session, 1), 7) == 8
    assert sorted(os.listdir(session)) == ["meta", "step-000002", "step-000007", "step-000008"]
    assert (session / "step-000008").read_bytes() == b"1"


@pytest.mark.guarantee("G16a", "G16f")
def test_a_step_that_another_writer_has_replaced_stays_where_it_is(
    session: Path, claimer: Claimer, mover: Mover
) -> None:
    claim(claimer, 1, b"mine")
    mine = identity(session, 1)
    daemon_writes(session)
    assert mover.move(1, mine, 7) is None
    assert mover.move(2, mine, 7) is None
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G16a", "G16f")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_replaced_while_it_is_moved_gets_its_name_back(
    session: Path, claimer: Claimer, mover: Mover, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    claim(claimer, 1, b"mine")
    mine = identity(session, 1)

    def beside(place: Any, name: str) -> None:
        call: Callable[..., None] = getattr(place, name)

        def called(*names: Any, **where: Any) -> None:
            monkeypatch.setattr(place, name, call)
            if when == "before":
                daemon_writes(session)
            call(*names, **where)
            if when == "after":
                daemon_writes(session)

        monkeypatch.setattr(place, name, called)

    beside(os, "link")
    beside(moving, "rename_new")
    moved = mover.move(1, mine, 7)
    assert (session / "step-000001").read_bytes() == b"the daemon's"
    assert holding(session, b"the daemon's") == ["step-000001"]
    assert holding(session, b"mine") == ([] if moved is None else [step_name(moved)])


@pytest.mark.guarantee("G18a")
def test_a_step_that_is_moved_has_one_name_at_any_time(
    session: Path, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(claimer, 1, b"mine")
    names: list[str] = []

    def looked_at(*where: Any) -> None:
        names.extend(holding(session, b"mine"))
        rename_new(*where)
        names.extend(holding(session, b"mine"))

    monkeypatch.setattr(moving, "rename_new", looked_at)
    assert Mover(claimer, renames=True).move(1, identity(session, 1), 7) == 7
    assert names == ["step-000001", "step-000007"]


@pytest.mark.guarantee("G16a")
def test_without_exclusive_rename_a_step_is_moved_by_link(
    session: Path, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(moving, "rename_new", unknown)
    claim(claimer, 1, b"mine")
    assert Mover(claimer, renames=True).move(1, identity(session, 1), 7) == 7
    assert holding(session, b"mine") == ["step-000007"]


@pytest.mark.guarantee("G16e")
def test_a_refusal_by_the_file_system_is_reported(
    session: Path, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(moving, "rename_new", full)
    claim(claimer, 1, b"mine")
    with pytest.raises(StoreError) as caught:
        Mover(claimer, renames=True).move(1, identity(session, 1), 7)
    assert caught.value.errno == errno.ENOSPC
    assert holding(session, b"mine") == ["step-000001"]
