"""Notifies systemd: READY, STATUS, STOPPING and the watchdog (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

import trio

STATUS_SECONDS = 5.0


class Manager:
    """The service manager that started this process; without one, every call does nothing."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self.watchdog_seconds = watchdog_seconds if address else None

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Manager:
        """The manager named by `environment`, whose variables are removed so that no child process
        notifies it too."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        interval = None
        if microseconds.isdecimal() and int(microseconds) and watched == str(os.getpid()):
            interval = int(microseconds) / 2e6
        return cls(address if address[:1] in ("/", "@") and len(address) > 1 else None, interval)

    @property
    def present(self) -> bool:
        return self._address is not None

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *words: str) -> None:
        """Send a notification. Errors are ignored: serving does not depend on the manager."""
        if self._address is None:
            return
        message = "\n".join(" ".join(word.splitlines()) for word in words)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.connect(self._address)
                sender.send(message.encode("utf-8", "backslashreplace"))
        except OSError:
            pass


async def ping(manager: Manager) -> None:
    """Keep pinging the watchdog from the event loop, so that a hung loop is noticed."""
    if manager.watchdog_seconds is None:
        return
    while True:
        manager.alive()
        await trio.sleep(manager.watchdog_seconds)


async def show_status(manager: Manager, line: Callable[[], str]) -> None:
    """Keep the manager's STATUS equal to what `line` returns, sending only changes."""
    if not manager.present:
        return
    told = None
    while True:
        current = line()
        if current != told:
            manager.status(current)
            told = current
        await trio.sleep(STATUS_SECONDS)
