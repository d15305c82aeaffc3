"""Which epochs a session has had, and what its history was as of any step and time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.session import epochs, snapshot
from storage.session.epochs import Epochs, Look, Seen, compactions, scan_epochs
from storage.session.index import Index, scan
from storage.session.reader import Reader
from storage.session.snapshot import load
from tests.support import lives
from tests.support.lives import LIVES, Loaded, Steps
from tests.support.stores import StoreOnDisk, compaction, entry

LIVES_AND_EDITS = LIVES.flatmap(lambda steps: st.tuples(st.just(steps), lives.edited(steps)))


@contextmanager
def session_of(path: Path, steps: Mapping[int, bytes]) -> Iterator[int]:
    """A descriptor of a session with exactly these steps."""
    path.mkdir(exist_ok=True)
    session = StoreOnDisk(path).session(f"a_b_{len(os.listdir(path)) + 1}")
    directory = os.open(session.path, os.O_RDONLY)
    try:
        write(directory, {}, steps)
        yield directory
    finally:
        os.close(directory)


def write(directory: int, before: Mapping[int, bytes], after: Mapping[int, bytes]) -> list[int]:
    """Turn the steps `before` into the steps `after`; return the numbers that changed."""
    changed = [n for n in {**before, **after} if before.get(n) != after.get(n)]
    for number in changed:
        name = f"step-{number:06}"
        if number in after:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=directory)
            os.write(fd, after[number])
            os.close(fd)
        else:
            os.unlink(name, dir_fd=directory)
    return changed


def loaded_at(directory: int, last: int) -> Loaded:
    found = load(directory, last)
    assert found is not None
    return Loaded(found.archive, [step.data for step in found.history])


def ends(found: Epochs) -> list[int | None]:
    return [found.last_step(number) for number in range(1, len(found) + 1)]


def look_on(directory: int, found: Epochs) -> None:
    """Bring the epochs up to date with the directory."""
    index = scan(directory)
    while look := found.next_pass(index):
        found.found(look, compactions(Reader(directory), look.numbers, index.odd))


@pytest.mark.guarantee("G30a")
@given(steps=LIVES)
def test_the_history_at_every_step_is_what_the_reference_loads_of_the_steps_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps
) -> None:
    with session_of(tmp_path_factory.mktemp("at"), steps) as directory:
        for last in range(max(steps, default=0) + 3):
            assert loaded_at(directory, last) == lives.loaded(lives.cut(steps, last))


@pytest.mark.guarantee("G29a")
@given(steps=LIVES)
def test_every_epoch_is_what_the_reference_loads_just_before_its_compaction(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps
) -> None:
    with session_of(tmp_path_factory.mktemp("epochs"), steps) as directory:
        found = scan_epochs(Reader(directory), scan(directory))
        histories = [
            loaded_at(directory, max(steps, default=0) if end is None else end)
            for end in ends(found)
        ]
        assert histories == lives.epochs(steps)


@pytest.mark.guarantee("G29b")
@given(story=LIVES_AND_EDITS, more=LIVES)
def test_epochs_updated_after_changes_equal_those_of_a_fresh_scan(
    tmp_path_factory: pytest.TempPathFactory, story: tuple[Steps, Steps], more: Steps
) -> None:
    steps, after = story
    with session_of(tmp_path_factory.mktemp("edits"), steps) as directory:
        found = scan_epochs(Reader(directory), scan(directory))
        for number in write(directory, steps, after):
            found.changed(number)
        look_on(directory, found)
        assert ends(found) == ends(scan_epochs(Reader(directory), scan(directory)))
        top = max((*steps, *after), default=0)  # only numbers never used before
        grown = {**after, **{top + number: data for number, data in more.items()}}
        for number in write(directory, after, grown):
            found.changed(number)
        look_on(directory, found)
        assert ends(found) == ends(scan_epochs(Reader(directory), scan(directory)))


def test_a_step_that_changes_while_it_is_checked_is_checked_again(tmp_path: Path) -> None:
    with session_of(tmp_path, {1: entry("a"), 2: compaction("b"), 3: entry("c")}) as directory:
        found, index = Epochs(), scan(directory)
        look = found.next_pass(index)
        assert look is not None
        seen = compactions(Reader(directory), look.numbers, index.odd)
        write(directory, {2: b"-"}, {2: entry("no compaction any more")})
        found.changed(2)
        found.found(look, seen)
        look_on(directory, found)
        assert ends(found) == [None]


def test_a_pass_that_began_before_everything_was_forgotten_is_discarded() -> None:
    found, index = Epochs(), Index()
    index.add("step-000001")
    look = found.next_pass(index)
    assert look is not None
    found.forget()
    found.found(look, Seen(1, [1]))
    assert ends(found) == [None]
    assert found.next_pass(index) == Look(1, index.numbers, again=False)


def test_a_pass_that_failed_is_done_again() -> None:
    found, index = Epochs(), Index()
    index.add("step-000001")
    look = found.next_pass(index)
    assert look is not None
    found.failed(look)
    again = found.next_pass(index)
    assert again is not None
    assert list(again.numbers) == [1]
    assert found.next_pass(index) is None


def test_very_many_changes_are_checked_without_being_remembered_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "DOUBTFUL_STEPS", 10)
    found, index = Epochs(), Index()
    for number in range(1, 21):
        index.add(f"step-{number:06}")
    look = found.next_pass(index)
    assert look is not None
    found.found(look, Seen(20, [5]))
    for number in range(1, 12):
        found.changed(number)
    look = found.next_pass(index)
    assert look is not None
    assert list(look.numbers) == list(range(1, 21))


def test_a_pass_is_bounded_in_bytes_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "PASS_BYTES", 100)
    steps = {number: entry("x" * 40) for number in range(1, 12)}
    with session_of(tmp_path, {**steps, 9: compaction("nine")}) as directory:
        index = scan(directory)
        assert compactions(Reader(directory), index.numbers, index.odd).steps == 2
        assert ends(scan_epochs(Reader(directory), index)) == [8, None]


def test_a_directory_in_place_of_a_step_is_not_a_compaction(tmp_path: Path) -> None:
    with session_of(tmp_path, {1: compaction("a")}) as directory:
        os.mkdir("step-000002", dir_fd=directory)
        assert compactions(Reader(directory), [1, 2, 3], {}) == Seen(3, [1])


def test_there_is_no_epoch_zero_and_none_after_the_present_one() -> None:
    for number in (0, 2, -1):
        with pytest.raises(LookupError):
            Epochs().last_step(number)


@pytest.mark.guarantee("G30b")
@given(
    steps=LIVES,
    seconds=st.lists(st.integers(0, 3), min_size=80, max_size=80),
    until=st.integers(-1, 4),
)
def test_the_history_at_a_time_is_that_of_the_steps_stored_by_then(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps, seconds: list[int], until: int
) -> None:
    """The mtimes of steps need not be in the order of their numbers."""
    with session_of(tmp_path_factory.mktemp("times"), steps) as directory:
        for number in steps:
            time = (0, seconds[number] * 10**9)
            os.utime(f"step-{number:06}", ns=time, dir_fd=directory)
        found = load(directory, time_ns=until * 10**9)
        assert found is not None
        by_then = {n: data for n, data in steps.items() if seconds[n] <= until}
        expected = lives.loaded(by_then)
        assert (found.archive, [step.data for step in found.history]) == (
            expected.archive,
            expected.entries,
        )


def test_a_step_stored_at_the_very_nanosecond_is_there(tmp_path: Path) -> None:
    with session_of(tmp_path, {1: entry("a")}) as directory:
        os.utime("step-000001", ns=(0, 1_000_000_007), dir_fd=directory)
        assert Reader(directory).as_of(1_000_000_007).read("step-000001") == entry("a")
        with pytest.raises(FileNotFoundError):
            Reader(directory).as_of(1_000_000_006).read("step-000001")


def test_nothing_is_loaded_at_any_step_of_a_directory_without_meta(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert snapshot.load(directory, 3) is None
    finally:
        os.close(directory)
