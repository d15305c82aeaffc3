"""The kernel keeps attributes as long as nothing changes, and not a second longer."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, compaction, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]
FILES = (
    "history.jsonl",
    "messages.jsonl",
    "history.md",
    "log.jsonl",
    "append",
    "compact",
    "meta.json",
)
LAG_SECONDS = 1.2


def attributes(session: Path) -> dict[str, tuple[int, ...]]:
    """What stat returns for a session's directory and its files."""
    found = {name: (session / name).stat() for name in ("", *FILES)}
    return {
        name: (s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns)
        for name, s in found.items()
    }


def look(session: Path) -> dict[str, tuple[int, ...]]:
    """Stat and list as `ls -l` does, twice, so that pending work is done."""
    attributes(session)
    time.sleep(0.05)  # changes caused by the first pass are published
    os.listdir(session)
    return attributes(session)


def asked(served: Mount) -> int:
    """How often the kernel has requested attributes."""
    done: int = json.loads((served.path / ".stepfs/status.json").read_text())["operations"][
        "getattr"
    ]
    return done


@pytest.mark.guarantee("G12b")
def test_cached_attributes_are_not_requested_again(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"), entry("two"))
    served = mount()
    at = served.path / session.slug
    told = look(at)
    time.sleep(LAG_SECONDS)
    before = asked(served)
    for _ in range(5):
        assert attributes(at) == told
    own = 4  # for the status document, and the directory, whose atime a listing invalidates
    assert asked(served) - before <= own


@pytest.mark.guarantee("G12b", "G24c")
def test_a_second_listing_of_all_sessions_requests_no_attributes(
    store: StoreOnDisk, mount: Mounts
) -> None:
    count = 20
    for number in range(1, count + 1):
        store.session(f"crab_tg-42_{number}", entry("one"))
    served = mount()
    listing = ["sh", "-c", 'ls -l "$1"/*', "sh", str(served.path)]
    subprocess.run(listing, check=True, capture_output=True)
    time.sleep(0.05)  # changes caused by the first pass are published
    before = asked(served)
    subprocess.run(listing, check=True, capture_output=True)
    assert asked(served) - before < count // 2  # those of the mountpoint and the status document


def chmod_meta(session: SessionOnDisk) -> None:
    (session.path / "meta").chmod(0o600)


def chmod_directory(session: SessionOnDisk) -> None:
    session.path.chmod(0o750)


def give_away(session: SessionOnDisk) -> None:
    os.chown(session.path / "meta", 1234, 4321)


def touch(session: SessionOnDisk) -> None:
    os.utime(session.path, (1, 1))


def leave_a_temporary(session: SessionOnDisk) -> None:
    (session.path / "some.tmp").touch()


def replace_meta(session: SessionOnDisk) -> None:
    (session.path / "meta.tmp").write_text(json.dumps({**META, "title": "another"}))
    (session.path / "meta.tmp").rename(session.path / "meta")


def rewrite_meta(session: SessionOnDisk) -> None:
    (session.path / "meta").write_text(json.dumps({**META, "title": "a third"}))


def add(session: SessionOnDisk) -> None:
    session.add(entry("three"))


def compact(session: SessionOnDisk) -> None:
    session.add(compaction("archive"))


def remove(session: SessionOnDisk) -> None:
    (session.path / "step-000001").unlink()


CHANGES: dict[Callable[[SessionOnDisk], None], set[str]] = {
    chmod_meta: {"history.jsonl", "messages.jsonl", "history.md", "log.jsonl", "compact"},
    chmod_directory: {"", "append"},
    give_away: {"history.jsonl", "log.jsonl"},
    touch: {"", "append"},
    leave_a_temporary: {""},
    replace_meta: {"meta.json"},
    rewrite_meta: {"meta.json"},
    add: {"", "history.jsonl", "messages.jsonl", "history.md", "log.jsonl"},
    compact: {"history.jsonl", "messages.jsonl", "history.md", "log.jsonl", "compact"},
    remove: {"", "history.jsonl", "messages.jsonl", "history.md", "log.jsonl"},
}


@pytest.mark.guarantee("G12b", "G21a")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_any_kind_is_seen_within_a_second(
    store: StoreOnDisk, mount: Mounts, change: Callable[[SessionOnDisk], None]
) -> None:
    session = store.session("crab_tg-42_1", entry("one"), entry("two"))
    at = mount().path / session.slug
    before = look(at)
    change(session)
    begun = time.monotonic()
    changed = CHANGES[change]
    until(lambda: all(attributes(at)[name] != before[name] for name in changed), 5)
    assert time.monotonic() - begun < LAG_SECONDS
    time.sleep(LAG_SECONDS)
    seen = attributes(at)
    time.sleep(LAG_SECONDS)
    assert attributes(at) == seen, "something was told more than a second later"


@pytest.mark.guarantee("G12b", "G23f")
def test_attributes_of_a_session_that_is_watched_no_longer_are_not_kept(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / "store")
    sessions = [store.session(f"crab_tg-42_{n}", entry("one")) for n in range(1, 151)]
    first = sessions[0]
    limits = {resource.RLIMIT_NOFILE: 256}
    with time_limit(tmp_path), mounted(store.path, tmp_path, limits=limits) as served:
        at = served.path / first.slug
        for end in range(2):
            before = look(at)
            for session in sessions[1:]:
                attributes(served.path / session.slug)
            time.sleep(0.1)
            first.add(entry("two"))
            chmod_meta(first) if end else chmod_directory(first)
            time.sleep(LAG_SECONDS)
            seen = attributes(at)
            assert seen["history.jsonl"] != before["history.jsonl"]
            assert seen["compact" if end else ""] != before["compact" if end else ""]
