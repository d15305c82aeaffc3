"""Using sessions without a mount: the functions that `storage` exports."""

from __future__ import annotations

import doctest
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import storage
from storage import library

USER = {"role": "user", "content": "hello"}
DONE_OF_TOOL = {"event": "tool_result", "call_id": "c1", "duration_ms": 5, "ts": "now"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[storage.Store]:
    with storage.open_store(tmp_path) as opened:
        yield opened


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    example = doctest.DocTestParser().get_doctest(
        library.__doc__ or "", {"path": tmp_path}, "storage.library", None, None
    )
    assert len(example.examples) == 4
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.failed == 0


def test_importing_it_brings_neither_an_event_loop_nor_the_kernels_interface() -> None:
    script = "import sys, storage; print({'trio', 'pyfuse3', 'fusefs'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def test_everything_exported_says_what_it_does() -> None:
    for name in storage.__all__:
        assert getattr(storage, name).__doc__, name


def test_an_entry_that_the_daemon_would_not_read_stores_nothing_of_its_call(
    store: storage.Store, tmp_path: Path
) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    with pytest.raises(storage.StoreError) as refused:
        storage.append_entries(store, slug, [USER, {"role": 7}])
    assert (refused.value.errno, refused.value.code) == (errno.EINVAL, "not-a-step")
    assert os.listdir(tmp_path / slug) == ["meta"]


def test_events_are_stored_and_are_no_history(store: storage.Store, tmp_path: Path) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    assert storage.append_events(store, slug, [DONE_OF_TOOL]) == [1]
    assert json.loads((tmp_path / slug / "step-000001").read_text()) == DONE_OF_TOOL
    found = storage.load_session(store, slug)
    assert found is not None
    assert (found.history, found.archive) == ([], None)


def test_the_meta_takes_a_merge_patch_and_keeps_the_rest(store: storage.Store) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    after = storage.update_meta(store, slug, {"title": "Disks"})
    assert after["title"] == "Disks"
    (listed,) = storage.list_sessions(store)
    assert (listed.slug, listed.meta) == (slug, after)
    with pytest.raises(storage.StoreError) as refused:
        storage.update_meta(store, slug, {"agent": None})
    assert refused.value.errno == errno.EINVAL
    assert storage.list_sessions(store) == [listed]


def test_the_list_leaves_out_a_session_whose_meta_is_broken(
    store: storage.Store, tmp_path: Path
) -> None:
    sound, broken = (storage.create_session(store, "Crab", "tg:42") for _ in range(2))
    (tmp_path / broken / "meta").write_text("{")
    assert [summary.slug for summary in storage.list_sessions(store)] == [sound]
    with pytest.raises(storage.StoreError):
        storage.load_session(store, broken)


def test_missing_things_are_reported_as_the_daemon_reports_them(store: storage.Store) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    assert storage.find_latest_session(store, "Crab", "tg:42") == slug
    assert storage.find_latest_session(store, "Crab", "tg:43") is None
    assert storage.delete_session(store, slug)
    assert not storage.delete_session(store, slug)
    assert storage.load_session(store, slug) is None
    with pytest.raises(storage.StoreError) as refused:
        storage.append_entries(store, slug, [USER])
    assert refused.value.errno == errno.ENOENT


def test_two_programs_that_append_at_once_lose_nothing(
    store: storage.Store, tmp_path: Path
) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    script = (
        "import storage, sys\n"
        "with storage.open_store(sys.argv[1]) as store:\n"
        "    for n in range(100):\n"
        "        entry = {'role': 'user', 'content': f'{sys.argv[3]} {n}'}\n"
        "        storage.append_entries(store, sys.argv[2], [entry], sync=False)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), slug]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = storage.load_session(store, slug)
    assert found is not None
    said = [step.value["message"]["content"] for step in found.history]
    assert [line for line in said if line[0] == "a"] == [f"a {n}" for n in range(100)]
    assert [line for line in said if line[0] == "b"] == [f"b {n}" for n in range(100)]


def said(found: storage.Snapshot | None) -> list[str]:
    """The texts of the entries in a history."""
    assert found is not None
    return [step.value["message"]["content"] for step in found.history]


@pytest.mark.guarantee("G29a", "G30a")
def test_what_a_compaction_hid_is_loaded_by_its_epoch_and_by_its_step(
    store: storage.Store,
) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    storage.append_entries(store, slug, [USER])
    storage.append_compaction(store, slug, "one")
    storage.append_entries(store, slug, [{**USER, "content": "again"}])
    assert storage.count_epochs(store, slug) == 2
    assert said(storage.load_epoch(store, slug, 1)) == ["hello"]
    assert said(storage.load_epoch(store, slug, 2)) == ["again"]
    assert storage.load_epoch(store, slug, 3) is None
    assert said(storage.load_session(store, slug, at=1)) == ["hello"]
    assert said(storage.load_session(store, slug, at="2000-01-01T00:00:00Z")) == []
    assert said(storage.load_session(store, slug, at="2200-01-01T00:00:00Z")) == ["again"]
    with pytest.raises(storage.StoreError) as refused:
        storage.load_session(store, slug, at="yesterday")
    assert (refused.value.errno, refused.value.code) == (errno.EINVAL, "not-a-time")


@pytest.mark.guarantee("G30c")
def test_a_fork_loads_as_its_origin_did_at_that_step(store: storage.Store) -> None:
    slug = storage.create_session(store, "Crab", "tg:42")
    storage.append_entries(store, slug, [USER, {**USER, "content": "on"}])
    assert said(storage.load_session(store, storage.fork_session(store, slug, at=1))) == ["hello"]
    assert said(storage.load_session(store, storage.fork_session(store, slug))) == ["hello", "on"]
