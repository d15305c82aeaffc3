"""The log: one line per event, for people, for the journal, or as JSON for programs."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from fusefs.exits import is_journal
from fusefs.failures import NOTICE

REFUSED = "fusefs.failures"
"""The logger of refused operations, limited so that a script in a loop cannot fill the disk."""

LEVELS = ("debug", "info", "notice", "warning", "error")
SYSLOG = "/dev/log"
LIMIT_LINES = 20
LIMIT_SECONDS = 60.0

logging.addLevelName(NOTICE, "NOTICE")
OWN_FIELDS = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "withheld"})


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`level` is one of `LEVELS`; `file` None means stderr, or syslog in the background."""

    level: str = "info"
    json: bool = False
    file: str | None = None


def configure(settings: LogSettings, *, background: bool) -> None:
    """Set up the logging of this process. Raises `OSError` if `file` cannot be written."""
    handler = _handler(settings, background=background)
    handler.addFilter(RefusalLimit())
    verbose = settings.level == "debug"
    if settings.json:
        handler.setFormatter(JsonLines())
    elif isinstance(handler, _Syslog):
        handler.setFormatter(TextLines(f"stepfs[{os.getpid()}]: ", verbose=verbose))
    elif settings.file is None and is_journal():
        handler.setFormatter(JournalLines(verbose=verbose))
    else:
        stamp = settings.file is not None
        handler.setFormatter(TextLines("stepfs: ", verbose=verbose, stamp=stamp))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    logging.raiseExceptions = False


def _handler(settings: LogSettings, *, background: bool) -> logging.Handler:
    if settings.file is not None:
        return logging.handlers.WatchedFileHandler(
            settings.file, encoding="utf-8", errors="backslashreplace"
        )
    if not background:
        return logging.StreamHandler(sys.stderr)
    try:
        return _Syslog(SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
    except OSError:
        return logging.NullHandler()


class _Syslog(logging.handlers.SysLogHandler):
    append_nul = False

    def mapPriority(self, levelName: str) -> str:  # noqa: N802, N803
        return "notice" if levelName == "NOTICE" else super().mapPriority(levelName)


def priority(level: int) -> int:
    """The priority of syslog(3) for a level of `logging`."""
    for least, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4)):
        if level >= least:
            return number
    if level >= NOTICE:
        return 5
    return 6 if level >= logging.INFO else 7


def _one_line(text: str) -> str:
    """`text` with line ends and control characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _message(record: logging.LogRecord) -> str:
    withheld = getattr(record, "withheld", 0)
    more = f" ({withheld} more like it were not logged)" if withheld else ""
    return _one_line(record.getMessage()) + more


class TextLines(logging.Formatter):
    """`stepfs: warning: MESSAGE`, and the exception if there is one; with its traceback if `verbose`."""

    def __init__(self, start: str, *, verbose: bool = False, stamp: bool = False) -> None:
        super().__init__()
        self._start = start
        self._verbose = verbose
        self._stamp = stamp

    def format(self, record: logging.LogRecord) -> str:
        lines = [self._level_of(record) + _message(record)]
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            lines[0] += f": {type(error).__name__}: {_one_line(str(error))}"
            if self._verbose:
                lines += map(_one_line, self.formatException(record.exc_info).splitlines())
        start = self._start_of(record)
        return "\n".join(start + line for line in lines)

    def _start_of(self, record: logging.LogRecord) -> str:
        return (_time(record) + " " if self._stamp else "") + self._start

    def _level_of(self, record: logging.LogRecord) -> str:
        return "" if record.levelno == logging.INFO else record.levelname.lower() + ": "


class JournalLines(TextLines):
    """Text after a priority such as `<4>`, which the journal reads from a service's stderr."""

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__("", verbose=verbose)

    def _start_of(self, record: logging.LogRecord) -> str:
        return f"<{priority(record.levelno)}>"

    def _level_of(self, _record: logging.LogRecord) -> str:
        return ""


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, the `extra` fields, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": _message(record),
            "logger": record.name,
        }
        fields |= {k: _plain(v) for k, v in vars(record).items() if k not in OWN_FIELDS}
        if record.exc_info:
            fields["traceback"] = _plain(self.formatException(record.exc_info))
        return orjson.dumps(fields, default=str).decode()


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, int | float | None):
        return value
    return _plain(str(value)) if not isinstance(value, Mapping | list | tuple) else value


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class RefusalLimit(logging.Filter):
    """Passes `LIMIT_LINES` refusals per `LIMIT_SECONDS`; the next one then tells how many were withheld.

    Only the logger `REFUSED` is limited, and only below ERROR.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since = -LIMIT_SECONDS
        self._passed = 0
        self._withheld = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != REFUSED or record.levelno >= logging.ERROR:
            return True
        now = time.monotonic()
        if now - self._since >= LIMIT_SECONDS:
            self._since, self._passed = now, 0
        self._passed += 1
        if self._passed > LIMIT_LINES:
            self._withheld += 1
            return False
        record.withheld, self._withheld = self._withheld, 0
        return True
