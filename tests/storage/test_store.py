"""Finding sessions: what counts as one, which names reach it, and who may change it."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.creation import create_named, create_next
from storage.deletion import delete
from storage.latest import links
from storage.store import Store
from storage.sweep import sweep
from tests.support.people import errno_as_nobody
from tests.support.sessions import put_session, refused


@pytest.fixture
def store(opened_store: Store) -> Store:
    return opened_store


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_errors_of_opening_a_store_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "absent" in refused(errno.ENOENT, Store, str(tmp_path / "absent")).sentence
    refused(errno.ENOTDIR, Store, str(tmp_path / "file"))


def test_the_store_itself_may_be_named_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = Store(str(tmp_path / "link"))
    put_session(tmp_path / "real", "a_b_1")
    assert store.names() == ["a_b_1"]
    store.close()


def test_a_session_is_a_real_directory_that_holds_a_regular_meta(store: Store, root: Path) -> None:
    put_session(root, "a_b_1")
    put_session(root, "any name")
    put_session(root, ".stepfs-lost")
    (root / "a_b_2").symlink_to("a_b_1")
    (root / "a_b_3").write_bytes(b"")
    (root / "a_b_4").mkdir()
    for slug in ("a_b_5", "a_b_6", "a_b_7"):
        (root / slug).mkdir()
    (root / "a_b_5" / "meta").mkdir()
    (root / "a_b_6" / "meta").symlink_to("../a_b_1/meta")
    os.mkfifo(root / "a_b_7" / "meta")

    assert sorted(store.names()) == ["a_b_1", "any name"]
    for slug in store.names():
        os.close(store.open_session(slug))
    before = descriptors()
    for slug in set(os.listdir(root)) - set(store.names()):
        refused(errno.ENOENT, store.open_session, slug)
    assert descriptors() == before


def test_a_name_that_is_not_utf8_is_a_session_like_any_other(store: Store, root: Path) -> None:
    slug = os.fsdecode(b"caf\xe9_b_1")
    put_session(root, slug)
    assert store.names() == [slug]
    os.close(store.open_session(slug))


@pytest.mark.parametrize("slug", ["", ".", "..", "../x", "a/b", "a_b_1/", "/", "a\0b", ".stepfs"])
def test_no_name_leads_out_of_the_store(store: Store, root: Path, slug: str) -> None:
    put_session(root.parent, "x")
    put_session(root, "a_b_1")
    refused(errno.ENOENT, store.open_session, slug)
    refused(errno.ENOENT, delete, store, slug, sync=False)
    refused(errno.EINVAL, create_named, store, slug, sync=False)
    assert sorted(os.listdir(root.parent)) == ["store", "x"]


def test_many_threads_list_at_once_without_missing_a_session(store: Store, root: Path) -> None:
    for number in range(300):
        put_session(root, f"a_b_{number}")
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: len(store.names()), range(40)))
    assert set(counts) == {300}


def test_latest_is_the_session_with_the_greatest_number(store: Store, root: Path) -> None:
    assert store.latest("Crab", "tg:42") is None
    for slug in ("crab_tg-42_2", "crab_tg-42_10", "crab_tg-42_9", "crab_x_99", "É_b_1", "odd"):
        put_session(root, slug)
    (root / "crab_tg-42_11").mkdir()
    (root / "crab_tg-42_12").symlink_to("crab_tg-42_2")
    assert store.latest("Crab", "tg:42") == "crab_tg-42_10"
    assert links(store.names(), store.meta_of) == {
        "crab_tg-42": "crab_tg-42_10",
        "crab_x": "crab_x_99",
        "É_b": "É_b_1",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_write_permission_sessions_can_be_neither_deleted_nor_made(
    store: Store, root: Path
) -> None:
    put_session(root, "a_b_1")
    root.chmod(0o755)
    assert errno_as_nobody(lambda: delete(store, "a_b_1", sync=False)) == errno.EACCES
    root.chmod(0o777)
    assert errno_as_nobody(lambda: delete(store, "a_b_1", sync=False)) == errno.EACCES
    root.chmod(0o755)
    assert errno_as_nobody(lambda: create_next(store, "a", "b", sync=False)) == errno.EACCES
    assert os.listdir(root) == ["a_b_1"]
    assert os.listdir(root / "a_b_1") == ["meta"]


def test_no_call_leaks_a_descriptor(store: Store) -> None:
    before = descriptors()
    slug = create_next(store, "a", "b", sync=True)
    refused(errno.EEXIST, create_named, store, slug, sync=True)
    store.names()
    store.latest("a", "b")
    sweep(store)
    delete(store, slug, sync=True)
    refused(errno.ENOENT, delete, store, slug, sync=True)
    assert descriptors() == before
