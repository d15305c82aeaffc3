"""Making, finding and deleting sessions."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage import posix as files
from storage import store as sessions
from storage.errors import StoreError
from storage.formats.slug import is_ulid
from storage.session import meta, meta_lock, meta_update
from storage.store import Store, claim_in_steps

U32_MAX = 2**32 - 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "store").mkdir()
    opened = Store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def root(store: Store) -> Path:
    return Path(store.path)


def put_session(root: Path, slug: str) -> Path:
    (root / slug).mkdir()
    (root / slug / "meta").write_bytes(meta.fresh("a", "b", sessions.now()))
    return root / slug


def refused(number: int, call: Callable[..., object], *args: object, **named: bool) -> StoreError:
    with pytest.raises(StoreError) as caught:
        call(*args, **named)
    assert caught.value.errno == number, caught.value.sentence
    return caught.value


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_store_that_cannot_be_opened_is_told_apart(tmp_path: Path) -> None:
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


def test_the_time_is_written_as_the_daemon_does() -> None:
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00"
    assert re.fullmatch(form, sessions.now())


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
    refused(errno.ENOENT, store.delete, slug, sync=False)
    refused(errno.EINVAL, store.make, slug, sync=False)
    assert sorted(os.listdir(root.parent)) == ["store", "x"]


def test_many_threads_list_at_once_without_missing_a_session(store: Store, root: Path) -> None:
    for number in range(300):
        put_session(root, f"a_b_{number}")
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: len(store.names()), range(40)))
    assert set(counts) == {300}


def test_a_new_session_has_the_meta_that_the_daemon_writes(store: Store, root: Path) -> None:
    slug = store.create('Crab "x"', "tg:42", sync=True)
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
        slug = store.create("a", "b", sync=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / slug).stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((root / slug / "meta").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_new_session_belongs_to_the_owner_of_the_store(store: Store, root: Path) -> None:
    os.chown(root, 12345, 12346)
    slug = store.create("a", "b", sync=False)
    for path in (root / slug, root / slug / "meta"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_the_number_is_one_more_than_that_of_any_kind_of_entry(store: Store, root: Path) -> None:
    assert store.create("a", "b", sync=False) == "a_b_1"
    put_session(root, "a_b_3")
    put_session(root, "a_bb_90")
    (root / "a_b_7x").mkdir()
    (root / "a_b_-8").mkdir()
    (root / f"a_b_{U32_MAX + 1}").mkdir()
    assert store.create("a", "b", sync=False) == "a_b_4"
    (root / "a_b_+5").write_bytes(b"")
    assert store.create("a", "b", sync=False) == "a_b_6"
    (root / "a_b_00000000000009").symlink_to("nowhere")
    assert store.create("a", "b", sync=False) == "a_b_10"
    assert store.create("A", "B!", sync=False) == "a_b_11"


def test_the_number_of_a_deleted_session_is_given_again(store: Store) -> None:
    assert [store.create("a", "b", sync=False) for _ in range(2)] == ["a_b_1", "a_b_2"]
    store.delete("a_b_2", sync=False)
    assert store.create("a", "b", sync=False) == "a_b_2"


def test_after_the_greatest_number_there_is_none(store: Store, root: Path) -> None:
    (root / f"a_b_{U32_MAX}").mkdir()
    refused(errno.ENOSPC, store.create, "a", "b", sync=False)
    assert os.listdir(root) == [f"a_b_{U32_MAX}"]


def test_a_name_too_long_leaves_nothing(store: Store, root: Path) -> None:
    refused(errno.ENAMETOOLONG, store.create, "a" * 300, "b", sync=False)
    assert os.listdir(root) == []


def _create_many(path: str, count: int) -> list[str]:
    store = Store(path)
    try:
        return [store.create("Crab", "tg:42", sync=False) for _ in range(count)]
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


ULID = "01M08R03HTKZZ83REJ2F4CGXK6"


@pytest.mark.guarantee("G11f")
def test_where_a_session_has_a_ulid_a_new_one_has_too(store: Store, root: Path) -> None:
    (root / ULID).mkdir()
    assert store.create("Crab", "tg:42", sync=False) == "crab_tg-42_1"
    (root / ULID).rmdir()
    put_session(root, ULID)
    slug = store.create("Crab", "tg:42", sync=False)
    assert is_ulid(slug)
    written = json.loads((root / slug / "meta").read_bytes())
    assert (written["agent"], written["created_by"]) == ("Crab", "tg:42")


def test_a_session_made_under_a_ulid_is_of_the_default_agent(store: Store, root: Path) -> None:
    store.make(ULID, sync=True)
    written = json.loads((root / ULID / "meta").read_bytes())
    assert (written["agent"], written["created_by"]) == ("crab", "")
    refused(errno.EEXIST, store.make, ULID, sync=True)


def test_make_makes_exactly_that_session(store: Store, root: Path) -> None:
    store.make("crab_tg-42_17", sync=True)
    made = json.loads((root / "crab_tg-42_17" / "meta").read_bytes())
    assert (made["agent"], made["created_by"]) == ("crab", "tg-42")
    refused(errno.EEXIST, store.make, "crab_tg-42_17", sync=False)
    assert os.listdir(root) == ["crab_tg-42_17"]
    assert store.create("crab", "tg-42", sync=False) == "crab_tg-42_18"


@pytest.mark.parametrize("slug", ["crab", "a_b", "a_b_c", "a_b_01", "a_b_0", "A_b_1", "a_b_1.tmp"])
def test_make_refuses_what_is_no_slug(store: Store, root: Path, slug: str) -> None:
    refused(errno.EINVAL, store.make, slug, sync=False)
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
    refused(errno.EEXIST, store.make, "a_b_1", sync=False)
    assert taken.lstat().st_ino == before.st_ino
    assert os.listdir(root) == ["a_b_1"]


def test_where_no_rename_is_exclusive_a_session_is_claimed_all_the_same(
    store: Store, root: Path
) -> None:
    put_session(root, ".new.0123456789abcdef")
    (root / ".new.0123456789abcdef" / "step-000001").write_bytes(b"{}")
    claim_in_steps(".new.0123456789abcdef", "a_b_1", store.fd)
    assert store.names() == os.listdir(root) == ["a_b_1"]
    assert sorted(os.listdir(root / "a_b_1")) == ["meta", "step-000001"]
    put_session(root, ".new.0123456789abcdef")
    with pytest.raises(FileExistsError):
        claim_in_steps(".new.0123456789abcdef", "a_b_1", store.fd)


def test_delete_removes_all_below_and_follows_no_symlink(store: Store, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    session = put_session(root, "a_b_1")
    (session / "step-000001").write_bytes(b"{}")
    (session / "step-000002").symlink_to(outside)
    (session / "deep" / "er").mkdir(parents=True)
    (session / "deep" / "link").symlink_to(outside / "kept")
    os.mkfifo(session / "deep" / "fifo")
    store.delete("a_b_1", sync=True)
    assert os.listdir(root) == []
    assert os.listdir(outside) == ["kept"]


def test_delete_of_what_is_no_session_changes_nothing(store: Store, root: Path) -> None:
    target = put_session(root.parent, "elsewhere")
    (root / "a_b_1").symlink_to(target)
    (root / "a_b_2").mkdir()
    for slug in ("a_b_1", "a_b_2", "a_b_3"):
        refused(errno.ENOENT, store.delete, slug, sync=False)
    assert (target / "meta").exists()
    assert sorted(os.listdir(root)) == ["a_b_1", "a_b_2"]


def test_delete_goes_on_while_others_put_files_in(store: Store, root: Path) -> None:
    session = put_session(root, "a_b_1")
    directory = os.open(session, os.O_RDONLY)
    ended = threading.Event()

    def append() -> None:
        for number in range(100_000):
            if ended.is_set():
                return
            try:
                name = f"step-{number:06}"
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=directory))
            except FileNotFoundError:
                return

    writer = threading.Thread(target=append)
    writer.start()
    try:
        store.delete("a_b_1", sync=False)
        assert store.names() == []
    finally:
        ended.set()
        writer.join()
        os.close(directory)
    store.sweep()
    assert os.listdir(root) == []


def test_latest_is_the_session_with_the_greatest_number(store: Store, root: Path) -> None:
    assert store.latest("Crab", "tg:42") is None
    for slug in ("crab_tg-42_2", "crab_tg-42_10", "crab_tg-42_9", "crab_x_99", "É_b_1", "odd"):
        put_session(root, slug)
    (root / "crab_tg-42_11").mkdir()
    (root / "crab_tg-42_12").symlink_to("crab_tg-42_2")
    assert store.latest("Crab", "tg:42") == "crab_tg-42_10"
    assert store.latest_links() == {
        "crab_tg-42": "crab_tg-42_10",
        "crab_x": "crab_x_99",
        "É_b": "É_b_1",
    }


def test_sweep_clears_what_crashes_left(store: Store, root: Path) -> None:
    session = put_session(root, "a_b_1")
    put_session(root, ".new.0123456789abcdef")
    put_session(root, ".del.0123456789abcdef")
    (root / ".new.fedcba9876543210").mkdir()
    for name in meta_update.TEMPORARIES:
        (session / name).write_bytes(b"{")
    assert store.sweep() == 3
    assert os.listdir(root) == ["a_b_1"]
    assert os.listdir(session) == ["meta"]


def test_sweep_leaves_what_is_not_its_own(store: Store, root: Path) -> None:
    names = [".stepfs-lost", ".new.mine", ".del", ".git", "a_b_1"]
    for name in names:
        put_session(root, name)
    assert store.sweep() == 0
    assert sorted(os.listdir(root)) == sorted(names)


def test_sweep_leaves_what_is_still_being_made(store: Store, root: Path) -> None:
    making = put_session(root, ".new.0123456789abcdef")
    session = put_session(root, "a_b_1")
    (session / meta_update.ASIDE).write_bytes(b"{")
    locks = [
        os.open(making, os.O_RDONLY),
        os.open(session / meta_lock.LOCK, os.O_RDWR | os.O_CREAT),
    ]
    fcntl.flock(locks[0], fcntl.LOCK_EX)
    assert files.lock(locks[1])
    assert store.sweep() == 0
    assert sorted(os.listdir(root)) == [".new.0123456789abcdef", "a_b_1"]
    assert (session / meta_update.ASIDE).exists()
    for lock in locks:
        os.close(lock)
    assert store.sweep() == 1
    assert os.listdir(session) == ["meta"]


def test_creators_beside_a_sweeper_lose_nothing(store: Store, root: Path) -> None:
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            store.sweep()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        made = [store.create("a", "b", sync=False) for _ in range(300)]
    finally:
        ended.set()
        sweeper.join()
    assert sorted(os.listdir(root)) == sorted(made) == sorted(f"a_b_{n}" for n in range(1, 301))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_change_a_session_can_neither_delete_nor_make_one(
    store: Store, root: Path
) -> None:
    put_session(root, "a_b_1")
    root.chmod(0o755)
    assert errno_as_nobody(lambda: store.delete("a_b_1", sync=False)) == errno.EACCES
    root.chmod(0o777)
    assert errno_as_nobody(lambda: store.delete("a_b_1", sync=False)) == errno.EACCES
    root.chmod(0o755)
    assert errno_as_nobody(lambda: store.create("a", "b", sync=False)) == errno.EACCES
    assert os.listdir(root) == ["a_b_1"]
    assert os.listdir(root / "a_b_1") == ["meta"]


def errno_as_nobody(call: Callable[[], object]) -> int:
    """The errno with which `call` fails for another user, 0 if it does not."""
    child = os.fork()
    if child == 0:
        result = 255
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            call()
            result = 0
        except StoreError as error:
            result = error.errno
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_no_call_leaks_a_descriptor(store: Store) -> None:
    before = descriptors()
    slug = store.create("a", "b", sync=True)
    refused(errno.EEXIST, store.make, slug, sync=True)
    store.names()
    store.latest_links()
    store.sweep()
    store.delete(slug, sync=True)
    refused(errno.ENOENT, store.delete, slug, sync=True)
    assert descriptors() == before
