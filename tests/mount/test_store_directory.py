"""The store's directory is removed underneath the mount, and made again at its path."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import until
from tests.support.mounted import Mount
from tests.support.people import NOBODY
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
SLUG, NEW = "crab_tg-42_1", "new_tg-1_1"


def status(at: Mount) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((at.path / ".stepfs/status.json").read_text())
    return document


def names(at: Mount) -> list[str]:
    return sorted(name for name in os.listdir(at.path) if name != ".stepfs")


def slugs(at: Mount) -> list[str]:
    lines = (at.path / ".stepfs/sessions.jsonl").read_text().splitlines()
    return [json.loads(line)["session"] for line in lines]


def used(store: StoreOnDisk, mount: Mounting) -> Mount:
    """A mount in which everything has been read once."""
    store.session(SLUG, entry("old"))
    store.session("crab_tg-42_2", entry("old"))
    at = mount()
    at.expected.append("(ESTALE)")
    assert slugs(at) == [SLUG, "crab_tg-42_2"]
    assert os.listdir(at.path / ".stepfs/latest") == ["crab_tg-42"]
    for slug in (SLUG, "crab_tg-42_2"):
        assert (at.path / slug / "history.jsonl").read_bytes() == entry("old") + b"\n"
    return at


@pytest.mark.guarantee("G19e")
def test_its_removal_is_reported_once(store: StoreOnDisk, mount: Mounting) -> None:
    at = used(store, mount)
    shutil.rmtree(store.path)
    assert names(at) == []
    assert status(at)["store_removed"] is True
    assert slugs(at) == []
    assert [json.loads(line)["code"] for line in at.errors()] == ["store-removed"]
    assert at.log().count("was removed") == 1


@pytest.mark.guarantee("G19e", "G20a", "G20b")
def test_made_again_it_is_served_and_what_was_open_keeps_what_it_had(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = used(store, mount)
    with (at.path / SLUG / "history.jsonl").open("rb") as reader:
        writer = os.open(at.path / SLUG / "append", os.O_WRONLY)
        os.write(writer, entry("unfinished"))
        shutil.rmtree(store.path)
        store.path.mkdir()
        store.session(SLUG, entry("other"))
        store.session(NEW, entry("new"))

        assert slugs(at) == [SLUG, NEW]
        assert names(at) == [SLUG, NEW]
        assert (at.path / SLUG / "history.jsonl").read_bytes() == entry("other") + b"\n"
        assert (at.path / NEW / "history.jsonl").read_bytes() == entry("new") + b"\n"
        assert sorted(os.listdir(at.path / ".stepfs/latest")) == ["crab_tg-42", "new_tg-1"]
        assert reader.read() == entry("old") + b"\n"
        with pytest.raises(OSError) as refused:
            os.write(writer, b"\n")
        assert refused.value.errno == errno.ENOENT
        with suppress(FileNotFoundError):  # the lost line is reported again
            os.close(writer)
    at.expected += ["(ENOENT)", "is lost"]

    assert status(at)["store_removed"] is False
    assert status(at)["store_replaced"] == 1
    assert "store-replaced" in [json.loads(line)["code"] for line in at.errors()]
    assert at.log().count("made again") == 1


@pytest.mark.guarantee("G19e", "G12b", "G12d")
def test_what_happens_in_the_new_one_is_noticed(store: StoreOnDisk, mount: Mounting) -> None:
    at = used(store, mount)
    for again in (1, 2):
        shutil.rmtree(store.path)
        store.path.mkdir()
        session = store.session(SLUG, entry(f"new {again}"))
        (at.path / SLUG / "append").write_bytes(entry("through the mount") + b"\n")
        session.put(3, entry("outside"))
        expected = [entry(f"new {again}"), entry("through the mount"), entry("outside")]
        assert (at.path / SLUG / "history.jsonl").read_bytes().splitlines() == expected
        store.session(NEW)
        assert slugs(at) == [SLUG, NEW]
        (at.path / ".stepfs/create").write_text('{"agent":"crab","created_by":"tg:42"}')
        assert sorted(os.listdir(store.path)) == [SLUG, "crab_tg-42_2", NEW]
        assert status(at)["store_replaced"] == again


@pytest.mark.guarantee("G19e")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_another_users_directory_is_not_shown_in_its_place(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = used(store, mount)
    shutil.rmtree(store.path)
    store.path.mkdir()
    store.session(NEW, entry("new"))
    os.chown(store.path, NOBODY.number, NOBODY.number)
    assert names(at) == []
    assert not (at.path / NEW).exists()
    assert "belongs to another user" in at.errors()[-1]
    assert status(at)["store_removed"] is True
    os.chown(store.path, 0, 0)
    assert names(at) == [NEW]


@pytest.mark.guarantee("G19e")
def test_a_file_in_its_place_is_reported(store: StoreOnDisk, mount: Mounting) -> None:
    at = used(store, mount)
    shutil.rmtree(store.path)
    Path(store.path).write_text("no directory")
    assert names(at) == []
    assert "Not a directory" in at.errors()[-1]


@pytest.mark.guarantee("G19e")
def test_a_store_that_is_renamed_is_reported_and_still_shown(
    store: StoreOnDisk, mount: Mounting
) -> None:
    at = used(store, mount)
    aside = store.path.with_name("aside")
    store.path.rename(aside)
    StoreOnDisk(store.path).session(NEW, entry("new"))
    until(lambda: status(at)["store_moved"] is True)
    assert [json.loads(line)["code"] for line in at.errors()] == ["store-moved"]
    assert names(at) == [SLUG, "crab_tg-42_2"]
    shutil.rmtree(store.path)
    aside.rename(store.path)
    until(lambda: status(at)["store_moved"] is False)
    assert len(at.errors()) == 1
