"""Summaries in an exported tree: complete, under a free name, durable, and subject to permissions."""

from __future__ import annotations

import errno
import os
import stat
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storage
from storage import memory_tree
from storage.errors import StoreError
from storage.session.steps import step_number
from tests.support.commands import run
from tests.support.killing import alone, killed_at_each_call
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

keep = partial(memory_tree.keep, may=lambda _: True, sync=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "memory").mkdir(mode=0o755)
    return tmp_path / "memory"


@pytest.mark.guarantee("G31a")
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1
    ).filter(lambda name: len(name.encode()) <= 252 and name[0] != "."),
    text=st.text(st.characters(exclude_categories=["Cs"]))
    | st.just('<div id="meta">\nkind\n</div> text')
    | st.just(' <div id="meta"></div>'),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_summary_reads_as_it_was_stored(tree: Path, name: str, text: str) -> None:
    if not text.strip():
        text = "x"
    path = tree / "archives" / f"{name}.md"
    path.unlink(missing_ok=True)
    keep(str(tree), name, text, 0o600)
    assert memory_tree.text(str(tree), name) == text.strip()
    assert [other for other in os.listdir(path.parent) if not other.endswith(".md")] == []


@pytest.mark.guarantee("G31b")
def test_a_file_that_has_the_name_already_is_left_as_it_is(tree: Path, tmp_path: Path) -> None:
    archives = tree / "archives"
    archives.mkdir()
    (archives / "other.md").write_text("theirs")
    (archives / "broken.md").write_bytes(b"caf\xe9")
    (archives / "link.md").symlink_to(tmp_path / "outside")
    (archives / "directory.md").mkdir()
    for name in ("other", "broken", "link", "directory"):
        with pytest.raises(StoreError) as refused:
            keep(str(tree), name, "mine", 0o600)
        assert refused.value.errno == errno.EEXIST
    assert (archives / "other.md").read_text() == "theirs"
    assert not (tmp_path / "outside").exists()
    keep(str(tree), "other", " theirs\n", 0o600)


@pytest.mark.guarantee("G31b", "G21b")
def test_a_summary_is_no_more_readable_than_its_directory_and_its_session(tree: Path) -> None:
    keep(str(tree), "private", "text", 0o600)
    keep(str(tree), "public", "text", 0o644)
    (tree / "archives").chmod(0o700)
    keep(str(tree), "hidden", "text", 0o644)
    modes = {path.stem: stat.S_IMODE(path.stat().st_mode) for path in (tree / "archives").iterdir()}
    assert modes == {"private": 0o600, "public": 0o644, "hidden": 0o600}


@pytest.mark.guarantee("G31b", "G21b")
def test_without_permission_to_create_files_nothing_is_stored(tree: Path) -> None:
    def may(directory: os.stat_result) -> bool:
        return os.path.samestat(directory, tree.stat())

    with pytest.raises(StoreError, match="may not store summaries") as refused:
        memory_tree.keep(str(tree), "plan", "text", 0o600, may, sync=False)
    assert refused.value.errno == errno.EACCES
    assert list((tree / "archives").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.guarantee("G31b", "G19a")
def test_on_a_full_disk_nothing_is_stored_or_compacted(store: StoreOnDisk, tree: Path) -> None:
    session = store.session("crab_tg-42_1", entry("a"))
    assert run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tree)]).returncode == 0
    try:
        with storage.open_store(store.path) as opened:
            with pytest.raises(StoreError, match="No space left") as refused:
                storage.append_compaction(opened, session.slug, "plan", "x" * (1 << 17))
            assert refused.value.errno == errno.ENOSPC
            assert session.numbers() == [1]
            assert list((tree / "archives").iterdir()) == []
            assert storage.append_compaction(opened, session.slug, "plan", "short") == 2
    finally:
        run(["umount", str(tree)])


def test_what_a_crash_left_is_cleared_and_what_is_under_way_is_not(tree: Path) -> None:
    archives = tree / "archives"
    archives.mkdir()
    for name in (".stepfs-old.tmp", ".stepfs-new.tmp", ".theirs.tmp"):
        (archives / name).touch()
    long_ago = time.time() - 2 * memory_tree.STALE_SECONDS
    for name in (".stepfs-old.tmp", ".theirs.tmp"):
        os.utime(archives / name, (long_ago, long_ago))
    keep(str(tree), "plan", "text", 0o600)
    assert sorted(os.listdir(archives)) == [".stepfs-new.tmp", ".theirs.tmp", "plan.md"]


@pytest.mark.guarantee("G31d")
def test_programs_compact_with_a_summary_too(store: StoreOnDisk, tmp_path: Path) -> None:
    session = store.session("crab_tg-42_1", entry("a"))
    tree = tmp_path / "tree"
    tree.mkdir()
    with storage.open_store(store.path) as opened:
        assert storage.append_compaction(opened, session.slug, "one", "the plan") == 2
        assert storage.append_compaction(opened, session.slug, "two", "more", memory=tree) == 3
        with pytest.raises(StoreError, match="nowhere does not exist"):
            storage.append_compaction(opened, session.slug, "x", "y", memory=tmp_path / "nowhere")
    assert (store.path.parent / "memory/archives/one.md").read_text() == "the plan\n"
    assert (tree / "archives/two.md").read_text() == "more\n"
    assert session.numbers() == [1, 2, 3]


def kill_everywhere(path: str) -> None:
    """Kill a compaction before each of its system calls: it is complete, or only a summary exists."""
    store, tree = StoreOnDisk(Path(path)), Path(path).parent / "memory"
    session = store.session("crab_tg-42_1", entry("a"))
    outcomes: list[tuple[bool, bool]] = []
    with storage.open_store(path) as opened:
        compact = partial(storage.append_compaction, opened, session.slug, "plan", "text" * 9999)
        for ended in killed_at_each_call(compact):
            outcomes.append(_outcome(session, tree))
            assert not ended or outcomes[-1] == (True, True)
    assert len(outcomes) > 40, "it was killed at too few calls"
    assert set(outcomes) == {(False, False), (True, False), (True, True)}


def _outcome(session: SessionOnDisk, tree: Path) -> tuple[bool, bool]:
    """Whether the summary and the compaction exist; removes both for the next run."""
    made = [path for path in tree.rglob("*") if not path.is_dir()]
    steps = [path for path in session.path.iterdir() if (step_number(path.name) or 1) > 1]
    summaries = [path for path in made if path.name == "plan.md"]
    assert all(path.read_text() == "text" * 9999 + "\n" for path in summaries)
    assert len(steps) <= len(summaries), "compacted, and the summary is lost"
    for path in made + steps:
        path.unlink()
    for path in (tree / "archives", tree):
        if path.exists():
            path.rmdir()
    return bool(summaries), bool(steps)


@pytest.mark.guarantee("G31c")
def test_killed_before_any_system_call_a_summary_is_there_with_or_before_its_compaction(
    store: StoreOnDisk,
) -> None:
    alone(kill_everywhere, store.path)
