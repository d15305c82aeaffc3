"""How a command ends: its exit code, and the one line that says why."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from enum import IntEnum

from storage.errors import StoreError, printable

INTERRUPTED = 130


class Exit(IntEnum):
    """The exit codes of `stepfs`; `stepfs --help` explains them."""

    OK = 0
    USAGE = 1
    STORE = 2
    MOUNTPOINT = 3
    PERMISSION = 4
    FAILED = 5
    NOT_STEPFS = 6
    CHECK_FOUND = 7
    CHECK_REPAIRED = 8
    NOTHING_FOUND = 9


class CommandError(Exception):
    """A command fails with exit code `code`; `sentence` is its one line on stderr."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def command_line(*words: str) -> str:
    """A stepfs command line, quoted for pasting into a shell."""
    return shlex.join(["stepfs", *map(printable, words)])


def end_in_order() -> None:
    """From now on Ctrl-C raises `KeyboardInterrupt`, unless it is ignored (`fusefs.cli.start`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def guarded(program: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; an exception becomes an exit code and one line on stderr.

    The traceback of an unexpected one is shown only in Python's development mode.
    """
    try:
        try:
            code = run()
        finally:
            sys.stdout.flush()  # also before a SystemExit, as of --help
    except CommandError as error:
        _complain(program, error.sentence)
        return error.code
    except StoreError as error:
        _complain(program, error.sentence)
        return Exit.FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _complain(program, f"{what}{error.strerror or error}")
        return Exit.FAILED
    except Exception as error:
        if sys.flags.dev_mode:
            import traceback

            traceback.print_exc()
        _complain(program, f"unexpected {type(error).__name__}: {error}")
        return Exit.FAILED
    return code


def _complain(program: str, sentence: str) -> None:
    priority = "<3>" if is_journal() else ""
    text = printable(sentence).replace("\n", " ").replace("\r", " ")
    print(f"{priority}{program}: {text}", file=sys.stderr)


def is_journal() -> bool:
    """Whether stderr goes to the journal (`$JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        opened = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{opened.st_dev}:{opened.st_ino}"
