"""The log: one line per event, in every format."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.daemon import logs
from fusefs.daemon.logs import REFUSED, JournalLines, JsonLines, RefusalLimit, TextLines
from fusefs.failures import NOTICE

PROJECT = Path(__file__).parents[3]


def record(
    message: str = "could not store %s",
    *arguments: object,
    level: int = logging.WARNING,
    name: str = "fusefs",
    error: Exception | None = None,
    **extra: object,
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord(name, level, __file__, 1, message, arguments, exc_info)
    vars(made).update(extra)
    return made


def fail() -> None:
    raise ValueError("bad\nvalue")


def raised() -> Exception:
    with pytest.raises(ValueError, match="bad") as caught:
        fail()
    return caught.value


def test_an_event_is_one_plain_line() -> None:
    text = TextLines("stepfs: ").format(record("%s is no step", "a\nb\x1b[31m\udcff"))
    assert text == "stepfs: warning: a\\nb\\x1b[31m\\udcff is no step"


def test_normal_messages_show_no_level() -> None:
    text = TextLines("stepfs: ").format(record("mounted", level=logging.INFO))
    assert text == "stepfs: mounted"


def test_an_unexpected_error_is_one_line_unless_more_is_requested() -> None:
    bad = record("reading failed", level=logging.ERROR, error=raised())
    brief = TextLines("stepfs: ").format(bad)
    assert brief == "stepfs: error: reading failed: ValueError: bad\\nvalue"
    verbose = TextLines("stepfs: ", verbose=True).format(bad).splitlines()
    assert verbose[0] == brief
    assert "in fail" in "".join(verbose[1:])
    assert all(line.startswith("stepfs: ") for line in verbose)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (NOTICE, 5),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
    ],
)
def test_the_journal_gets_the_priority(level: int, priority: int) -> None:
    assert JournalLines().format(record("mounted", level=level)) == f"<{priority}>mounted"


def test_a_program_reads_an_object_a_line() -> None:
    line = JsonLines().format(
        record("%s is no step", "a\nb\udcff", session="crab\udcff", pid=7, error=raised())
    )
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == "a\\nb\\udcff is no step"
    assert fields["level"] == "warning"
    assert fields["session"] == "crab\\xff"
    assert fields["pid"] == 7
    assert fields["traceback"].endswith("ValueError: bad\nvalue")
    assert fields["time"].endswith("+00:00")


def test_a_flood_of_refusals_is_cut_short_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("fusefs.daemon.logs.time.monotonic", lambda: now)
    limit = RefusalLimit()
    passed = [limit.filter(record("refused", level=NOTICE, name=REFUSED)) for _ in range(500)]
    assert passed == [True] * logs.LIMIT_LINES + [False] * (500 - logs.LIMIT_LINES)
    now += logs.LIMIT_SECONDS
    late = record("refused", level=NOTICE, name=REFUSED)
    assert limit.filter(late)
    held = 500 - logs.LIMIT_LINES
    assert TextLines("").format(late) == f"notice: refused ({held} more like it were not logged)"


def test_errors_are_never_suppressed() -> None:
    limit = RefusalLimit()
    for _ in range(100):
        limit.filter(record(name=REFUSED))
    assert limit.filter(record(name="storage.session.replay"))
    assert limit.filter(record(name=REFUSED, level=logging.ERROR))


def logging_process(code: str, **environment: str) -> subprocess.Popen[bytes]:
    program = (
        "import logging, os, sys\nfrom fusefs.daemon import logs\n"
        "from fusefs.daemon.logs import LogSettings\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program + code],
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
    )


WARN = "logs.configure(LogSettings(), background=False)\nlogging.warning('full')\n"


def test_priorities_only_where_stderr_is_the_journal() -> None:
    code = (
        "at = os.fstat(2)\nos.environ['JOURNAL_STREAM'] = f'{at.st_dev}:{at.st_ino}'\n"
        + WARN
        + "os.environ['JOURNAL_STREAM'] = '1:1'\n"
        + WARN
    )
    _, stderr = logging_process(code).communicate(timeout=30)
    assert stderr == b"<4>full\nstepfs: warning: full\n"


def test_quiet_levels_are_left_out() -> None:
    code = (
        "logs.configure(LogSettings(level='notice'), background=False)\n"
        "logging.info('quiet'); logging.log(25, 'heard')\n"
    )
    _, stderr = logging_process(code).communicate(timeout=30)
    assert stderr == b"stepfs: notice: heard\n"


def test_a_log_file_is_stamped_and_survives_rotation(tmp_path: Path) -> None:
    file = tmp_path / "stepfs.log"
    code = (
        f"logs.configure(LogSettings(file={str(file)!r}), background=True)\n"
        f"logging.warning('one'); os.rename({str(file)!r}, {str(file) + '.1'!r})\n"
        "logging.warning('two')\n"
    )
    _, stderr = logging_process(code).communicate(timeout=30)
    assert stderr == b""
    assert file.with_suffix(".log.1").read_text().endswith("+00:00 stepfs: warning: one\n")
    assert file.read_text().endswith("+00:00 stepfs: warning: two\n")
