"""What the views show, what stat returns for them, and that reading changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.drivers import Driver
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

VIEWS = ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl")
LEGACY = b'{"compact":"what was said","title":"t","archived_at":"2026-04-28T00:00:00+00:00"}'


def lines(*steps: bytes) -> bytes:
    return b"".join(step + b"\n" for step in steps)


@pytest.mark.guarantee("G1a")
@pytest.mark.parametrize(
    "data",
    [
        b'{"message":{"role":"user","content":"as it is"}}',
        b'{ "message" : {"role":"user",\t"content":"white space inside is kept"} }',
        b'{"message":{"role":"user","content":"\\u00e9 \\/ 1","n":1.50,"e":1E2,"z":-0}}',
        '{"message":{"role":"user","content":"日本語 \u2028 \u0085"}}'.encode(),
        b'{"x":1,"message":{"role":"user"},"x":2}',
        b'{"agent":"guest","message":{"role":"assistant","content":null}}',
    ],
)
def test_a_line_is_the_bytes_of_its_step(driver: Driver, data: bytes) -> None:
    session = driver.session(b" \t" + data + b" \r\n\n")
    assert driver.history(session) == data + b"\n"
    assert driver.text(f"{session.slug}/log.jsonl") == data + b"\n"


@pytest.mark.guarantee("G1b")
@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            b'{\n  "message": {\n    "role": "user",\n    "content": "a  b"\n  }\n}\n',
            b'{"message":{"role":"user","content":"a  b"}}',
        ),
        (b'{"message" :\r{ "role":"user" } }', b'{"message":{"role":"user"}}'),
        (
            b'{"message":{"role":"user","content":[ 1.0, 1e5 ,\n-0.10, "\\u00e9\\" :\\n", true ]}}',
            b'{"message":{"role":"user","content":[1.0,1e5,-0.10,"\\u00e9\\" :\\n",true]}}',
        ),
        (
            b'{"k": 1,\n"message": {"role": "user", "x": 1, "x": 2}, "k": 2}',
            b'{"k":1,"message":{"role":"user","x":1,"x":2},"k":2}',
        ),
    ],
)
def test_a_step_of_several_lines_becomes_one_of_the_same_tokens(
    driver: Driver, data: bytes, line: bytes
) -> None:
    session = driver.session(data)
    assert driver.history(session) == line + b"\n"
    assert driver.text(f"{session.slug}/log.jsonl") == line + b"\n"


@pytest.mark.guarantee("G1c")
@pytest.mark.parametrize("last", [compaction("archive-2"), LEGACY])
def test_the_history_follows_the_last_compaction_and_the_log_shows_all(
    driver: Driver, last: bytes
) -> None:
    steps = [entry("a"), compaction("archive-1"), entry("b"), event(), last, entry("c"), event()]
    session = driver.session(*steps, entry("d"))
    assert driver.history(session) == lines(entry("c"), entry("d"))
    assert driver.text(f"{session.slug}/log.jsonl") == lines(*steps, entry("d"))
    fresh = driver.session(entry("a"), event(), entry("b"))
    assert driver.history(fresh) == lines(entry("a"), entry("b"))
    assert driver.history(driver.session()) == b""
    assert driver.history(driver.session(entry("a"), last)) == b""


@pytest.mark.guarantee("G1c")
def test_a_history_longer_than_any_pass_is_whole_and_in_order(driver: Driver) -> None:
    before = [entry(f"before {n}") for n in range(50)]
    after = [entry(f"{n} " + "x" * (n % 97)) for n in range(5000)]
    session = driver.session(*before, compaction("archive"), *after)
    assert driver.history(session) == lines(*after)
    assert driver.text(f"{session.slug}/log.jsonl") == lines(*before, compaction("archive"), *after)


@pytest.mark.guarantee("S1")
def test_steps_come_in_the_order_of_their_numbers_and_nothing_else_is_one(driver: Driver) -> None:
    session = driver.session()
    names = {
        "step-9": "nine",
        "step-000010": "ten",
        "step-999999": "before the million",
        "step-1000000": "the million",
        "step-12345678901": "far beyond",
    }
    for name, text in reversed(names.items()):
        (session.path / name).write_bytes(entry(text))
    for name in ("step-", "step-1a", "step-000003.tmp.1", "step-٣", "Step-000004", "step-+5", "x"):
        (session.path / name).write_bytes(entry("no step"))
    assert driver.history(session) == lines(*map(entry, names.values()))


@pytest.mark.guarantee("S2")
def test_what_is_no_step_is_skipped_with_one_warning_that_names_it(driver: Driver) -> None:
    session = driver.session(entry("first"))
    torn = {
        2: b"",
        3: entry("torn")[:-4],
        4: b"{}",
        5: b'{"message":{"content":"no role"}}',
        6: b"\xff\xfe",
        7: b'{"event":"unheard of"}',
    }
    for number, data in torn.items():
        session.put(number, data)
    (session.path / "step-000008").mkdir()
    (session.path / "step-000009").symlink_to(session.path / "step-000001")
    os.mkfifo(session.path / "step-000010")
    session.put(11, entry("last"))
    odd = [f"step-{number:06}" for number in range(2, 11)]
    for name in odd:
        driver.expect(f"{session.slug}/{name} is skipped: ")
    for _ in range(3):
        assert driver.history(session) == lines(entry("first"), entry("last"))
        assert driver.text(f"{session.slug}/log.jsonl") == lines(entry("first"), entry("last"))
        driver.append(session, entry("more") + b"\n")
        driver.text(f"{session.slug}/messages.jsonl")
        os.unlink(session.path / f"step-{max(session.numbers()):06}")
    assert [sum(name in line for line in driver.log()) for name in odd] == [1] * len(odd)


@pytest.mark.guarantee("S4")
@pytest.mark.parametrize("meta", [b"", b"{", b"[]", b'{"agent":5}', b"\xff", b"null"])
def test_a_broken_meta_does_not_hide_the_history(driver: Driver, meta: bytes) -> None:
    session = driver.session(entry("there"))
    (session.path / "meta").write_bytes(meta)
    assert session.slug in driver.listdir("")
    assert driver.history(session) == lines(entry("there"))
    driver.expect(f"count {session.slug}/meta.json: ")
    driver.append(session, entry("more") + b"\n")
    assert driver.history(session) == lines(entry("there"), entry("more"))
    assert driver.told(session)["operation"] == "count"


@pytest.mark.guarantee("S4", "G21d")
def test_no_name_and_no_symlink_leads_out_of_the_store(driver: Driver) -> None:
    outside = SessionOnDisk(driver.store.path.parent / "outside")
    outside.path.mkdir(exist_ok=True)
    outside.put(1, entry("secret"))
    (outside.path / "meta").write_text("{}")
    link = driver.store.path / "crab_link_1"
    link.symlink_to(outside.path)
    session = driver.session(entry("a"))
    (session.path / "step-000002").symlink_to(outside.path / "step-000001")
    driver.expect("step-000002 is skipped")
    linked_meta = driver.store.path / "crab_meta_1"
    linked_meta.mkdir()
    (linked_meta / "meta").symlink_to(outside.path / "meta")
    assert not {"crab_link_1", "crab_meta_1", "outside"} & set(driver.listdir(""))
    for slug in ("crab_link_1", "crab_meta_1"):
        with pytest.raises(FileNotFoundError):
            driver.stat(slug)
        with pytest.raises(FileNotFoundError):
            driver.text(f"{slug}/history.jsonl")
    assert driver.history(session) == lines(entry("a"))
    link.unlink()


@pytest.mark.guarantee("G3a")
@pytest.mark.parametrize("view", VIEWS)
def test_stat_tells_the_exact_size_before_anybody_read(driver: Driver, view: str) -> None:
    session = driver.session(entry("a"), compaction("archive"), entry("日本語"), event())
    size = driver.stat(f"{session.slug}/{view}").size
    assert size == len(driver.text(f"{session.slug}/{view}")) > 0
    driver.append(session, entry("more") + b"\n")
    with driver.opened(f"{session.slug}/{view}") as handle:
        grown = driver.fstat(handle).size
        assert len(driver.read(handle)) == grown > size
    assert driver.stat(f"{session.slug}/{view}").size == grown


@pytest.mark.guarantee("G3a", "G8d")
def test_stat_tells_the_exact_size_of_the_controls(driver: Driver) -> None:
    session = driver.session(entry("a"), compaction("archive"))
    for name, text in {"append": b"", "compact": b"archive\n"}.items():
        assert driver.stat(f"{session.slug}/{name}").size == len(text)
        assert driver.text(f"{session.slug}/{name}") == text
    meta = driver.text(f"{session.slug}/meta.json")
    assert driver.stat(f"{session.slug}/meta.json").size == len(meta) > 0


@pytest.mark.guarantee("G3c")
def test_the_time_of_a_view_is_that_of_its_last_step(driver: Driver) -> None:
    session = driver.session(entry("a"), compaction("archive"), entry("b"), event())
    for number in session.numbers():
        os.utime(session.path / f"step-{number:06}", (0, 1000 * number))
    seconds = {"history.jsonl": 3000, "messages.jsonl": 3000, "history.md": 3000, "log.jsonl": 4000}
    for view, expected in seconds.items():
        assert driver.stat(f"{session.slug}/{view}").mtime_ns == expected * 10**9
    found = os.stat(session.path)
    assert driver.stat(session.slug).mtime_ns == found.st_mtime_ns
    driver.append(session, entry("c") + b"\n")
    driver.history(session)
    newest = os.stat(session.path / "step-000005").st_mtime_ns
    assert driver.stat(f"{session.slug}/history.jsonl").mtime_ns == newest


@pytest.mark.guarantee("G3d")
def test_inode_numbers_are_unique_and_stay(driver: Driver) -> None:
    sessions = [driver.session(entry(str(n))) for n in range(3)]
    paths = ["", ".stepfs", *(f".stepfs/{name}" for name in driver.listdir(".stepfs"))]
    paths += [session.slug for session in sessions]
    paths += [f"{s.slug}/{name}" for s in sessions for name in driver.listdir(s.slug)]
    first = {path: driver.stat(path).ino for path in paths}
    assert len(set(first.values())) == len(paths) == 2 + 7 + 3 + 3 * 7
    for session in sessions:
        driver.append(session, entry("more") + b"\n")
        driver.history(session)
    assert {path: driver.stat(path).ino for path in paths} == first


@pytest.mark.guarantee("G4a")
def test_reading_everything_leaves_the_store_as_it_was(
    kind: str, store: StoreOnDisk, serve: Callable[..., Driver]
) -> None:
    if kind == "far":
        pytest.skip("what lies between the mount and the store here renews times of access itself")
    session = store.session("crab_tg-42_1", entry("a"), compaction("archive"), entry("b"), event())
    driver = serve()
    paths = [store.path, *store.path.rglob("*")]
    for path in paths:
        os.utime(path, (1000, 2000))  # an atime that any read would update
    before = {path: identity(path) for path in paths}
    for _ in range(2):
        for slug in driver.listdir(""):
            driver.stat(slug)
        for directory in (session.slug, ".stepfs"):
            for name in driver.listdir(directory):
                driver.stat(f"{directory}/{name}")
                if name != "latest":
                    driver.text(f"{directory}/{name}")
        assert driver.listdir(".stepfs/latest") == ["crab_tg-42"]
    assert {path: identity(path) for path in paths} == before
    assert set(paths) == {store.path, *store.path.rglob("*")}


def identity(path: Path) -> tuple[int, ...]:
    """What shows whether a file was touched: its inode, size and times."""
    found = path.lstat()
    times = found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
    return found.st_ino, found.st_size, *times
