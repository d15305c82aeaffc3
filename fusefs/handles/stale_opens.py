"""Opens that were answered with ESTALE, and the kernel's second attempt at each.

Through a cached name an open can reach an inode whose name belongs to another inode by now. It is
answered with ESTALE, upon which the kernel looks the name up again and retries, but only once. The
inode that the retry reaches was looked up after the caller's open began, so it is current enough even if
it was superseded since: it is opened as if the open had come a moment earlier.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fusefs.failures import Caller
from fusefs.session.session import Session
from fusefs.views.formats import View

SECOND_OPEN_SECONDS: Final = 10.0
"""The kernel's second open comes within this time, after a lookup that may have to wait."""
REMEMBERED_OPENS: Final = 256


class StaleOpens:
    """Threads that were recently answered ESTALE, and for which view. Loop-owned."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._answered: OrderedDict[int, tuple[Session, View, float]] = OrderedDict()

    def answered(self, caller: Caller, session: Session, view: View) -> None:
        """Note that a thread is answered ESTALE."""
        if caller.pid:  # 0 stands for every process outside the mount's PID namespace
            self._answered[caller.pid] = (session, view, self._now())
            if len(self._answered) > REMEMBERED_OPENS:
                self._answered.popitem(last=False)

    def is_second(self, caller: Caller, session: Session, view: View) -> bool:
        """Whether this is the second open after an ESTALE, which is then forgotten."""
        known = self._answered.pop(caller.pid, None)
        if known is None or known[:2] != (session, view):
            return False
        return self._now() - known[2] < SECOND_OPEN_SECONDS
