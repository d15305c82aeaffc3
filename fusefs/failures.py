"""What was refused or failed lately: the lines of errors.jsonl, and the same in the log (G19)."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import orjson

from storage.errors import StoreError, printable

NOTICE: Final = 25
"""The log level of a refused input: normal, but worth knowing; between INFO and WARNING."""
KEPT_FAILURES: Final = 1000
_REFUSALS: Final = frozenset(
    {errno.EINVAL, errno.EFBIG, errno.EPERM, errno.EACCES, errno.EEXIST, errno.ENOENT}
)
"""What the caller can mend; anything else somebody should look at."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that asked."""

    pid: int
    uid: int
    gid: int
    name: str | None = None

    def remembered(self) -> Caller:
        """The same, whose command name is known also when it has ended."""
        return replace(self, name=self.command)

    @property
    def command(self) -> str | None:
        """Its command name, while it lives or as remembered."""
        if self.name is not None:
            return self.name
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/comm", "rb") as comm:
            return comm.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
        return None


KERNEL: Final = Caller(0, 0, 0)
"""Nobody in particular: work of the mount itself, or of the kernel."""


class Failures:
    """The last failures, newest last, bounded. Loop-owned."""

    def __init__(self) -> None:
        self.count = 0
        self._lines: deque[bytes] = deque(maxlen=KEPT_FAILURES)

    def record(
        self,
        session: str | None,
        file: str | None,
        operation: str,
        error: StoreError,
        caller: Caller,
    ) -> None:
        """Take down one failure and log it."""
        self.count += 1
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "pid": caller.pid or None,
            "command": caller.command if caller.pid else None,
            "session": session and printable(session),
            "file": file and printable(file),
            "operation": operation,
            "errno": error.errno_name,
            "code": error.code,
            "error": error.sentence,
        }
        self._lines.append(orjson.dumps(line) + b"\n")
        where = "/".join(printable(part) for part in (session, file) if part)
        level = NOTICE if error.errno in _REFUSALS else logging.WARNING
        log.log(level, "%s %s: %s (%s)", operation, where, error.sentence, error.errno_name)

    def text(self) -> bytes:
        """All lines."""
        return b"".join(self._lines)

    def since(self, count: int) -> bytes:
        """The lines of the failures after the first `count` ones, as far as they are still kept."""
        new = min(self.count - count, len(self._lines))
        return b"".join(list(self._lines)[len(self._lines) - new :]) if new > 0 else b""
