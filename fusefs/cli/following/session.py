"""Follows one session: each entry is printed once, identified by its step's number.

It watches the history. If that is replaced by another, because of a compaction or an edit, the entries
not yet printed are printed from the log, which has the compactions in their places.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Final

from fusefs.cli.following.output import Output
from fusefs.cli.following.view import View
from fusefs.dotdir.step_ranges import Seen, Shown, begins_anew, compaction_told, what_happened
from storage.formats.kinds import NotAStep, classify

HISTORY: Final = "history.jsonl"
LOG: Final = "log.jsonl"
GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})
_AGAIN_SECONDS: Final = 0.01
_NAME_BYTES: Final = 4096


class Followed:
    """A session in a mount, which is open, or asleep and remembers what was seen.

    All methods raise `OSError`; called again they continue where they were.
    """

    def __init__(self, root: int, slug: str, output: Output) -> None:
        self.slug = slug
        self._root = root
        self._output = output
        self._directory: int | None = None
        self._view: View | None = None
        self._seen = Seen()
        self._shown = Shown()
        """The content of the history when it was last open."""
        self._archive = ""
        self._compacted = 0
        """The last compaction that was reported."""

    @property
    def fd(self) -> int | None:
        """The open history; None while it is asleep."""
        return self._view.fd if self._view else None

    def sleep(self) -> None:
        """Close all open views."""
        if self._view is not None:
            self._shown = self._view.shown
        for close in (self._view and self._view.close, self._close_directory):
            if close:
                with contextlib.suppress(OSError):  # in a mount that has ended
                    close()
        self._view = None

    def take_in(self) -> None:
        """Count all present steps as seen."""
        view = self._open()
        view.know_all_numbers()
        self._archive = self._present_archive()
        for number in view.shown.numbers:
            self._seen.add(number)
        if not view.shown.numbers:
            self._take_in_the_log()

    def print_history(self) -> None:
        """Print the present history."""
        self._open()
        self._archive = self._present_archive()
        self._print_lines()
        if not self._seen.greatest:
            self._take_in_the_log()

    def print_all(self) -> None:
        """Print everything from the first step on, for a new session."""
        self._open()
        self._catch_up()
        self._print_new()

    def step(self, *, told: bool = False) -> None:
        """Print new entries; `told`: poll(2) has reported a change."""
        if self._view is None:
            self._wake()
            return
        if self._print_new() and told:
            return
        successor = View(self._opened_directory(), HISTORY)
        if successor.inode != self._view.inode:
            self._go_over_to(successor)
            return
        successor.close()
        if not self._view.shown.numbers:
            self._look_behind_an_empty_history()
        if not self._print_new() and told:
            time.sleep(_AGAIN_SECONDS)

    def is_there(self) -> bool:
        """Whether the session still exists."""
        where = self._root if self._directory is None else self._directory
        name = "meta.json" if where == self._directory else f"{self.slug}/meta.json"
        try:
            os.stat(name, dir_fd=where)
        except OSError as error:
            if error.errno in GONE:
                return False
            raise
        return True

    def _opened_directory(self) -> int:
        if self._directory is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._directory = os.open(self.slug, flags, dir_fd=self._root)
        return self._directory

    def _close_directory(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    def _open(self) -> View:
        if self._view is None:
            self._view = View(self._opened_directory(), HISTORY)
        return self._view

    def _wake(self) -> None:
        self._go_over_to(View(self._opened_directory(), HISTORY))

    def _go_over_to(self, successor: View) -> None:
        before = self._view
        try:
            if before is not None:
                self._print_new()
            self._tell_and_print(before.shown if before else self._shown, successor)
        except OSError:
            successor.close()
            raise
        self._view = successor
        if before is not None:
            with contextlib.suppress(OSError):
                before.close()
        self._print_new()

    def _tell_and_print(self, before: Shown, successor: View) -> None:
        """Report why the history was replaced, and print the entries of its successor that are due."""
        now, archive = successor.shown, self._present_archive()
        successor.know_all_numbers()
        is_other = archive != self._archive or begins_anew(before.numbers, now.numbers)
        is_told = is_other and self._catch_up()
        last = before.numbers[-1] if before.numbers else 0
        held = []
        # An empty history may by now have grown into one after yet another compaction.
        for number, line in successor.lines() if now.numbers else ():
            held.append((number, line))
            if number >= last:
                break
        if not is_told and (archive != self._archive or not self._compacted_between(last, now)):
            self._tell(before, now, archive)
        for number, line in held:
            self._print(number, line)

    def _look_behind_an_empty_history(self) -> None:
        """An empty file is a prefix of any other, so a compaction does not replace it."""
        archive = self._present_archive()
        if archive != self._archive and not self._catch_up():
            self._tell(Shown(), Shown(), archive)

    def _tell(self, before: Shown, now: Shown, archive: str) -> None:
        for sentence in what_happened(before, now, self._archive, archive):
            self._output.notice(self.slug, sentence)
        self._archive = archive

    def _compacted_between(self, last: int, now: Shown) -> bool:
        """Whether a reported compaction is after step `last` and before what is shown now."""
        return last < self._compacted and not (now.numbers and now.numbers[0] < self._compacted)

    def _print_new(self) -> bool:
        """Print new lines of steps not seen yet; whether there were new lines."""
        view = self._open()
        if not view.shown.digests:
            if not view.shown.numbers and not view.know_more_numbers():
                return False
            if view.shown.numbers[0] > self._seen.greatest:
                self._catch_up()
        return self._print_lines()

    def _print_lines(self) -> bool:
        any_line = False
        for number, line in self._open().lines():
            any_line = True
            self._print(number, line)
        self._output.flush()
        return any_line

    def _print(self, number: int, line: bytes) -> None:
        if self._seen.add(number):
            self._output.step(self.slug, number, line)

    def _catch_up(self) -> bool:
        """Print entries from the log later than all steps seen; whether there was a compaction."""
        last = self._seen.greatest
        before = self._compacted
        log = View(self._opened_directory(), LOG)
        try:
            for number, line in log.lines():
                if number > last:
                    self._print_of_log(number, line)
        finally:
            log.close()
        self._output.flush()
        return self._compacted > before

    def _print_of_log(self, number: int, line: bytes) -> None:
        try:
            step = classify(line)
        except NotAStep:
            return
        if step.kind.is_entry:
            self._print(number, line)
        elif step.kind.is_compaction and self._seen.add(number):
            self._archive, self._compacted = step.archive or "", number
            self._output.notice(self.slug, compaction_told(self._archive))

    def _take_in_the_log(self) -> None:
        """If the history is empty, everything in the log counts as seen."""
        log = View(self._opened_directory(), LOG)
        try:
            log.know_all_numbers()
            if log.shown.numbers:
                self._seen.add(log.shown.numbers[-1])
        finally:
            log.close()

    def _present_archive(self) -> str:
        flags = os.O_RDONLY | os.O_CLOEXEC
        fd = os.open("compact", flags, dir_fd=self._opened_directory())
        try:
            return os.read(fd, _NAME_BYTES).decode("utf-8", "replace").removesuffix("\n")
        finally:
            os.close(fd)
