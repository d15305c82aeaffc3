"""Recent refusals and failures: the lines of errors.jsonl, also logged (G19)."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections import Counter, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import trio

from storage.errors import StoreError, printable

NOTICE: Final = 25
"""The log level of a refused input: normal, but worth knowing; between INFO and WARNING."""
KEPT_FAILURES: Final = 1000
LOGGED: Final = 10
"""Failures per session and errno that are logged within `LOG_SECONDS`; more are only counted."""
LOG_SECONDS: Final = 10.0
LOG_SUBJECTS: Final = 1000
"""Limit of the pairs of session and errno counted separately within that time."""
IN_A_ROW: Final = "no-new-files"
"""Consecutive failures of one process in one session with this code share a line: `cp -r` into the
mount fails at each file."""
_SAME: Final = ("pid", "session", "operation", "code")
_REFUSALS: Final = frozenset(
    {errno.EINVAL, errno.EFBIG, errno.EPERM, errno.EACCES, errno.EEXIST, errno.ENOENT}
)
"""Errors that the caller can correct; any other is logged as a warning."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that made a request."""

    pid: int
    uid: int
    gid: int
    name: str | None = None

    def remembered(self) -> Caller:
        """A copy with the command name, which cannot be looked up once the process has ended."""
        return replace(self, name=self.command)

    @property
    def command(self) -> str | None:
        """Its command name, as remembered or from /proc; None if it has ended."""
        if self.name is not None:
            return self.name
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/comm", "rb") as comm:
            return comm.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
        return None


KERNEL: Final = Caller(0, 0, 0)
"""Stands for work of the mount itself or of the kernel, on behalf of no process."""


class _LogLimit:
    """Counts log lines by session and errno, and lets only the first `LOGGED` of each pass."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        """Set once something has been counted."""
        self._counts: Counter[tuple[str | None, str]] = Counter()

    def passes(self, session: str | None, errno_name: str) -> bool:
        """Count a line; whether it should be logged."""
        self.begun.set()
        subject = (session, errno_name)
        if subject not in self._counts and len(self._counts) >= LOG_SUBJECTS:
            subject = (None, errno_name)
        self._counts[subject] += 1
        return self._counts[subject] <= LOGGED

    def held_back(self) -> list[tuple[str | None, str, int]]:
        """Return how many lines of each pair did not pass, and start counting anew."""
        counts, self._counts, self.begun = self._counts, Counter(), trio.Event()
        return [(*subject, count - LOGGED) for subject, count in counts.items() if count > LOGGED]


class Failures:
    """The last `KEPT_FAILURES` failures, newest last. Loop-owned."""

    def __init__(self) -> None:
        self.count = 0
        self.lines_made = 0
        """Less than `count` where consecutive failures share a line."""
        self._lines: deque[bytes] = deque(maxlen=KEPT_FAILURES)
        self._last: dict[str, Any] = {}
        self._log_limit = _LogLimit()

    async def run(self) -> None:
        """Log periodically how many failures were held back, until cancelled."""
        while True:
            await self._log_limit.begun.wait()
            await trio.sleep(LOG_SECONDS)
            self.sum_up()

    def sum_up(self) -> None:
        """Log how many failures were held back since the last time."""
        for session, name, count in self._log_limit.held_back():
            of = "" if session is None else f" of {printable(session)}"
            log.warning("%d more failures%s (%s) are not logged one by one", count, of, name)

    def record(
        self,
        session: str | None,
        file: str | None,
        operation: str,
        error: StoreError,
        caller: Caller,
    ) -> None:
        """Record a failure and log it; one without an errno is only a warning, and is not logged."""
        self.count += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": now,
            "pid": caller.pid or None,
            "command": caller.command if caller.pid else None,
            "session": session and printable(session),
            "file": file and printable(file),
            "operation": operation,
            "errno": error.errno_name if error.errno else None,
            "code": error.code,
            "error": error.sentence,
        }
        if error.code == IN_A_ROW and all(line[key] == self._last.get(key) for key in _SAME):
            self._last |= {"count": self._last.get("count", 1) + 1, "last": now}
            self._lines.pop()
        else:
            self._last = line
            self.lines_made += 1
        self._lines.append(orjson.dumps(self._last) + b"\n")
        if not error.errno:
            return
        if not self._log_limit.passes(session, error.errno_name):
            return
        where = "/".join(printable(part) for part in (session, file) if part)
        level = NOTICE if error.errno in _REFUSALS else logging.WARNING
        log.log(level, "%s %s: %s (%s)", operation, where, error.sentence, error.errno_name)

    def text(self) -> bytes:
        """All lines."""
        return b"".join(self._lines)

    def since(self, made: int) -> bytes:
        """The lines after the first `made` ever made, as far as they are still kept."""
        new = min(self.lines_made - made, len(self._lines))
        return b"".join(list(self._lines)[len(self._lines) - new :]) if new > 0 else b""
