"""A session is replayed as the reference loads it, by the store and by the tree."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StoreError
from storage.formats.kinds import Kind, NotAStep, classify
from storage.session.snapshot import load
from tests.conformance.reference import entry_as_written_again, rows, same_json
from tests.support.drivers import Driver, TreeDriver, driving
from tests.support.stores import SessionOnDisk, StoreOnDisk

ROWS = rows("load")
KINDS = {"Entry": Kind.ENTRY, "Event": Kind.EVENT}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreOnDisk:
    """A store with all recorded sessions, under their names."""
    made = StoreOnDisk(tmp_path_factory.mktemp("load") / "store")
    for row in ROWS:
        session = made.path / row["name"]
        session.mkdir()
        for name, data in row["files"].items():
            (session / name).write_bytes(base64.b64decode(data))
    return made


@pytest.fixture(scope="module")
def tree(store: StoreOnDisk) -> Iterator[Driver]:
    with driving("tree", store.path, store.path.parent) as driver:
        yield driver


def named() -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in ROWS]


@pytest.mark.parametrize("row", named())
def test_a_session_loads_as_in_the_reference(row: dict[str, Any], store: StoreOnDisk) -> None:
    directory = os.open(store.path / row["name"], os.O_RDONLY)
    try:
        loaded = load(directory)
    finally:
        os.close(directory)
    expected = row["expect"]
    if expected is None:
        assert loaded is None
        return
    assert loaded is not None
    assert loaded.archive == expected["archive"]
    assert {key: loaded.meta[key] for key in expected["meta"]} == expected["meta"]
    history = [entry_as_written_again(step.value) for step in loaded.history]
    assert same_json(history, expected["history"])


@pytest.mark.parametrize("meta", [b"", b"{", b"{}", b'{"agent":"a","created_by":"b"}', b"[]"])
def test_a_broken_meta_keeps_a_session_from_loading(tmp_path: Path, meta: bytes) -> None:
    session = StoreOnDisk(tmp_path / "store").session()
    (session.path / "meta").write_bytes(meta)
    directory = os.open(session.path, os.O_RDONLY)
    try:
        with pytest.raises(StoreError):
            load(directory)
    finally:
        os.close(directory)


@pytest.mark.guarantee("G1c", "S3")
@pytest.mark.parametrize("row", named())
def test_history_jsonl_and_compact_show_what_the_reference_loads(
    row: dict[str, Any], tree: Driver
) -> None:
    expected = row["expect"]
    if expected is None:
        with pytest.raises(FileNotFoundError):
            tree.text(f"{row['name']}/history.jsonl")
        return
    shown = [json.loads(line) for line in tree.text(f"{row['name']}/history.jsonl").splitlines()]
    assert same_json([entry_as_written_again(value) for value in shown], expected["history"])
    archive = tree.text(f"{row['name']}/compact").decode()
    assert archive == (f"{expected['archive']}\n" if expected["archive"] else "")


@pytest.mark.guarantee("G6e", "S3")
def test_append_stores_what_the_reference_loads_as_entry_or_event(tmp_path: Path) -> None:
    """Each recorded document is appended as a line: refused or stored as the reference would load it."""
    store = StoreOnDisk(tmp_path / "store")
    session = store.session()
    with driving("tree", store.path, tmp_path) as driver:
        assert isinstance(driver, TreeDriver)
        with driver.opened(f"{session.slug}/append", os.O_WRONLY) as handle:
            for row in rows("classify"):
                data = base64.b64decode(row["bytes"])
                if b"\n" not in data:
                    offer(driver, handle, session, data, row)
    kinds = [classify(data).kind for data in session.steps()]
    assert set(kinds) == {Kind.ENTRY, Kind.EVENT}
    assert min(kinds.count(Kind.ENTRY), kinds.count(Kind.EVENT)) > 50


def offer(
    driver: Driver, handle: int, session: SessionOnDisk, data: bytes, row: dict[str, Any]
) -> None:
    kind = KINDS.get(row["kind"]) if row.get("form") != "array" else None
    try:
        driver.write(handle, data + b"\n")
    except OSError:
        assert kind is None, row["name"]
        return
    (stored,) = session.steps()[-1:]
    if kind is not None:
        assert stored == data
    else:
        assert stored == b'{"message":' + data + b"}", row["name"]
        with pytest.raises(NotAStep):
            classify(data)
