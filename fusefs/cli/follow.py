"""`stepfs follow`: print the entries of a session as they come, each once by its step's number.

It waits for POLLPRI on the open history (G14). A file of the mount only ever grows (G13), so new
text is what follows the last text; where the history was replaced by another (compacted, changed
by hand), the new one is opened and what was not printed yet is printed. The numbers of the steps
behind the lines from line LINE on are told by the link `.stepfs/steps/INODE.LINE`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, Final, TextIO

from fusefs.dotdir.step_ranges import Seen, Shown, numbers_told, what_happened
from fusefs.exits import CommandError, Exit
from fusefs.mounts import DEAD_ERRORS
from storage.errors import printable
from storage.formats.kinds import Kind, NotAStep, classify
from storage.render.pieces import visible

DESCRIPTION = """\
Print every step of a session once, as it comes, and go on across compactions. PATH is a session's
directory in a mount, or its history.jsonl. Ends with Ctrl-C."""

STEPS: Final = "../.stepfs/steps"
HISTORY: Final = "history.jsonl"
LOG: Final = "log.jsonl"

_TICK_SECONDS: Final = 1.0
"""How often to look without being woken: where nothing tells the mount, only an open does (G12)."""
_AGAIN_SECONDS: Final = 0.01
_CHUNK: Final = 1 << 20
_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


def arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, and where to begin."""
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--from-start", action="store_true", help="print the history first")


def run(asked: argparse.Namespace) -> int:
    """Follow on standard output, what happens beside on standard error."""
    return follow(asked.path, asked.from_start, sys.stdout.buffer, sys.stderr)


def follow(path: str, from_start: bool, out: BinaryIO, err: TextIO) -> int:
    """Print the entries of the session at `path` to `out` as they come; the exit code.

    `path` is a session's directory in a mount, or its history.jsonl. With `from_start` the present
    history is printed first. What happens to the history beside its growing is said on `err`.

    It is 0 after Ctrl-C, SIGTERM, a reader of `out` that has gone, or the session's deletion, and
    `Exit.NOT_STEPFS` when the mount ends. Raises `CommandError` if `path` is in no stepfs mount.
    """
    session = _open_session(path)
    following = None
    try:
        with _ended_by_sigterm():
            following = _Following(session, out, err)
            following.begin(from_start)
            while following.wait():
                _step(following, session)
    except KeyboardInterrupt:
        return Exit.OK
    except BrokenPipeError:
        # What is buffered must go nowhere, or flushing it at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return Exit.OK
    except OSError as error:
        if error.errno in DEAD_ERRORS:
            _say(err, "the mount has ended")
            return Exit.NOT_STEPFS
        if error.errno not in _GONE:
            raise CommandError(Exit.FAILED, f"cannot follow {printable(path)}: {error}") from error
        _say(err, "the session was deleted")
        return Exit.OK
    finally:
        with contextlib.suppress(OSError):  # closing a file of a mount that has ended fails
            if following is not None:
                following.close()
        os.close(session)
    return Exit.OK


def _step(following: _Following, session: int) -> None:
    """Go on, though a name was not found for a moment because the history was being replaced."""
    try:
        following.step()
    except OSError as error:
        if error.errno not in _GONE:
            raise
        os.stat("meta.json", dir_fd=session)  # raises if it is the session that is gone
        time.sleep(_AGAIN_SECONDS)


class View:
    """An open view of a mount, read line by line with the numbers of the steps behind the lines."""

    def __init__(self, session: int, name: str) -> None:
        """Opens it below the directory `session`. Raises OSError."""
        self._session = session
        self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=session)
        self.inode = os.fstat(self.fd).st_ino
        self.shown = Shown()
        self._offset = 0
        self._rest = b""

    def close(self) -> None:
        """Closes the file."""
        os.close(self.fd)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The complete lines that were not read yet, up to the present end, with their numbers."""
        shown = self.shown
        while True:
            chunk = os.pread(self.fd, _CHUNK, self._offset)
            # Under many writes the kernel may end a read at a size that it knows to be old.
            if not chunk and os.fstat(self.fd).st_size <= self._offset:
                return
            *complete, rest = (self._rest + chunk).split(b"\n")
            while len(shown.numbers) < len(shown.digests) + len(complete):
                if not self.know_more_numbers():
                    raise OSError(errno.EIO, "the mount does not tell the number of a step")
            self._offset, self._rest = self._offset + len(chunk), rest
            for line in complete:
                shown.digests.append(hash(line))
                yield shown.numbers[len(shown.digests) - 1], line + b"\n"

    def know_more_numbers(self) -> bool:
        """Ask for the numbers behind the lines after the last one that is known; False if none."""
        known = self.shown.numbers
        before = len(known)
        asked = f"{STEPS}/{self.inode}.{before}"
        known.extend(numbers_told(os.readlink(asked, dir_fd=self._session)))
        return len(known) > before


class _Following:
    def __init__(self, session: int, out: BinaryIO, err: TextIO) -> None:
        self._session = session
        self._out = out
        self._err = err
        self._seen = Seen()
        self._view = View(session, HISTORY)
        self._archive = self._present_archive()
        self._told = False

    def close(self) -> None:
        self._view.close()

    def begin(self, from_start: bool) -> None:
        """Take in the present history, printed if wanted."""
        for number, line in self._view.lines():
            if self._seen.add(number) and from_start:
                self._out.write(line)
        self._out.flush()
        if not self._view.shown.numbers:
            self._know_the_last_step()

    def wait(self) -> bool:
        """Wait until there may be something new; False when the reader of the output has gone."""
        poll = select.poll()
        poll.register(self._view.fd, select.POLLPRI)
        output = self._out.fileno()
        poll.register(output, 0)
        ready = dict(poll.poll(_TICK_SECONDS * 1000))
        self._told = self._view.fd in ready
        return output not in ready

    def step(self) -> None:
        """Print what is new, here or in what has replaced the history.

        Raises OSError; called again it goes on where it was.
        """
        if self._print_new() and self._told:
            return
        successor = View(self._session, HISTORY)
        if successor.inode != self._view.inode:
            self._go_over_to(successor)
            return
        successor.close()
        if not self._view.shown.digests:
            self._look_behind_an_empty_history()
        if not self._print_new() and self._told:
            time.sleep(_AGAIN_SECONDS)

    def _go_over_to(self, successor: View) -> None:
        before, archive_before = self._view, self._archive
        try:
            self._print_new()
            while successor.know_more_numbers():
                pass
            archive = self._present_archive()
            if not successor.shown.numbers:
                self._print_from_log()
        except OSError:
            successor.close()
            raise
        self._view, self._archive = successor, archive
        with contextlib.suppress(OSError):
            before.close()
        self._print_new()
        for sentence in what_happened(before.shown, successor.shown, archive_before, archive):
            _say(self._err, sentence)

    def _look_behind_an_empty_history(self) -> None:
        """An empty file is the beginning of any other: it is not replaced by a compaction."""
        archive = self._present_archive()
        if archive != self._archive:
            self._print_from_log()
            for sentence in what_happened(Shown(), Shown(), self._archive, archive):
                _say(self._err, sentence)
            self._archive = archive

    def _print_new(self) -> bool:
        """Whether there were new lines; those of steps not seen yet are printed."""
        view = self._view
        if not view.shown.digests:
            if not view.shown.numbers and not view.know_more_numbers():
                return False
            if view.shown.numbers[0] > self._seen.greatest:
                self._print_from_log()
        any_line = False
        for number, line in view.lines():
            any_line = True
            if self._seen.add(number):
                self._out.write(line)
        self._out.flush()
        return any_line

    def _print_from_log(self) -> None:
        """Print the entries that compactions have hidden before they were seen in the history."""
        last = self._seen.greatest
        log = View(self._session, LOG)
        try:
            for number, line in log.lines():
                if number > last and _is_entry(line) and self._seen.add(number):
                    self._out.write(line)
        finally:
            log.close()
        self._out.flush()

    def _know_the_last_step(self) -> None:
        """With an empty history, what is in the log was there before."""
        log = View(self._session, LOG)
        try:
            while log.know_more_numbers():
                pass
            if log.shown.numbers:
                self._seen.add(log.shown.numbers[-1])
        finally:
            log.close()

    def _present_archive(self) -> str:
        fd = os.open("compact", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._session)
        try:
            return os.read(fd, _CHUNK).decode("utf-8", "replace").removesuffix("\n")
        finally:
            os.close(fd)


def _open_session(path: str) -> int:
    """The directory of the session that `path` names. Raises CommandError."""
    try:
        directory = path
        if not stat.S_ISDIR(os.stat(path).st_mode):
            directory, name = os.path.split(path)
            if name != HISTORY:
                sentence = f"{printable(path)} is no session: give its directory or {HISTORY}"
                raise CommandError(Exit.NOT_STEPFS, sentence)
        session = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        sentence = f"cannot follow {printable(path)}: {error.strerror}"
        raise CommandError(Exit.NOT_STEPFS, sentence) from None
    try:
        inode = os.stat(HISTORY, dir_fd=session).st_ino
        os.readlink(f"{STEPS}/{inode}.0", dir_fd=session)
    except OSError as error:
        os.close(session)
        if error.errno in _GONE | {errno.ENOTDIR, errno.EINVAL}:
            sentence = f"{printable(path)} is no session of a stepfs mount"
        else:
            sentence = f"cannot follow {printable(path)}: {error.strerror}"
        raise CommandError(Exit.NOT_STEPFS, sentence) from None
    return session


def _is_entry(line: bytes) -> bool:
    try:
        return classify(line).kind is Kind.ENTRY
    except NotAStep:
        return False


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM ends as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(err: TextIO, sentence: str) -> None:
    print(f"stepfs: {visible(sentence)}", file=err, flush=True)
