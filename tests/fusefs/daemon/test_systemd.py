"""What a service manager is told, over a real notification socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fusefs.daemon.systemd import Manager, ping, show_status


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().splitlines()


def environment(listener: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": listener.getsockname(), **more}


def test_every_state_reaches_the_manager_in_order(listening: socket.socket) -> None:
    manager = Manager.taken_from(environment(listening))
    manager.ready("12 sessions")
    manager.status("13 sessions,\n2 open")
    manager.reloading()
    manager.stopping()
    assert heard(listening) == ["READY=1", "STATUS=12 sessions"]
    assert heard(listening) == ["STATUS=13 sessions, 2 open"]
    reloading = heard(listening)
    assert reloading[0] == "RELOADING=1"
    assert int(reloading[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert heard(listening) == ["STOPPING=1"]


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0stepfs-test-{os.getpid()}")
        listener.settimeout(10)
        Manager.taken_from({"NOTIFY_SOCKET": f"@stepfs-test-{os.getpid()}"}).stopping()
        assert heard(listener) == ["STOPPING=1"]


def test_child_processes_do_not_notify_for_the_mount(listening: socket.socket) -> None:
    given = environment(listening, WATCHDOG_USEC="1000000", WATCHDOG_PID="1", HOME="/root")
    Manager.taken_from(given)
    assert given == {"HOME": "/root"}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    listening: socket.socket, variables: dict[str, str], seconds: float | None
) -> None:
    assert Manager.taken_from(environment(listening, **variables)).watchdog_seconds == seconds


@pytest.mark.parametrize("address", ["", "@", "relative", "/nowhere/notify"])
def test_without_a_manager_that_listens_nothing_happens(address: str) -> None:
    manager = Manager.taken_from({"NOTIFY_SOCKET": address})
    manager.ready("ready")
    manager.stopping()


def test_a_manager_that_reads_nothing_does_not_hold_up_the_mount(listening: socket.socket) -> None:
    manager = Manager.taken_from(environment(listening))
    for number in range(10_000):
        manager.status(str(number))
    assert heard(listening) == ["STATUS=0"]


def test_the_event_loop_itself_tells_the_watchdog(listening: socket.socket) -> None:
    manager = Manager.taken_from(environment(listening, WATCHDOG_USEC="20000"))

    async def looping() -> None:
        with trio.move_on_after(0.2):
            await ping(manager)

    trio.run(looping)
    assert heard(listening) == heard(listening) == ["WATCHDOG=1"]


def test_only_a_changed_status_is_sent(
    listening: socket.socket,
) -> None:
    manager = Manager.taken_from(environment(listening))
    lines = iter(["3 sessions", "3 sessions", "4 sessions"])

    async def looping() -> None:
        with trio.move_on_after(60):
            await show_status(manager, lambda: next(lines, "4 sessions"))

    trio.run(looping, clock=MockClock(autojump_threshold=0))
    listening.setblocking(False)
    assert [heard(listening), heard(listening)] == [["STATUS=3 sessions"], ["STATUS=4 sessions"]]
    with pytest.raises(BlockingIOError):
        heard(listening)


def test_without_a_manager_nothing_wakes_up() -> None:
    async def both() -> None:
        with trio.fail_after(1):
            await ping(Manager())
            await show_status(Manager(), lambda: "never told")

    trio.run(both)
