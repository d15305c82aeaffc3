"""Creating sessions: the contents, owner and name of a new one (G11, G21)."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from storage.creation import claim_in_steps, create_named, create_next, making
from storage.deletion import delete
from storage.formats.slug import is_ulid
from storage.store import Store
from tests.support.sessions import put_session, refused

U32_MAX = 2**32 - 1
ULID = "01M08R03HTKZZ83REJ2F4CGXK6"


@pytest.fixture
def store(opened_store: Store) -> Store:
    return opened_store


def test_a_new_session_has_the_meta_that_the_daemon_writes(store: Store, root: Path) -> None:
    slug = create_next(store, 'Crab "x"', "tg:42", sync=True)
    assert slug == "crab-x_tg-42_1"
    written = (root / slug / "meta").read_bytes()
    created_at = json.loads(written)["created_at"]
    assert (
        written
        == (
            '{"agent":"Crab \\"x\\"","created_by":"tg:42","created_at":"T","title":"",'
            '"updated_at":"T","message_count":0}'
        )
        .replace('"T"', f'"{created_at}"')
        .encode()
    )
    assert os.listdir(root) == [slug]
    assert os.listdir(root / slug) == ["meta"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_holds_for_a_new_session(store: Store, root: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        slug = create_next(store, "a", "b", sync=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / slug).stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((root / slug / "meta").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_new_session_belongs_to_the_owner_of_the_store(store: Store, root: Path) -> None:
    os.chown(root, 12345, 12346)
    slug = create_next(store, "a", "b", sync=False)
    for path in (root / slug, root / slug / "meta"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_the_number_is_one_more_than_that_of_any_kind_of_entry(store: Store, root: Path) -> None:
    assert create_next(store, "a", "b", sync=False) == "a_b_1"
    put_session(root, "a_b_3")
    put_session(root, "a_bb_90")
    (root / "a_b_7x").mkdir()
    (root / "a_b_-8").mkdir()
    (root / f"a_b_{U32_MAX + 1}").mkdir()
    assert create_next(store, "a", "b", sync=False) == "a_b_4"
    (root / "a_b_+5").write_bytes(b"")
    assert create_next(store, "a", "b", sync=False) == "a_b_6"
    (root / "a_b_00000000000009").symlink_to("nowhere")
    assert create_next(store, "a", "b", sync=False) == "a_b_10"
    assert create_next(store, "A", "B!", sync=False) == "a_b_11"


def test_the_number_of_a_deleted_session_is_given_again(store: Store) -> None:
    assert [create_next(store, "a", "b", sync=False) for _ in range(2)] == ["a_b_1", "a_b_2"]
    delete(store, "a_b_2", sync=False)
    assert create_next(store, "a", "b", sync=False) == "a_b_2"


def test_after_the_greatest_number_there_is_none(store: Store, root: Path) -> None:
    (root / f"a_b_{U32_MAX}").mkdir()
    refused(errno.ENOSPC, create_next, store, "a", "b", sync=False)
    assert os.listdir(root) == [f"a_b_{U32_MAX}"]


def test_a_name_too_long_leaves_nothing(store: Store, root: Path) -> None:
    refused(errno.ENAMETOOLONG, create_next, store, "a" * 300, "b", sync=False)
    assert os.listdir(root) == []


def _create_many(path: str, count: int) -> list[str]:
    store = Store(path)
    try:
        return [create_next(store, "Crab", "tg:42", sync=False) for _ in range(count)]
    finally:
        store.close()


def test_two_thousand_creates_of_eight_processes_are_two_thousand_sessions(
    store: Store, root: Path
) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        made = pool.starmap(_create_many, [(str(root), 250)] * 8)
    slugs = [slug for each in made for slug in each]
    assert sorted(slugs) == sorted(f"crab_tg-42_{number}" for number in range(1, 2001))
    assert sorted(store.names()) == sorted(slugs)
    assert sorted(os.listdir(root)) == sorted(slugs)


@pytest.mark.guarantee("G11f")
def test_where_a_session_has_a_ulid_a_new_one_has_too(store: Store, root: Path) -> None:
    (root / ULID).mkdir()
    assert create_next(store, "Crab", "tg:42", sync=False) == "crab_tg-42_1"
    (root / ULID).rmdir()
    put_session(root, ULID)
    slug = create_next(store, "Crab", "tg:42", sync=False)
    assert is_ulid(slug)
    written = json.loads((root / slug / "meta").read_bytes())
    assert (written["agent"], written["created_by"]) == ("Crab", "tg:42")


def test_a_session_made_under_a_ulid_is_of_the_default_agent(store: Store, root: Path) -> None:
    create_named(store, ULID, sync=True)
    written = json.loads((root / ULID / "meta").read_bytes())
    assert (written["agent"], written["created_by"]) == ("crab", "")
    refused(errno.EEXIST, create_named, store, ULID, sync=True)


def test_make_makes_exactly_that_session(store: Store, root: Path) -> None:
    create_named(store, "crab_tg-42_17", sync=True)
    made = json.loads((root / "crab_tg-42_17" / "meta").read_bytes())
    assert (made["agent"], made["created_by"]) == ("crab", "tg-42")
    refused(errno.EEXIST, create_named, store, "crab_tg-42_17", sync=False)
    assert os.listdir(root) == ["crab_tg-42_17"]
    assert create_next(store, "crab", "tg-42", sync=False) == "crab_tg-42_18"


@pytest.mark.parametrize("slug", ["crab", "a_b", "a_b_c", "a_b_01", "a_b_0", "A_b_1", "a_b_1.tmp"])
def test_make_refuses_an_invalid_slug(store: Store, root: Path, slug: str) -> None:
    refused(errno.EINVAL, create_named, store, slug, sync=False)
    assert os.listdir(root) == []


@pytest.mark.parametrize("kind", ["file", "empty directory", "dangling symlink"])
def test_make_replaces_nothing(store: Store, root: Path, kind: str) -> None:
    taken = root / "a_b_1"
    match kind:
        case "file":
            taken.write_bytes(b"mine")
        case "empty directory":
            taken.mkdir()
        case _:
            taken.symlink_to("nowhere")
    before = taken.lstat()
    refused(errno.EEXIST, create_named, store, "a_b_1", sync=False)
    assert taken.lstat().st_ino == before.st_ino
    assert os.listdir(root) == ["a_b_1"]


def test_without_exclusive_rename_a_session_is_still_claimed(store: Store, root: Path) -> None:
    put_session(root, ".new.0123456789abcdef")
    (root / ".new.0123456789abcdef" / "step-000001").write_bytes(b"{}")
    claim_in_steps(".new.0123456789abcdef", "a_b_1", store.fd)
    assert store.names() == os.listdir(root) == ["a_b_1"]
    assert sorted(os.listdir(root / "a_b_1")) == ["meta", "step-000001"]
    put_session(root, ".new.0123456789abcdef")
    with pytest.raises(FileExistsError):
        claim_in_steps(".new.0123456789abcdef", "a_b_1", store.fd)


@pytest.mark.parametrize("near", [True, False])
def test_a_session_whose_making_fails_leaves_nothing_on_a_far_store_either(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    monkeypatch.setattr(store, "near", near)
    with pytest.raises(KeyError), making(store, sync=False) as new:
        new.write_meta(b"{}")
        raise KeyError
    assert os.listdir(root) == []
