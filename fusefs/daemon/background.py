"""Starts a server in the background; the caller waits until the mount is live or has failed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from fusefs.exits import CommandError, Exit, end_in_order

LIVE = b"live"
SENTENCE_BYTES = 4000


class Report:
    """The child's end of the pipe: reports once whether the start succeeded."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def live(self) -> None:
        """Report that the mount answers, so that the caller can exit with 0.

        Only now does the child leave the caller's process group: during an automount only the process
        group of the mount command can reach the mountpoint.
        """
        os.setsid()
        self._send(LIVE)

    def failed(self, error: CommandError) -> None:
        """Report an error, with which the caller exits; ignored once the mount was live."""
        sentence = error.sentence.encode("utf-8", "backslashreplace")[:SENTENCE_BYTES]
        self._send(b"%d %s" % (error.code, sentence))

    def _send(self, message: bytes) -> None:
        if self._pipe is None:
            return
        pipe, self._pipe = self._pipe, None
        try:
            os.write(pipe, message)
        except BrokenPipeError:
            pass  # the caller was killed while it waited
        finally:
            os.close(pipe)


def start(serve: Callable[[Report], None]) -> None:
    """Run `serve` in a child, and return once that reports that the mount is live.

    Must be called before any thread is started. The child exits when `serve` returns. Raises the
    child's `CommandError` in the caller.
    """
    hearing, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(serve, telling))
    os.close(telling)
    end_in_order()
    try:
        _wait(hearing, pid)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(hearing)


def _child(serve: Callable[[Report], None], telling: int) -> int:
    report = Report(telling)
    try:
        _let_go(keep=telling)
        serve(report)
    except CommandError as error:
        report.failed(error)
        return error.code
    except BaseException as error:
        report.failed(CommandError(Exit.FAILED, f"unexpected {type(error).__name__}: {error}"))
        return Exit.FAILED
    return Exit.OK


def _let_go(keep: int) -> None:
    """Close all inherited descriptors: whoever reads the caller's output must see its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _wait(hearing: int, pid: int) -> None:
    message = b""
    while received := os.read(hearing, SENTENCE_BYTES):
        message += received
    if message == LIVE:
        return
    _, status = os.waitpid(pid, 0)
    code, _, sentence = message.decode("utf-8", "replace").partition(" ")
    if not sentence:
        code = str(int(Exit.FAILED))
        sentence = f"the server ended before it was live{_how(status)}"
    raise CommandError(int(code), sentence)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f", killed by {signal.Signals(-code).name}" if code < 0 else f", with code {code}"
