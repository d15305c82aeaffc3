"""Opens are exact, inodes only grow, and a name gets a new one exactly when needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.drivers import Driver
from tests.support.far import needs_inodes
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

HISTORY = ("history.jsonl", "messages.jsonl", "history.md")
VIEWS = (*HISTORY, "log.jsonl")
Change = Callable[[SessionOnDisk], object]


@pytest.mark.guarantee("G12a")
def test_an_open_shows_every_step_that_others_stored(driver: Driver) -> None:
    session = driver.session()
    shown, log = b"", b""
    for count in range(1, 150):
        if count % 10 == 0:
            session.add(compaction(f"archive-{count}"))
            shown, log = b"", log + compaction(f"archive-{count}") + b"\n"
        else:
            session.add(entry(f"line {count}"))
            shown += entry(f"line {count}") + b"\n"
            log += entry(f"line {count}") + b"\n"
        assert driver.history(session) == shown
        assert driver.text(f"{session.slug}/log.jsonl") == log


def linked(session: SessionOnDisk, data: bytes) -> None:
    (session.path / "aside").write_bytes(data)
    os.link(session.path / "aside", session.path / "step-000002")


@pytest.mark.guarantee("G12a")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda s, d: (s.path / "step-000002").write_bytes(d), id="create-and-write"),
        pytest.param(lambda s, d: s.put(2, d), id="rename"),
        pytest.param(linked, id="link"),
        pytest.param(lambda s, d: (s.path / "step-2").write_bytes(d), id="odd-name"),
    ],
)
def test_an_open_sees_a_step_however_it_was_stored(
    driver: Driver, write: Callable[[SessionOnDisk, bytes], object]
) -> None:
    session = driver.session(entry("one"))
    assert driver.history(session) == entry("one") + b"\n"
    driver.allow("is skipped: ")  # whoever lists between create and write sees no valid step
    write(session, entry("two"))
    assert driver.history(session) == entry("one") + b"\n" + entry("two") + b"\n"
    assert driver.stat(f"{session.slug}/history.jsonl").size == len(driver.history(session))


@pytest.mark.guarantee("G12a")
def test_what_is_appended_to_one_open_is_read_by_the_next(driver: Driver) -> None:
    session = driver.session()
    for count in range(50):
        driver.append(session, entry(str(count)) + b"\n")
        assert driver.history(session).count(b"\n") == count % 10 + 1
        if count % 10 == 9:
            driver.compact(session, f"archive-{count}")
            assert driver.history(session) == b""


@pytest.mark.guarantee("G12d")
def test_a_session_made_outside_is_found_and_listed_at_once(driver: Driver) -> None:
    for number in range(20):
        slug = f"crab_outside_{number}"
        assert slug not in driver.listdir("")
        with pytest.raises(FileNotFoundError):
            driver.stat(slug)
        session = driver.store.session(slug, entry(slug))
        if number % 2:
            assert slug in driver.listdir("")
        assert driver.history(session) == entry(slug) + b"\n"
        assert slug in driver.listdir("")
        assert slug.encode() in driver.text(".stepfs/sessions.jsonl")


def beginning() -> list[bytes]:
    return [entry("old"), compaction("archive"), entry("a"), event(), entry("b"), event("last")]


def linked_over(session: SessionOnDisk, number: int, target: Path) -> None:
    link = session.path / "link"
    link.symlink_to(target)
    link.rename(session.path / f"step-{number:06}")


def remade(session: SessionOnDisk, number: int, data: bytes, seconds_ago: int = 0) -> None:
    """Write a step again, with its present mtime or an earlier one."""
    path = session.path / f"step-{number:06}"
    stored_ns = path.stat().st_mtime_ns - seconds_ago * 10**9
    session.put(number, data)
    os.utime(path, ns=(stored_ns, stored_ns))


CHANGES: list[tuple[str, Change, tuple[str, ...]]] = [
    ("a step more", lambda s: s.add(entry("c")), ()),
    ("an event more", lambda s: s.add(event()), ()),
    ("a gap", lambda s: s.put(100, entry("c")), ()),
    ("what is no step", lambda s: s.add(b"{}"), ()),
    ("the same bytes under a new inode", lambda s: remade(s, 5, entry("b")), ()),
    ("the same bytes of another time", lambda s: remade(s, 5, entry("b"), 9), ("history.md",)),
    ("the time of a step", lambda s: os.utime(s.path / "step-000005", (0, 9)), ("history.md",)),
    ("the mode of a step", lambda s: (s.path / "step-000005").chmod(0o600), ()),
    ("the same step with white space around", lambda s: remade(s, 5, entry("b") + b"\n"), ()),
    ("a compaction", lambda s: s.add(compaction("new")), HISTORY),
    ("a step replaced", lambda s: s.put(3, entry("other")), VIEWS),
    ("a step edited in place", lambda s: (s.path / "step-000003").write_bytes(b"{}"), VIEWS),
    ("a step replaced by a symlink", lambda s: linked_over(s, 3, s.path / "step-000001"), VIEWS),
    ("a step removed", lambda s: (s.path / "step-000003").unlink(), VIEWS),
    ("the last entry removed", lambda s: (s.path / "step-000005").unlink(), VIEWS),
    ("an event removed", lambda s: (s.path / "step-000004").unlink(), ("log.jsonl",)),
    ("a step before the history replaced", lambda s: s.put(1, entry("x")), ("log.jsonl",)),
    (
        "a step before the history removed",
        lambda s: (s.path / "step-000001").unlink(),
        ("log.jsonl",),
    ),
    ("the compaction removed", lambda s: (s.path / "step-000002").unlink(), VIEWS),
    (
        "another archive's name",
        lambda s: s.put(2, compaction("renamed")),
        ("messages.jsonl", "history.md", "log.jsonl"),
    ),
]


@pytest.mark.guarantee("G13b", "G13a", "G13c")
@pytest.mark.parametrize(("change", "new"), [pytest.param(c, n, id=i) for i, c, n in CHANGES])
def test_a_name_has_a_new_inode_exactly_when_what_it_showed_is_no_beginning(
    driver: Driver, change: Change, new: tuple[str, ...]
) -> None:
    session = driver.session(*beginning())
    paths = {view: f"{session.slug}/{view}" for view in VIEWS}
    handles = {view: driver.open(path) for view, path in paths.items()}
    before = {view: driver.read(handle) for view, handle in handles.items()}
    numbers = {view: driver.fstat(handle).ino for view, handle in handles.items()}
    change(session)
    if b"{}" in session.steps() or (session.path / "step-000003").is_symlink():
        driver.expect("is skipped: ")
    for view in VIEWS:
        with driver.opened(paths[view]) as handle:
            text = driver.read(handle)
            renewed = driver.fstat(handle).ino != numbers[view]
        assert renewed == (view in new), view
        assert renewed == (not text.startswith(before[view])), view
        assert (driver.stat(paths[view]).ino != numbers[view]) == renewed
        shown = driver.read(handles[view])
        assert shown == before[view] if renewed else text.startswith(shown)
    for handle in handles.values():
        driver.close(handle)


@pytest.mark.guarantee("G13b")
def test_a_step_put_between_shown_ones_gives_new_inodes(driver: Driver) -> None:
    session = driver.session()
    for number in (10, 20, 40):
        session.put(number, entry(str(number)))
    path = f"{session.slug}/history.jsonl"
    driver.history(session)
    seen = [driver.stat(path).ino]
    for number in (30, 15, 5):
        session.put(number, entry(str(number)))
        assert driver.history(session).count(b"\n") == len(session.numbers())
        seen.append(driver.stat(path).ino)
    session.put(50, entry("50"))
    driver.history(session)
    assert driver.stat(path).ino == seen[-1]
    assert len(set(seen)) == 4


@pytest.mark.guarantee("G13a", "G13b", "G13c")
def test_every_inode_only_grows_through_hundreds_of_changes(driver: Driver) -> None:
    """Every inode stays open once opened, and must keep every byte that it showed."""
    session = driver.session(entry("first"))
    path = f"{session.slug}/history.jsonl"
    held: dict[int, tuple[int, bytes]] = {}
    for count in range(300):
        match count % 23:
            case 7:
                session.add(compaction(f"archive-{count}"))
            case 13:
                driver.compact(session, f"ours-{count}")
            case 17:  # an outside step: the mount would restore its own, and an inode would grow
                numbers = sorted(session.numbers(), reverse=True)
                last = next(n for n in numbers if b"theirs" in session.step(n))
                session.put(last, entry(f"theirs, replaced {count}"))
            case 21:
                os.unlink(session.path / f"step-{max(session.numbers()):06}")
            case even if even % 2:
                session.add(entry(f"theirs {count}"))
            case _:
                driver.append(session, entry(f"ours {count}") + b"\n")
        handle = driver.open(path)
        ino, text = driver.fstat(handle).ino, driver.read(handle)
        before = held.get(ino)
        if before is None:
            held[ino] = handle, text
        else:
            driver.close(handle)
            assert text.startswith(before[1])
            held[ino] = before[0], text
        for kept, shown in list(held.values())[-4:]:
            assert driver.read(kept).startswith(shown)
    assert len(held) > 30
    for kept, shown in held.values():
        assert driver.read(kept) == shown
        driver.close(kept)


@pytest.mark.guarantee("G20a", "G13c")
def test_open_files_of_a_deleted_session_keep_what_they_had(driver: Driver) -> None:
    session = driver.session(entry("old"), compaction("archive"), entry("kept"))
    texts = {}
    for name in (*VIEWS, "compact", "meta.json"):
        handle = driver.open(f"{session.slug}/{name}")
        texts[handle] = driver.read(handle) if name != "history.jsonl" else entry("kept") + b"\n"
    session.delete()
    for _ in range(2):
        for handle, text in texts.items():
            assert driver.read(handle) == text
            driver.fstat(handle)
    for handle in texts:
        driver.close(handle)


@pytest.mark.guarantee("G20b", "G19a", "G19b")
@pytest.mark.parametrize("how", ["outside", "rmdir"])
def test_a_deleted_session_is_found_no_more_and_takes_nothing(driver: Driver, how: str) -> None:
    session = driver.session(entry("a"))
    handle = driver.open(f"{session.slug}/append", os.O_WRONLY)
    compact = driver.open(f"{session.slug}/compact", os.O_WRONLY)
    driver.write(handle, entry("b") + b"\n")
    if how == "rmdir":
        driver.rmdir(session.slug)
        assert not session.path.exists()
    else:
        session.delete()
    with driver.refuses(errno.ENOENT, f"write {session.slug}/append: "):
        driver.write(handle, entry("c") + b"\n")
    with driver.refuses(errno.ENOENT, f"write {session.slug}/compact: "):
        driver.write(compact, b"archive\n")
    for name in VIEWS:
        with driver.refuses(errno.ENOENT):
            driver.open(f"{session.slug}/{name}")
    with driver.refuses(errno.ENOENT):
        driver.open(f"{session.slug}/append", os.O_WRONLY)
    assert session.slug not in driver.listdir("")
    assert not session.path.exists()
    driver.close(handle)
    driver.close(compact)
    again = driver.store.session(session.slug, entry("another"))
    assert driver.history(again) == entry("another") + b"\n"
    driver.append(again, entry("more") + b"\n")
    assert again.steps() == [entry("another"), entry("more")]


@pytest.mark.guarantee("G19b", "G20b")
def test_a_session_moved_away_and_back_is_served_again(driver: Driver) -> None:
    session = driver.session(entry("a"))
    assert driver.history(session) == entry("a") + b"\n"
    away = driver.store.path.parent / f"{session.slug}-away"
    session.path.rename(away)
    with driver.refuses(errno.ENOENT):
        driver.history(session)
    away.rename(session.path)
    assert driver.history(session) == entry("a") + b"\n"
    driver.append(session, entry("b") + b"\n")
    assert driver.history(session) == entry("a") + b"\n" + entry("b") + b"\n"


@pytest.mark.guarantee("G20a", "G20b", "G25c")
@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_another_session_under_the_old_name_is_another(
    driver: Driver, kind: str, how: str, tmp_path: Path
) -> None:
    if how == "deleted":
        needs_inodes(kind)
    session = driver.session(entry("old"))
    path = f"{session.slug}/history.jsonl"
    reader = driver.open(path)
    writer = driver.open(f"{session.slug}/append", os.O_WRONLY)
    number = driver.fstat(reader).ino
    if how == "deleted":
        session.delete()
    else:
        session.path.rename(tmp_path / session.slug)
    again = driver.store.session(session.slug, entry("new"))
    assert driver.history(again) == entry("new") + b"\n"
    assert driver.stat(path).ino != number
    assert driver.read(reader) == entry("old") + b"\n"
    with driver.refuses(errno.ENOENT, "deleted"):
        driver.write(writer, entry("for the old one") + b"\n")
    driver.close(writer)
    driver.close(reader)
    assert again.steps() == [entry("new")]


@pytest.mark.guarantee("G19b")
def test_nothing_in_a_store_keeps_it_from_being_served(
    store: StoreOnDisk, serve: Callable[..., Driver]
) -> None:
    healthy = store.session("crab_tg-42_1", entry("fine"))
    (store.path / "a file").write_text("not a session")
    (store.path / "empty").mkdir()
    (store.path / ".hidden").mkdir()
    os.mkfifo(store.path / "fifo")
    (store.path / "loop").symlink_to("loop")
    os.mkdir(os.fsencode(store.path) + b"/\xff\xfe_x_1")
    with open(os.fsencode(store.path) + b"/\xff\xfe_x_1/meta", "wb") as meta:
        meta.write(b"\xff")
    long = store.session("x" * 250)
    (long.path / "meta").write_bytes(b"[" * 100_000)
    strange = store.session("strange_a_1", entry("ok"))
    (strange.path / "step-99999999999999999999999").write_bytes(entry("beyond every number"))
    (strange.path / "step-000002").write_bytes(b"\0" * 100_000)
    (strange.path / "step-000003").write_bytes(b"[" * 1_000_000)
    (strange.path / "append").mkdir()
    odd_meta = store.path / "meta_is_directory"
    (odd_meta / "meta").mkdir(parents=True)
    driver = serve()
    driver.expect("step-000002 is skipped")
    driver.expect("step-000003 is skipped")
    driver.expect("step-99999999999999999999999 is skipped")
    slugs = driver.listdir("")
    assert {"crab_tg-42_1", "strange_a_1", "x" * 250, "\udcff\udcfe_x_1"} <= set(slugs)
    assert not {"a file", "empty", ".hidden", "fifo", "loop", "meta_is_directory"} & set(slugs)
    for slug in slugs:
        for name in driver.listdir(slug):
            driver.stat(f"{slug}/{name}")
            if name not in ("latest", "create"):
                driver.text(f"{slug}/{name}")
    assert driver.history(strange) == entry("ok") + b"\n"
    assert driver.history(healthy) == entry("fine") + b"\n"
    driver.append(healthy, entry("still") + b"\n")
    assert driver.history(healthy) == entry("fine") + b"\n" + entry("still") + b"\n"
