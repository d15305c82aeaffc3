"""Events of a directory: each change of a name in order, or the fact that some were lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs import inotify
from fusefs.inotify import Change, EventsLostError, Watcher
from storage.session.claims import Claimer
from storage.session.steps import Ownership


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def directory(tmp_path: Path, watcher: Watcher) -> Path:
    assert watch(watcher, tmp_path) is not None
    return tmp_path


def watch(watcher: Watcher, path: Path) -> int | None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return watcher.add(fd)
    finally:
        os.close(fd)


def test_without_changes_there_are_no_events(watcher: Watcher, directory: Path) -> None:
    assert watcher.drain() == []
    assert os.listdir(directory) == []


@pytest.mark.guarantee("G12a")
def test_the_event_of_a_call_is_there_once_it_has_returned(
    watcher: Watcher, directory: Path
) -> None:
    for number in range(50):
        (directory / f"step-{number:06}").touch()
        assert [c.name for c in watcher.drain() if c.appeared] == [f"step-{number:06}"]
        (directory / f"step-{number:06}").unlink()
        assert [c.name for c in watcher.drain() if c.disappeared] == [f"step-{number:06}"]


def test_a_rename_reports_its_source_even_if_split_over_two_drains(
    watcher: Watcher, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "step-000001.tmp.7").write_bytes(b"{}")
    watcher.drain()
    (directory / "step-000001.tmp.7").rename(directory / "step-000001")
    first_event = 16 + 32  # a header, and the name with its padding
    with monkeypatch.context() as patched:
        patched.setattr(watcher, "_queued", lambda: first_event)
        first = watcher.drain()
    second = watcher.drain()
    assert [(c.name, c.disappeared) for c in first] == [("step-000001.tmp.7", True)]
    assert [(c.name, c.appeared, c.moved_from, c.unsure) for c in second] == [
        ("step-000001", True, "step-000001.tmp.7", False)
    ]


def test_a_file_moved_in_from_elsewhere_has_no_source_name(
    watcher: Watcher, tmp_path_factory: pytest.TempPathFactory, directory: Path
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.touch()
    elsewhere.rename(directory / "step-000001")
    assert [(c.moved_from, c.unsure) for c in watcher.drain() if c.appeared] == [("", False)]


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_claim_of_a_step_is_one_name_that_appears(
    watcher: Watcher, directory: Path, unnamed: bool
) -> None:
    """There is no event for the unnamed file, and no name of a temporary is a step name."""
    (directory / "meta").touch()
    watcher.drain()
    fd = os.open(directory, os.O_RDONLY)
    Claimer(fd, unnamed).claim(1, b"{}", Ownership(0o640, None))
    os.close(fd)
    found = [change for change in watcher.drain() if not change.name.startswith(".stepfs-")]
    assert [(c.name, c.appeared, c.attributes) for c in found if c.name != "step-000001"] == []
    assert [c.appeared for c in found].count(True) == 1


def test_a_writers_temporary_causes_one_event_however_often_it_is_written(
    watcher: Watcher, directory: Path
) -> None:
    """Not for each write: a daemon writes metas and steps through temporaries."""
    with (directory / "meta.tmp.7").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x")
    assert [change.name for change in watcher.drain()] == ["meta.tmp.7"]


def test_the_removal_of_a_directory_is_reported(watcher: Watcher, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    number = watch(watcher, inner)
    inner.rename(tmp_path / "moved")
    assert Change(number or 0, "", gone=True) in watcher.drain()


def test_lost_events_are_reported_and_half_renames_are_uncertain_afterwards(
    watcher: Watcher, directory: Path
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (directory / "a.tmp").touch()
    for number in range(limit // 2 + 10):
        name = "ab"[number % 2]
        (directory / f"{name}.tmp").rename(directory / f"{'ba'[number % 2]}.tmp")
    with pytest.raises(EventsLostError):
        watcher.drain()
    watcher._moving.clear()
    left = next(directory.iterdir())
    left.rename(directory / "step-000001")
    assert [c.unsure for c in watcher.drain() if c.name == "step-000001"] == [False]


def test_two_descriptors_of_one_directory_share_a_watch_until_both_are_done(
    watcher: Watcher, directory: Path
) -> None:
    number = watch(watcher, directory)
    assert number is not None
    assert watcher.watches == 1
    watcher.remove(number)
    (directory / "still").touch()
    assert [change.name for change in watcher.drain() if change.appeared] == ["still"]
    watcher.remove(number)
    (directory / "no more").touch()
    assert [change.name for change in watcher.drain()] in ([], [""])
    assert watcher.watches == 0


def test_renames_whose_other_half_never_comes_are_forgotten(
    watcher: Watcher, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for number in range(4 * inotify._MOVES):
        (directory / f"{number}").touch()
        (directory / f"{number}").rename(elsewhere / f"{number}")
    watcher.drain()
    assert len(watcher._moving) <= inotify._MOVES
