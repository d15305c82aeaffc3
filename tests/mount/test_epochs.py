"""An inode only ever grows: a name gets a new one exactly when needed, and open files keep theirs."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import environment, until
from tests.support.looking import all_shown, inode, line, opened, whole
from tests.support.model import HISTORY, LOG, MESSAGES, VIEWS, shown
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]


# --- inodes --------------------------------------------------------------------------------------


@pytest.mark.guarantee("G13b", "G13c", "G13a")
@pytest.mark.parametrize(
    ("change", "new"),
    [
        (lambda s: s.put(9, entry("nine")), ()),
        (lambda s: s.put(9, event()), ()),
        (lambda s: s.put(5, s.step(5)), ()),
        (lambda s: s.put(6, entry("other")), (HISTORY, MESSAGES, LOG)),
        (lambda s: (s.path / "step-000005").unlink(), (LOG,)),
        (lambda s: (s.path / "step-000006").unlink(), (HISTORY, MESSAGES, LOG)),
        (lambda s: s.put(2, entry("back-filled")), (LOG,)),
        (lambda s: s.put(4, entry("back-filled")), (HISTORY, MESSAGES, LOG)),
        (lambda s: s.put(4, event("back-filled")), (LOG,)),
        (lambda s: s.put(4, b"broken"), ()),
        (lambda s: s.put(2, compaction("early")), (LOG,)),
        (lambda s: s.put(7, compaction("late")), (HISTORY, MESSAGES, LOG)),
        (lambda s: s.put(9, compaction("last")), (HISTORY, MESSAGES)),
        (lambda s: s.put(3, compaction("renamed")), (MESSAGES, LOG)),
        (lambda s: (s.path / "step-000003").unlink(), (HISTORY, MESSAGES, LOG)),
    ],
    ids=[
        *("an entry comes", "an event comes", "replaced by the same bytes", "an entry replaced"),
        *("an event removed", "an entry removed", "an entry before the compaction"),
        *("an entry back-filled", "an event back-filled", "a broken step back-filled"),
        *("an earlier compaction", "a compaction back-filled", "a compaction comes"),
        *("the compaction replaced", "the compaction removed"),
    ],
)
def test_a_name_gets_a_new_inode_exactly_when_what_it_showed_is_no_prefix(
    store: StoreOnDisk,
    mount: Mounts,
    change: Callable[[SessionOnDisk], None],
    new: tuple[str, ...],
) -> None:
    session = store.session("crab_tg-42_1", entry("old"))
    session.put(3, compaction("first"))
    session.put(5, event("steered"))
    session.put(6, entry("six"))
    session.put(8, entry("eight"))
    at = mount().path / session.slug
    before = {view: (at / view).read_bytes() for view in VIEWS}
    inodes = {view: inode(at / view) for view in VIEWS}
    held = {view: os.open(at / view, os.O_RDONLY) for view in VIEWS}
    try:
        change(session)
        all_shown(at, session)
        changed = {view for view in VIEWS if inode(at / view) != inodes[view]}
        assert changed == set(new)
        for view, fd in held.items():
            assert os.fstat(fd).st_ino == inodes[view]
            expected = before[view] if view in new else shown(session.steps(), view)
            assert whole(fd) == expected
    finally:
        for fd in held.values():
            os.close(fd)


@pytest.mark.guarantee("G13b")
def test_an_empty_history_keeps_its_inode_across_compactions(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", compaction("first"))
    history = mount().path / session.slug / HISTORY
    assert history.read_bytes() == b""
    before = inode(history)
    session.add(compaction("second"))
    assert history.read_bytes() == b""
    session.add(entry("one"))
    assert history.read_bytes() == line("one")
    assert inode(history) == before


@pytest.mark.guarantee("G13c", "G13d")
def test_each_open_file_keeps_its_own_epoch(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1")
    history = mount().path / session.slug / HISTORY
    held: list[tuple[int, bytes]] = []
    try:
        for epoch in range(60):
            session.add(entry(f"epoch {epoch}"))
            fd = os.open(history, os.O_RDONLY)
            session.add(entry(f"more {epoch}"))
            assert history.read_bytes() == line(f"epoch {epoch}") + line(f"more {epoch}")
            held.append((fd, history.read_bytes()))
            session.add(compaction(f"archive-{epoch}"))
        assert len({os.fstat(fd).st_ino for fd, _ in held}) == len(held)
        for fd, expected in held:
            assert whole(fd) == expected
        for number in session.numbers():
            (session.path / f"step-{number:06}").unlink()
        for fd, expected in held:
            assert whole(fd) == expected
    finally:
        for fd, _ in held:
            os.close(fd)


# --- mappings ------------------------------------------------------------------------------------

MAPPER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ)
before = bytes(mapped)
print("mapped", flush=True)
for line in sys.stdin:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    mapped.madvise(mmap.MADV_DONTNEED)
    assert bytes(mapped) == before
print("same", flush=True)
"""


@contextmanager
def mapping(path: Path) -> Iterator[Callable[[], None]]:
    """Another process that maps the file, and rereads all of it on request."""
    reader = subprocess.Popen(
        [sys.executable, "-c", MAPPER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert reader.stdin is not None and reader.stdout is not None
    assert reader.stdout.readline() == b"mapped\n"

    def read() -> None:
        assert reader.stdin is not None
        reader.stdin.write(b"\n")
        reader.stdin.flush()

    yield read
    assert reader.communicate()[0] == b"same\n"
    assert reader.returncode == 0


@pytest.mark.guarantee("G13d", "G3a", "G13c")
@pytest.mark.parametrize("cache", ["64M", "1M"])
def test_who_has_a_file_mapped_is_never_killed(
    store: StoreOnDisk, mount: Mounts, cache: str
) -> None:
    """Whatever is listed, read, appended, compacted or removed meanwhile."""
    text = "x" * 20_000
    session = store.session("crab_tg-42_1", *(entry(f"{n} {text}") for n in range(150)))
    others = [store.session(f"crab_x_{n}", entry(text)) for n in range(20)]
    mounted = mount(f"cache={cache}", "sync=never")
    mounted.expected.append("could not write the meta")
    path = mounted.path
    at = path / session.slug
    with mapping(at / HISTORY) as read:
        for round_ in range(40):
            os.listdir(at)
            subprocess.run(["ls", "-la", str(at), str(path)], check=True, stdout=subprocess.DEVNULL)
            (at / "append").write_bytes(line(f"{round_}"))
            (at / HISTORY).read_bytes()
            (path / others[round_ % 20].slug / HISTORY).read_bytes()
            if round_ == 20:
                (at / "compact").write_text("archive\n")
            if round_ == 25:
                (session.path / "step-000007").unlink()
                session.put(9, entry("short"))
            if round_ == 30:
                (at / "append").write_bytes(line("after"))
                (at / HISTORY).stat()
            if round_ == 35:
                while session.path.exists():  # the count may be being written in it
                    shutil.rmtree(session.path, ignore_errors=True)
                store.session(session.slug, entry("again"))
            read()


@pytest.mark.guarantee("G13c", "G23a")
def test_an_open_file_keeps_more_than_the_cache_holds(store: StoreOnDisk, mount: Mounts) -> None:
    texts = [f"{n} " + "y" * 8000 for n in range(1100)]
    session = store.session("crab_tg-42_1", *map(entry, texts))
    other = store.session("crab_tg-42_2", *map(entry, texts))
    path = mount("cache=1M").path
    expected = b"".join(map(line, texts))
    with opened(path / session.slug / HISTORY) as fd, opened(path / other.slug / LOG) as log:
        for number in range(100, 900):
            (other.path / f"step-{number:06}").unlink()
        (path / other.slug / LOG).read_bytes()
        session.add(entry("grown"))
        until(lambda: os.fstat(fd).st_size == len(expected + line("grown")))
        session.delete()
        until(lambda: not (path / session.slug).exists())
        assert whole(fd) == expected + line("grown")
        assert whole(log) == expected


@pytest.mark.guarantee("G13d")
def test_a_mapping_grows_with_its_file(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / HISTORY
    with opened(history) as fd:
        for number in range(50):
            session.add(entry(f"{number}"))
            expected = history.read_bytes()
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
                assert bytes(mapped) == expected
