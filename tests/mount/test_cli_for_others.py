"""Commands that read many sessions, run by users who may not read all of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from fusefs.cli.main import main
from fusefs.exits import Exit
from tests.support.mounted import Mount
from tests.support.people import ANA, EVE, Person, own, public_directory, session_of
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

Mounts = Callable[..., Mount]
DENIED = "Permission denied"
DONE = json.dumps(
    {
        "event": "done",
        "model": "m",
        "iterations": 1,
        "stop_reason": "stop",
        "usage": {"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17},
        "ts": "2026-04-28T00:00:00.2+00:00",
    }
).encode()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with public_directory() as place:
        yield place


@pytest.fixture
def shown(store: StoreOnDisk) -> SessionOnDisk:
    """A session that others may open, beside one that is closed to them; all its steps are too."""
    own(store.path, ANA, 0o755)
    session_of(store, ANA, 0o700, 0o600)
    return session_of(store, ANA, 0o755, 0o644, "crab_tg-42_2")


COMMANDS = {
    "append": ["fusefs.cli.append"],
    "ls": ["fusefs.cli.listing"],
    "show": ["fusefs.cli.show"],
    "usage": ["fusefs.cli.usage"],
    "search": ["fusefs.cli.search", "storage.search.texts"],
}


def told(person: Person, command: str, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of a command run as this person; modules are loaded before changing user."""
    for module in COMMANDS[command]:
        import_module(module)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 255
        try:
            person.become()
            sys.stdout = sys.stderr = open(writing, "w")  # noqa: SIM115
            code = main([command, *map(str, arguments)])
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as output:
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.guarantee("G21a")
def test_commands_leave_out_the_sessions_that_the_user_may_not_read(
    shown: SessionOnDisk, mount: Mounts
) -> None:
    """The open session's steps have a mode that forbids reading; the mount shows them anyway."""
    shown.add(DONE)
    (shown.path / "step-000004").chmod(0o600)
    at = mount("allow_other").path
    code, listed = told(EVE, "ls", at)
    assert (code, listed.count("\n"), listed.split()[0]) == (Exit.OK, 1, "crab_tg-42_2")
    assert told(EVE, "usage", at) == (Exit.OK, told(ANA, "usage", at / "crab_tg-42_2")[1])
    assert "\t17" in told(EVE, "usage", at)[1]
    assert told(ANA, "usage", at)[1] == told(EVE, "usage", at)[1]


@pytest.mark.guarantee("G21a")
@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("command", ["ls", "show", "append"])
def test_a_session_that_is_closed_to_the_user_is_told_from_one_that_is_not_there(
    command: str, mount: Mounts
) -> None:
    at = mount("allow_other").path
    words = ["text"] if command == "append" else []
    for path in (at / "crab_tg-42_1", at / "crab_tg-42_1" / "history.jsonl"):
        told_so = (Exit.STORE, f"stepfs: you may not read {path}\n")
        assert told(EVE, command, path, *words) == told_so
    none = (Exit.NOT_STEPFS, f"stepfs: there is no session crab_tg-42_9 in {at}\n")
    assert told(EVE, command, at / "crab_tg-42_9", *words) == none
    assert told(ANA, "ls", at / "crab_tg-42_1")[0] == Exit.OK


def test_in_a_closed_store_nothing_is_said_not_to_exist(
    store: StoreOnDisk, shown: SessionOnDisk
) -> None:
    store.path.chmod(0o700)
    for path in (shown.path, shown.path / "step-000001"):
        told_so = (Exit.STORE, f"stepfs: you may not read {path}\n")
        assert told(EVE, "show", path) == told_so
    code, sentence = told(ANA, "show", store.path / "none")
    assert (code, sentence) == (Exit.STORE, f"stepfs: {store.path}/none does not exist\n")


@pytest.mark.guarantee("G21a")
def test_a_search_passes_over_closed_sessions_and_names_a_step_that_is_closed(
    store: StoreOnDisk, shown: SessionOnDisk, mount: Mounts
) -> None:
    at = mount("allow_other").path
    code, sentence = told(EVE, "search", "secret", at)
    assert (code, sentence) == (
        Exit.FAILED,
        "stepfs: crab_tg-42_2/step-000001 could not be searched: Permission denied;"
        " nor could 2 others\n",
    )
    for step in shown.path.glob("step-*"):
        step.chmod(0o644)
    code, found = told(EVE, "search", "secret", at)
    assert (code, found) == (Exit.OK, "crab_tg-42_2\t1\tuser\ta secret\n")
    store.path.chmod(0o700)
    code, sentence = told(EVE, "search", "secret", store.path)
    assert (code, DENIED in sentence) == (Exit.STORE, True)


def test_a_search_goes_on_past_a_step_that_may_not_be_read_and_tells_of_it(
    store: StoreOnDisk,
) -> None:
    own(store.path, ANA, 0o755)
    for slug in ("crab_tg-42_1", "crab_tg-42_2"):
        session = session_of(store, ANA, 0o755, 0o644, slug)
        session.add(entry("a disk"))
        for step in session.path.glob("step-*"):
            step.chmod(0o644)
    closed = store.path / "crab_tg-42_1"
    SessionOnDisk(closed).add(entry("another disk"))
    (closed / "step-000004").chmod(0o600)
    code, answer = told(EVE, "search", "disk$", store.path)
    assert code == Exit.FAILED
    assert answer.splitlines() == [
        "crab_tg-42_1\t5\tuser\tanother disk",
        "crab_tg-42_2\t4\tuser\ta disk",
        "stepfs: crab_tg-42_1/step-000004 could not be searched: Permission denied",
    ]
