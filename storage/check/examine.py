"""Examines one session's directory and reports what is wrong there. Changes nothing."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from storage import posix as files
from storage.errors import StoreError, printable
from storage.formats.kinds import NotAStep, classify
from storage.session import meta
from storage.session.reader import TOO_LONG, Reader
from storage.session.steps import NUMBER_MAX, is_usual, step_number

_LEFT_OVER: Final = re.compile(
    r"(?:step-.*|meta)\.tmp(?:\..*)?|\.(?:meta|step-|stepfs-).*\.tmp(?:\.next)?", re.DOTALL
)
_GAPS_TOLD: Final = 5
_STRIDE: Final = 512


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about one name in a store; `session` is the slug.

    `what` is one of `not-a-step`, `wrong-type`, `left-over`, `misnamed`, `out-of-range`,
    `duplicate-number`, `missing-meta`, `broken-meta`, `unreadable` and `gap`. All but a gap are
    faults: numbers may be left out.
    """

    session: str
    name: str
    what: str
    sentence: str
    fault: bool = True
    repaired: bool = False


@dataclass(slots=True)
class Examined:
    """The findings in one session, and the values from which its meta can be rebuilt."""

    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    """The number of files that are steps, of any kind."""
    message_count: int = 0
    """The number of messages in the history, including an archive's."""
    oldest_ns: int | None = None
    """The earliest mtime of a step, in nanoseconds since 1970; None without steps."""
    newest_ns: int | None = None
    """The latest mtime of a step, in nanoseconds since 1970; None without steps."""
    mode: int | None = None
    """The permission bits of the first step; None without steps."""


def is_of_a_session(name: str) -> bool:
    """Whether a directory that holds this name is likely to be a session."""
    return name == meta.NAME or name.startswith("step-")


def examine(slug: str, directory: int, tell_progress: Callable[[int], None]) -> Examined:
    """Examine everything in a session's directory.

    `tell_progress` is called with the number of names examined since its last call. Raises `OSError`
    if the directory cannot be listed.
    """
    return _Examination(slug, directory, tell_progress).run()


class _Examination:
    def __init__(self, slug: str, directory: int, tell_progress: Callable[[int], None]) -> None:
        self._slug = slug
        self._directory = directory
        self._tell_progress = tell_progress
        self._reader = Reader(directory)
        self._found = Examined()

    def run(self) -> Examined:
        self._meta()
        steps = self._step_names()
        shown: dict[int, str] = {}
        for count, (number, name) in enumerate(steps, 1):
            self._step(number, name, shown)
            if count % _STRIDE == 0:
                self._tell_progress(_STRIDE)
        self._tell_progress(len(steps) % _STRIDE)
        self._gaps(sorted({number for number, _ in steps}))
        return self._found

    def _add(self, name: str, what: str, sentence: str) -> None:
        self._found.findings.append(Finding(self._slug, name, what, sentence))

    def _meta(self) -> None:
        try:
            meta.parsed(meta.read(self._directory)[0])
        except FileNotFoundError:
            self._add(meta.NAME, "missing-meta", "there is no meta")
        except StoreError as error:
            self._add(meta.NAME, "broken-meta", error.sentence)
        except OSError as error:
            self._add(meta.NAME, "unreadable", f"cannot be read: {error.strerror}")

    def _step_names(self) -> list[tuple[int, str]]:
        """The regular files with a step's name, in order; reports on all other names."""
        steps = []
        others = 0
        with files.reopened(self._directory) as own, os.scandir(own) as entries:
            for entry in entries:
                number = step_number(entry.name)
                if number is None:
                    self._other(entry.name)
                elif not entry.is_file(follow_symlinks=False):
                    self._add(
                        entry.name, "wrong-type", "has a step's name and is not a regular file"
                    )
                elif number > NUMBER_MAX:
                    self._add(entry.name, "out-of-range", f"the number is over {NUMBER_MAX}")
                else:
                    steps.append((number, entry.name))
                    continue
                others += 1
        self._tell_progress(others)
        # Of several names with the same number, the one that the daemon would write comes first.
        return sorted(steps, key=lambda step: (step[0], not is_usual(step[1]), step[1]))

    def _other(self, name: str) -> None:
        if _LEFT_OVER.fullmatch(name):
            self._add(name, "left-over", "a temporary that its writer has left")
        elif name.startswith("step-"):
            self._add(name, "misnamed", "a step's name is step- and a number from 1, in digits")

    def _step(self, number: int, name: str, shown: dict[int, str]) -> None:
        found = self._found
        try:
            step = classify(self._reader.read(name))
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except NotAStep as error:
            self._add(name, "not-a-step", f"no step: {error.sentence}")
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EFBIG:
                self._add(name, "not-a-step", f"no step: {TOO_LONG}")
            else:
                self._add(name, "unreadable", f"cannot be read: {error.strerror}")
            return
        found.steps += 1
        if (first := shown.setdefault(number, name)) != name:
            self._add(name, "duplicate-number", f"has the same number as {printable(first)}")
            return
        if found.mode is None:
            found.mode = stat.S_IMODE(status.st_mode)
        found.oldest_ns = min(found.oldest_ns or status.st_mtime_ns, status.st_mtime_ns)
        found.newest_ns = max(found.newest_ns or 0, status.st_mtime_ns)
        if step.kind.is_compaction:
            found.message_count = 1 if step.archive is not None else 0
        elif step.kind.is_entry:
            found.message_count += 1

    def _gaps(self, numbers: list[int]) -> None:
        gaps = list(_between(numbers))
        if not gaps:
            return
        told = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in gaps[:_GAPS_TOLD])
        more = f" and {len(gaps) - _GAPS_TOLD} more" if len(gaps) > _GAPS_TOLD else ""
        sentence = f"no steps {told}{more}; numbers may be left out"
        self._found.findings.append(Finding(self._slug, "", "gap", sentence, fault=False))


def _between(numbers: list[int]) -> Iterator[tuple[int, int]]:
    last = 0
    for number in numbers:
        if number > last + 1:
            yield last + 1, number - 1
        last = number
