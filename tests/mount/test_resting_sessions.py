"""What is known of sessions beyond the limit of open ones stays valid while they do not change."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable

import pytest
from inotify_simple import INotify, flags

from fusefs.session.pool import OTHER_DESCRIPTORS
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounting = Callable[..., Mount]
DESCRIPTORS = 256
OPEN = (DESCRIPTORS - OTHER_DESCRIPTORS) // 2
SESSIONS = 3 * OPEN
LIMITS = {resource.RLIMIT_NOFILE: DESCRIPTORS}


def _histories(served: Mount, sessions: list[SessionOnDisk]) -> list[bytes]:
    return [(served.path / session.slug / "history.jsonl").read_bytes() for session in sessions]


def _made(store: StoreOnDisk) -> list[SessionOnDisk]:
    return [
        store.session(f"crab_tg-42_{n}", entry(f"first {n}"), entry(f"second {n}"))
        for n in range(1, SESSIONS + 1)
    ]


@pytest.mark.guarantee("G24c", "G23f")
def test_a_second_pass_over_more_sessions_than_may_be_open_reads_no_step_again(
    store: StoreOnDisk, mount: Mounting
) -> None:
    sessions = _made(store)
    served = mount(limits=LIMITS)
    first = _histories(served, sessions)
    with INotify(nonblocking=True) as opened:
        for session in sessions:
            opened.add_watch(session.path, flags.OPEN)
        assert _histories(served, sessions) == first
        again = [event.name for event in opened.read(timeout=0)]
    assert [name for name in again if name.startswith("step-")] == []
    live = json.loads((served.path / ".stepfs/status.json").read_bytes())["sessions"]
    assert live["live"] <= OPEN
    assert live["watches"] >= SESSIONS


def _rewritten(session: SessionOnDisk) -> None:
    (session.path / "temporary").write_bytes(entry("another second"))
    (session.path / "temporary").rename(session.path / "step-000002")


def _replaced(session: SessionOnDisk) -> None:
    session.path.rename(session.path.with_name("away"))
    shutil.copytree(session.path.with_name("away"), session.path)
    (session.path / "step-000001").write_bytes(entry("of another session"))


CHANGES: dict[str, Callable[[SessionOnDisk], object]] = {
    "a step": lambda session: session.add(entry("third")),
    "a step written in place": lambda session: (session.path / "step-000001").write_bytes(
        entry("written in place")
    ),
    "a step renamed over": _rewritten,
    "a step removed": lambda session: (session.path / "step-000002").unlink(),
    "a compaction": lambda session: session.add(compaction("archive")),
    "another session of that name": _replaced,
}


@pytest.mark.guarantee("G12a", "G13b")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_session_that_rests_is_seen_by_the_next_open(
    store: StoreOnDisk, mount: Mounting, change: str
) -> None:
    sessions = _made(store)
    served = mount(limits=LIMITS)
    before = _histories(served, sessions)[0]
    CHANGES[change](sessions[0])
    after = _histories(served, sessions[:1])[0]
    assert after != before
    assert after == _histories(mount(name="fresh"), sessions[:1])[0]


@pytest.mark.guarantee("G20b")
def test_a_session_that_is_deleted_as_it_rests_is_gone(store: StoreOnDisk, mount: Mounting) -> None:
    sessions = _made(store)
    served = mount(limits=LIMITS)
    _histories(served, sessions)
    sessions[0].delete()
    with pytest.raises(FileNotFoundError):
        _histories(served, sessions[:1])
    assert sessions[0].slug not in os.listdir(served.path)
