"""Claims of step numbers, with the replies of every kind of file system (G15, G25)."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.ahead import Outcome
from storage.errors import StoreError
from storage.session.claims import Claimer
from storage.session.steps import Ownership, step_identity, step_name
from storage.session.tombstone import TOMBSTONE, is_deleted

LINK, STAT = os.link, os.stat
Link = Callable[..., None]


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "meta").write_bytes(b"{}")
    return tmp_path


@pytest.fixture(params=["unnamed", "named"])
def claimer(session_fd: int, request: pytest.FixtureRequest) -> Claimer:
    return Claimer(session_fd, unnamed=request.param == "unnamed")


@pytest.fixture
def named(session_fd: int) -> Claimer:
    return Claimer(session_fd, unnamed=False)


def claim(claimer: Claimer, first: int, data: bytes = b"{}", **how: bool) -> int:
    return claimer.claim(first, data, Ownership(0o640, None), **how).number


def answering(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, bool]) -> None:
    """Make link(2) fail as over a network: per call an errno, and whether the link was made anyway."""
    left = list(answers)

    def link(*names: Any, **where: Any) -> None:
        number, done = left.pop(0) if left else (0, True)
        if done:
            LINK(*names, **where)
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)


def not_looking(
    monkeypatch: pytest.MonkeyPatch, beginning: str, *numbers: int, ever: int = 0
) -> list[str]:
    """Make stat(2) of names with this beginning fail with these errnos, then with `ever`, if it is one;
    but only once this thread has tried a link. Returns `beginning` for each failure, and the pauses of
    claims, which are none."""
    tried, found, left, answered = list[int](), list[str](), list(numbers), os.link

    def link(*names: Any, **where: Any) -> None:
        if names[1].startswith("step-"):  # unlike that of a refresh
            tried.append(threading.get_ident())
        answered(*names, **where)

    def stat(name: Any, *rest: Any, **where: Any) -> os.stat_result:
        if threading.get_ident() not in tried or not str(name).startswith(beginning):
            return STAT(name, *rest, **where)
        if number := left.pop(0) if left else ever:
            found.append(beginning)
            raise OSError(number, os.strerror(number))
        return STAT(name, *rest, **where)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr("storage.session.claims.time.sleep", lambda _seconds: found.append("pause"))
    return found


@pytest.mark.guarantee("G15a")
def test_a_claim_is_the_first_free_number_and_leaves_nothing_else(
    session: Path, claimer: Claimer
) -> None:
    (session / "step-000002").write_bytes(b"other")
    assert [claim(claimer, 1, b"a"), claim(claimer, 2, b"b")] == [1, 3]
    assert (session / "step-000001").read_bytes() == b"a"
    assert (session / "step-000002").read_bytes() == b"other"
    assert (session / "step-000003").stat().st_mode & 0o777 == 0o640
    assert len(os.listdir(session)) == 4


@pytest.mark.guarantee("G24b")
def test_behind_many_taken_numbers_the_claim_is_the_greatest(
    session: Path, claimer: Claimer
) -> None:
    for number in (*range(1, 50), 1049):
        (session / step_name(number)).write_bytes(b"other")
    assert claim(claimer, 1) == 1050


@pytest.mark.guarantee("G15a", "G27a")
def batch_of(named: Claimer, *args: Any, **named_args: Any) -> tuple[list[int], StoreError | None]:
    """The numbers that a batch gets, and its error."""
    claims, error = named.claim_batch(*args, **named_args)
    return [claim.number for claim in claims], error


def test_a_batch_gets_ascending_numbers_around_those_that_are_taken(
    session: Path, named: Claimer
) -> None:
    (session / "step-000003").write_bytes(b"other")
    batch = [b"%d" % n for n in range(20)]
    numbers, error = batch_of(named, 1, batch, Ownership(0o640, None))
    named.settle()
    assert error is None
    assert numbers == [1, 2, *range(4, 22)]
    assert [(session / step_name(n)).read_bytes() for n in numbers] == batch
    assert len(os.listdir(session)) == 22  # the steps and the meta: no temporary is left


def test_a_batch_that_takes_long_stores_its_first_steps_and_leaves_nothing_of_the_others(
    session: Path, named: Claimer
) -> None:
    numbers, error = batch_of(named, 1, [b"{}"] * 20, Ownership(0o640, None), until=0)
    named.settle()
    assert (numbers, error) == ([1], None)
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G17a")
def test_the_names_of_a_batch_are_synced_once_they_all_exist_and_no_claim_waits_for_that(
    session: Path, named: Claimer
) -> None:
    go, synced = threading.Event(), set[str]()

    def sync() -> None:
        go.wait()
        synced.update(os.listdir(session))

    names = Outcome(sync)
    numbers, error = batch_of(named, 1, [b"{}"] * 3, Ownership(0o640, None), names=names)
    more = batch_of(named, 4, [b"{}"] * 3, Ownership(0o640, None))
    assert (numbers, error, more) == ([1, 2, 3], None, ([4, 5, 6], None))
    assert not names.done
    go.set()
    named.settle()
    assert names.succeeded
    assert {step_name(number) for number in numbers} < synced
    assert sorted(os.listdir(session)) == ["meta", *(step_name(n) for n in range(1, 7))]


def test_where_nothing_was_stored_no_names_are_synced(
    named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, (errno.ENOSPC, False))
    names = Outcome(lambda: None)
    assert named.claim_batch(1, [b"{}"], Ownership(0o640, None), names=names)[0] == []
    named.settle()
    assert not names.done


@pytest.mark.guarantee("G6b")
def test_a_batch_that_fails_in_the_middle_reports_what_was_stored(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, (0, True), (0, True), (errno.ENOSPC, False))
    numbers, error = batch_of(named, 1, [b"{}"] * 9, Ownership(0o640, None))
    named.settle()
    assert numbers == [1, 2]
    assert error is not None
    assert error.errno == errno.ENOSPC
    assert sorted(os.listdir(session)) == ["meta", "step-000001", "step-000002"]


@pytest.mark.guarantee("G25c")
def test_of_a_batch_into_a_session_deleted_meanwhile_nothing_is_acknowledged(
    session: Path, named: Claimer
) -> None:
    (session / TOMBSTONE).touch()
    numbers, error = batch_of(named, 1, [b"{}"] * 3, Ownership(0o640, None))
    named.settle()
    assert numbers == []
    assert error is not None
    assert error.errno == errno.ENOENT
    assert sorted(os.listdir(session)) == [TOMBSTONE, "meta"]


@pytest.mark.guarantee("G15b")
def test_claims_of_many_threads_land_once_each(session: Path) -> None:
    def work(writer: int) -> None:
        descriptor = os.open(session, os.O_RDONLY)
        claimer, last = Claimer(descriptor, unnamed=writer % 2 == 0), 0
        for number in range(100):
            last = claim(claimer, last + 1, b"%d %d" % (writer, number))
        os.close(descriptor)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [(session / step_name(number)).read_bytes().split() for number in range(1, 401)]
    for writer in range(4):
        assert [int(n) for w, n in steps if int(w) == writer] == list(range(100))


@pytest.mark.guarantee("G15c")
@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ESTALE, errno.EPERM])
def test_a_link_whose_reply_was_lost_is_stored_once(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    answering(monkeypatch, (number, True))
    assert claim(named, 1, b"once") == 1
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G15c")
@pytest.mark.parametrize("beginning", ["step-", ".stepfs-"], ids=["name", "temporary"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("reply", [errno.EIO, errno.EEXIST, errno.EPERM])
def test_a_link_that_was_made_is_found_although_looking_for_it_fails_at_first(
    session: Path,
    named: Claimer,
    monkeypatch: pytest.MonkeyPatch,
    beginning: str,
    number: int,
    reply: int,
) -> None:
    answering(monkeypatch, (reply, True))
    found = not_looking(monkeypatch, beginning, *[number] * 4)
    assert claim(named, 1, b"once") == 1
    assert found == [beginning, "pause"] * 4
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G15b", "G15c")
@pytest.mark.parametrize("beginning", ["step-", ".stepfs-"], ids=["name", "temporary"])
@pytest.mark.parametrize("reply", [errno.EEXIST, errno.EIO, errno.EPERM])
def test_anothers_step_is_taken_although_looking_at_it_fails_at_first(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch, beginning: str, reply: int
) -> None:
    (session / "step-000001").write_bytes(b"other")
    answering(monkeypatch, (reply, False))
    found = not_looking(monkeypatch, beginning, errno.EIO, errno.EIO)
    assert claim(named, 1, b"mine") == 2
    assert found == [beginning, "pause"] * 2
    assert (session / "step-000001").read_bytes() == b"other"


@pytest.mark.guarantee("G15c")
def test_a_link_that_failed_in_passing_is_tried_again_although_looking_fails_at_first(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, (errno.EIO, False), (errno.EIO, True))
    found = not_looking(monkeypatch, "step-", errno.EIO, errno.EIO)
    assert claim(named, 1) == 1
    assert found == ["step-", "pause"] * 2 + ["pause"]
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G15c")
def test_a_link_is_tried_again_although_nobody_can_tell_whether_the_session_was_deleted(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, (errno.EIO, False), (errno.EIO, True))
    found = not_looking(monkeypatch, TOMBSTONE, ever=errno.EIO)
    assert claim(named, 1) == 1
    assert found[:2] == [TOMBSTONE, "pause"]
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.parametrize("beginning", ["step-", ".stepfs-"], ids=["name", "temporary"])
def test_a_link_that_can_never_be_looked_for_is_reported_after_a_bounded_number_of_looks(
    named: Claimer, monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    answering(monkeypatch, (errno.EIO, True))
    found = not_looking(monkeypatch, beginning, ever=errno.EIO)
    with pytest.raises(StoreError) as caught:
        claim(named, 1)
    assert caught.value.errno == errno.EIO
    assert found == [beginning, "pause"] * 4 + [beginning]


@pytest.mark.guarantee("G20b")
def test_of_a_deleted_session_a_name_is_looked_for_once(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session / TOMBSTONE).touch()
    answering(monkeypatch, (errno.ESTALE, False))
    found = not_looking(monkeypatch, "step-", ever=errno.ESTALE)
    with pytest.raises(StoreError) as caught:
        claim(named, 1)
    assert caught.value.errno == errno.ENOENT
    assert found == ["step-"]


def test_after_a_link_that_succeeds_at_once_nobody_looks_for_its_name(
    named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = not_looking(monkeypatch, "step-", ever=errno.EIO)
    assert (claim(named, 1), found) == (1, [])


@pytest.mark.guarantee("G15c")
def test_a_link_that_failed_in_passing_is_tried_again(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, (errno.EIO, False), (errno.EIO, True))
    assert claim(named, 1) == 1
    assert sorted(os.listdir(session)) == ["meta", "step-000001"]


@pytest.mark.guarantee("G15b", "G25a")
def test_a_number_that_is_freed_just_after_a_link_found_it_taken_is_claimed(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another mount frees it that moves its steps up, or a daemon that goes back."""
    taken = session / "step-000001"
    taken.write_bytes(b"other")

    def link(*names: Any, **where: Any) -> None:
        try:
            LINK(*names, **where)
        except FileExistsError:
            taken.rename(session / "step-001001")
            raise

    monkeypatch.setattr(os, "link", link)
    assert claim(named, 1, b"mine") == 1
    assert taken.read_bytes() == b"mine"
    assert sorted(os.listdir(session)) == ["meta", "step-000001", "step-001001"]


def test_a_taken_name_that_is_reported_as_forbidden_counts_as_taken(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session / "step-000001").write_bytes(b"other")
    answering(monkeypatch, (errno.EPERM, False))
    assert claim(named, 1) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMLINK, errno.EROFS])
def test_a_definite_refusal_is_reported_at_once_and_leaves_nothing(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    answering(monkeypatch, (number, False))
    with pytest.raises(StoreError) as caught:
        claim(named, 1)
    assert caught.value.errno == number
    assert os.listdir(session) == ["meta"]


@pytest.mark.guarantee("G20b")
@pytest.mark.parametrize("sign", ["tombstone", "meta gone"])
def test_nothing_is_acknowledged_into_a_session_deleted_elsewhere(
    session: Path, session_fd: int, named: Claimer, sign: str
) -> None:
    if sign == "tombstone":
        (session / TOMBSTONE).touch()
    else:
        (session / "meta").unlink()
    assert is_deleted(session_fd)
    with pytest.raises(StoreError) as caught:
        claim(named, 1)
    assert caught.value.errno == errno.ENOENT
    assert not (session / "step-000001").exists()


@pytest.mark.guarantee("G21b")
def test_steps_take_the_ownership_confirmed_while_they_are_made_not_the_earlier_one(
    session: Path, named: Claimer
) -> None:
    before, now = Ownership(0o644, None), Ownership(0o600, None)
    numbers, error = batch_of(named, 1, [b"{}"] * 5, before, confirm=lambda: now)
    named.settle()
    assert (numbers, error, named.took) == ([1, 2, 3, 4, 5], None, now)
    assert {(session / step_name(n)).stat().st_mode & 0o777 for n in numbers} == {0o600}
    assert len(os.listdir(session)) == 6


@pytest.mark.guarantee("G25c")
def test_a_batch_whose_ownership_cannot_be_confirmed_stores_and_leaves_nothing(
    session: Path, named: Claimer
) -> None:
    def gone() -> Ownership:
        raise FileNotFoundError(errno.ENOENT, "the session was deleted")

    numbers, error = batch_of(named, 1, [b"{}"] * 5, Ownership(0o644, None), confirm=gone)
    named.settle()
    assert numbers == []
    assert error is not None
    assert error.errno == errno.ENOENT
    assert os.listdir(session) == ["meta"]


@pytest.mark.guarantee("G24b")
def test_a_step_is_identified_before_its_temporary_is_gone_however_late_the_look_comes(
    session: Path, named: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: Any, **where: Any) -> os.stat_result:
        if str(name).startswith(".stepfs-"):
            time.sleep(0.05)
        return STAT(name, **where)

    monkeypatch.setattr(os, "stat", late)
    found = named.claim(1, b"{}", Ownership(0o640, None))
    assert found.identity == step_identity(STAT(session / step_name(1)))
