"""Signals of the serving process, handled from before the event loop starts until the very end."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from types import FrameType

import trio

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Signals:
    """Passes each signal to `act` on the event loop; earlier ones wait until that runs."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act
        self._pending: deque[int] = deque()
        self._token: trio.lowlevel.TrioToken | None = None

    def install(self) -> None:
        """Install the handlers, and ignore SIGPIPE: writing to a closed pipe is an error, not fatal."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for number in TAKEN:
            signal.signal(number, self._came)
            # libfuse gives up mounting if its wait for fusermount3 is interrupted.
            signal.siginterrupt(number, False)

    def attach(self) -> None:
        """On the loop: handle the signals received so far, and from now on each as it comes."""
        self._token = trio.lowlevel.current_trio_token()
        self._dispatch()

    def detach(self) -> None:
        """The loop is about to end: later signals are only queued, so that none interrupts the end."""
        self._token = None

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self._pending.append(number)
        if self._token is not None:
            self._token.run_sync_soon(self._dispatch, idempotent=True)

    def _dispatch(self) -> None:
        while self._pending:
            self._act(self._pending.popleft())
