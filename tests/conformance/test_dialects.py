"""Sessions of every version of the daemon are read as the version that wrote them keeps them."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.check.check import check
from storage.formats.kinds import Kind, NotAStep, classify
from storage.latest import links
from storage.session.snapshot import load
from storage.store import Store
from tests.conformance.reference import entry_as_kept, message_as_kept, rows, same_json
from tests.support.drivers import Driver, driving
from tests.support.far import NO_BINDFS
from tests.support.memories import database
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

CASES = rows("dialects")
BLOCKS = b'{"message":{"role":"user","content":[{"type":"text","text":"goes on"}]}}'
NAMED = [pytest.param(case, id=case["name"]) for case in CASES]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreOnDisk:
    """A store with all cases, and the daemon's memory beside it."""
    made = StoreOnDisk(tmp_path_factory.mktemp("dialects") / "store")
    memory: dict[str, str] = {}
    for case in CASES:
        memory.update(case.get("memory") or {})
        for path, data in case["files"].items():
            (made.path / path).parent.mkdir(exist_ok=True)
            (made.path / path).write_bytes(base64.b64decode(data))
    (made.path.parent / "memory.db").write_bytes(database(memory))
    return made


@pytest.fixture(scope="module", params=["tree", "mount"])
def driver(request: pytest.FixtureRequest, store: StoreOnDisk) -> Iterator[Driver]:
    with driving(request.param, store.path, store.path.parent) as driver:
        yield driver


@pytest.fixture(scope="module", params=["tree", "mount", pytest.param("far", marks=NO_BINDFS)])
def later(request: pytest.FixtureRequest, store: StoreOnDisk) -> Iterator[Driver]:
    """The same sessions later: each was compacted and continued in another version's dialect."""
    place = store.path.parent / f"later-{request.param}"
    shutil.copytree(store.path, place / "store")
    shutil.copy(store.path.parent / "memory.db", place)
    for case in CASES:
        session = SessionOnDisk(place / "store" / case["session"])
        blocks = any(b'"type":"text"' in data for _, data in steps(case))
        session.add(compaction("later"))
        session.add(entry("goes on") if blocks else BLOCKS)
    with driving(request.param, place / "store", place) as driver:
        yield driver


def steps(case: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The names and bytes of the steps of a case's session, in order."""
    files = sorted((Path(path), base64.b64decode(data)) for path, data in case["files"].items())
    return [
        (path.name, data)
        for path, data in files
        if path.parent.name == case["session"] and path.name != "meta"
    ]


def shown(driver: Driver, case: dict[str, Any], view: str, past: str = "") -> list[Any]:
    lines = driver.text(f"{case['session']}/{past}{view}").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("case", NAMED)
def test_a_session_loads_as_its_own_daemon_would_resume_it(
    case: dict[str, Any], store: StoreOnDisk
) -> None:
    directory = os.open(store.path / case["session"], os.O_RDONLY)
    try:
        loaded = load(directory)
    finally:
        os.close(directory)
    assert loaded is not None
    assert loaded.archive == case["expect"]["archive"]
    history = [entry_as_kept(step.value) for step in loaded.history]
    assert same_json(history, case["expect"]["history"])


@pytest.mark.parametrize("case", NAMED)
def test_every_step_is_of_the_kind_that_some_dialect_says(case: dict[str, Any]) -> None:
    kinds, skipped = [], []
    for name, data in steps(case):
        try:
            kinds.append(classify(data).kind.value)
        except NotAStep:
            skipped.append(name)
    assert kinds == case["expect"]["log_kinds"]
    assert skipped == case["expect"]["skipped"]


@pytest.mark.parametrize("case", NAMED)
def test_the_latest_session_is_the_one_that_the_daemon_goes_on_with(
    case: dict[str, Any], tmp_path: Path
) -> None:
    for path, data in case["files"].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(base64.b64decode(data))
    store = Store(str(tmp_path))
    try:
        assert links(store.names(), store.meta_of) == case["expect"]["latest"]
    finally:
        store.close()


def test_a_store_of_all_dialects_is_healthy_except_for_what_no_dialect_knows(
    store: StoreOnDisk, tmp_path: Path
) -> None:
    copied = tmp_path / "store"
    shutil.copytree(store.path, copied)
    found = {(fault.session, fault.name) for fault in check(str(copied), repair=False).faults}
    assert found == {
        (case["session"], name) for case in CASES for name in case["expect"]["skipped"]
    } | {("01M3250V00TDZVY05RNV14SP9A", "meta")}


@pytest.mark.guarantee("G1c", "S3", "S6")
@pytest.mark.parametrize("case", NAMED)
def test_a_served_session_is_what_its_own_daemon_would_resume(
    case: dict[str, Any], driver: Driver
) -> None:
    expected = case["expect"]
    skipped = set(expected["skipped"])
    for name in skipped:
        driver.allow(name)
    assert same_json(
        [entry_as_kept(entry) for entry in shown(driver, case, "history.jsonl")],
        expected["history"],
    )
    archive = driver.text(f"{case['session']}/compact").decode()
    assert archive == (f"{expected['archive']}\n" if expected["archive"] else "")
    logged = [classify(json.dumps(step).encode()) for step in shown(driver, case, "log.jsonl")]
    assert [step.kind.value for step in logged] == expected["log_kinds"]
    text = driver.text(f"{case['session']}/history.md")
    assert bool(text) == bool(expected["history"] or expected["archive"])


@pytest.mark.guarantee("G2a", "G2b", "G2c")
@pytest.mark.parametrize("case", NAMED)
def test_messages_are_what_its_own_daemon_would_send(case: dict[str, Any], driver: Driver) -> None:
    messages = [message_as_kept(line) for line in shown(driver, case, "messages.jsonl")]
    assert same_json(messages, case["expect"]["messages"])


@pytest.mark.guarantee("G29c", "G30a", "S3")
@pytest.mark.parametrize("case", NAMED)
def test_what_a_compaction_hid_is_what_its_own_daemon_had_and_would_have_sent(
    case: dict[str, Any], later: Driver
) -> None:
    for name in case["expect"]["skipped"]:
        later.allow(name)
    numbers = SessionOnDisk(later.store.path / case["session"]).numbers()
    epochs = sorted(map(int, later.listdir(f"{case['session']}/.epochs")))
    kinds = case["expect"]["log_kinds"]
    assert len(epochs) == 2 + sum(kind.endswith("compaction") for kind in kinds)
    for past in (f".epochs/{epochs[-2]}/", f".at/{numbers[-2] - 1}/"):
        history = [entry_as_kept(line) for line in shown(later, case, "history.jsonl", past)]
        assert same_json(history, case["expect"]["history"])
        messages = [message_as_kept(line) for line in shown(later, case, "messages.jsonl", past)]
        assert same_json(messages, case["expect"]["messages"])
        text = later.text(f"{case['session']}/{past}history.md")
        assert bool(text) == bool(history or messages)
    assert len(shown(later, case, "messages.jsonl")) == 2


@pytest.mark.guarantee("G11f")
def test_the_links_of_all_pairs_stand_side_by_side(driver: Driver) -> None:
    links = set(driver.listdir(".stepfs/latest"))
    assert links >= {name for case in CASES for name in case["expect"]["latest"]}


@pytest.mark.guarantee("G6e", "S3")
def test_append_takes_the_entries_and_events_of_all_dialects_and_nothing_else(
    driver: Driver,
) -> None:
    session = driver.store.session(f"crab_{type(driver).__name__.lower()}_1")
    taken = []
    with driver.opened(f"{session.slug}/append", os.O_WRONLY) as handle:
        for case in CASES:
            for name, data in steps(case):
                if b"\n" in data:
                    continue
                skipped = name in case["expect"]["skipped"]
                if skipped or classify(data).kind.is_compaction:
                    with driver.refuses(22, ""):
                        driver.write(handle, data + b"\n")
                else:
                    driver.write(handle, data + b"\n")
                    taken.append(data)
    assert session.steps() == taken
    assert {classify(data).kind for data in taken} == {Kind.ENTRY, Kind.EVENT}
