"""Checks a store for faults: `stepfs check`.

Checking changes nothing, not even an access time. `storage.check.repair` does the repairs: it moves
things aside and rebuilds metas, and never deletes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from storage import posix as files
from storage.check.examine import Examined, Finding, examine, is_of_a_session
from storage.check.repair import Lost, rebuild_meta
from storage.errors import StoreError, from_os_error, printable
from storage.formats.slug import is_session_name
from storage.render.pieces import visible
from storage.session import meta
from storage.store import Store

SETTLE_SECONDS: Final = 2.0
Progress = Callable[[int, int], None]

_HALF_SESSION: Final = re.compile(r"\.(?:new|del)\.[0-9a-f]{16}")


@dataclass(slots=True)
class Report:
    """The findings in a store, and how much of it was examined."""

    findings: list[Finding] = field(default_factory=list)
    sessions: int = 0
    steps: int = 0

    @property
    def faults(self) -> list[Finding]:
        """The findings that are faults, not just notes."""
        return [finding for finding in self.findings if finding.fault]

    @property
    def exit_code(self) -> int:
        """0 if there is no fault, 8 if all faults were repaired, else 7."""
        if not self.faults:
            return 0
        return 8 if all(finding.repaired for finding in self.faults) else 7


def check(
    store_path: str,
    repair: bool,
    progress: Progress | None = None,
    settle_seconds: float = SETTLE_SECONDS,
) -> Report:
    """Check the whole store; with `repair`, move faulty things aside and rebuild metas.

    `progress` is called with the number of names examined so far and the number at the start. What
    changed less than `settle_seconds` ago is examined again before it is moved: another process may
    be working on it. Raises `StoreError` if the store cannot be opened or listed.
    """
    store = Store(store_path)
    try:
        return _Check(store.fd, repair, settle_seconds, progress).run()
    except OSError as error:
        raise from_os_error(error, f"check the store {printable(store_path)}") from error
    finally:
        store.close()


def main_report(report: Report) -> str:
    """The report as text: a line per finding, and a summary."""
    lines = [_line(finding) for finding in report.findings]
    faults = report.faults
    repaired = sum(finding.repaired for finding in faults)
    outcome = f"{_count(len(faults), 'fault')}, {repaired} repaired" if faults else "healthy"
    lines.append(f"{_count(report.sessions, 'session')}, {_count(report.steps, 'step')}: {outcome}")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    names = dict.fromkeys(name for name in (finding.session, finding.name) if name)
    kind = "" if finding.fault else "note: "
    line = f"{printable('/'.join(names))}: {kind}{printable(finding.sentence)}"
    return visible(line).replace("\n", "␊")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


class _Check:
    def __init__(
        self, store_fd: int, repair: bool, settle_seconds: float, progress: Progress | None
    ) -> None:
        self._store = store_fd
        self._repair = repair
        self._settle_seconds = settle_seconds
        self._progress = progress
        self._lost = Lost(store_fd)
        self._report = Report()
        self._done = self._total = 0

    def run(self) -> Report:
        names = sorted(files.listing(self._store))
        if self._progress is not None:
            self._total = sum(self._names_in(name) for name in names)
        for name in names:
            if _HALF_SESSION.fullmatch(name):
                self._half_session(name)
            elif not name.startswith("."):
                self._session(name)
        self._tell_progress(self._total - self._done)
        return self._report

    def _names_in(self, session: str) -> int:
        try:
            directory = files.open_directory(session, self._store)
        except OSError:
            return 0
        try:
            return len(files.listing(directory))
        except OSError:
            return 0
        finally:
            os.close(directory)

    def _tell_progress(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def _half_session(self, name: str) -> None:
        """Report what a crash left of a session that was being created or deleted."""
        with _opened(name, self._store) as directory:
            if directory is None or _is_locked(directory):
                return
        sentence = "left over from creating or deleting a session"
        self._tell(Finding("", name, "left-over", sentence), self._store, name)

    def _session(self, slug: str) -> None:
        try:
            with _opened(slug, self._store) as directory:
                if directory is not None:
                    self._look_into(slug, directory)
                elif is_session_name(slug) and files.exists(slug, self._store):
                    sentence = "has a session's name but is not a directory"
                    self._tell(Finding(slug, slug, "wrong-type", sentence), self._store, slug)
        except OSError as error:
            sentence = f"cannot be read: {error.strerror}"
            self._report.findings.append(Finding(slug, "", "unreadable", sentence))

    def _look_into(self, slug: str, directory: int) -> None:
        names = files.listing(directory)
        if not is_session_name(slug) and not any(map(is_of_a_session, names)):
            return
        examined = examine(slug, directory, self._tell_progress)
        if self._repair and self._may_be_at_work(directory, examined.findings):
            examined = examine(slug, directory, lambda _: None)
        self._report.sessions += 1
        self._report.steps += examined.steps
        for finding in examined.findings:
            if finding.what in ("missing-meta", "broken-meta"):
                self._tell_meta(finding, directory, examined)
            else:
                self._tell(finding, directory, slug)

    def _may_be_at_work(self, directory: int, findings: Iterable[Finding]) -> bool:
        """Wait until all faults are older than the settling time; False if all were already."""
        youngest = 0.0
        for finding in findings:
            if finding.fault:
                try:
                    status = os.stat(finding.name, dir_fd=directory, follow_symlinks=False)
                except OSError:
                    status = os.fstat(directory)
                youngest = max(youngest, status.st_ctime)
        wait = min(youngest + self._settle_seconds - time.time(), self._settle_seconds)
        if wait > 0:
            time.sleep(wait)
        return wait > 0

    def _tell(self, finding: Finding, directory: int, session: str) -> None:
        """Report a finding; repair a fault by moving `finding.name` out of `directory`."""
        if self._repair and finding.fault and finding.what != "unreadable":
            try:
                moved = self._lost.take(directory, finding.name, session)
            except OSError as error:
                finding = _not_repaired(finding, error)
            else:
                finding = _repaired(finding, f"moved to {moved}")
        self._report.findings.append(finding)

    def _tell_meta(self, finding: Finding, directory: int, examined: Examined) -> None:
        """Report a broken or missing meta; repair it by rebuilding it."""
        if self._repair:
            try:
                finding = _repaired(finding, self._rebuild(finding, directory, examined))
            except (OSError, StoreError) as error:
                finding = _not_repaired(finding, error)
        self._report.findings.append(finding)

    def _rebuild(self, finding: Finding, directory: int, examined: Examined) -> str:
        old, mode, done = None, examined.mode, "rebuilt"
        if finding.what == "broken-meta":
            with suppress(StoreError):  # nothing is kept of one that is not a file or far too long
                old, status = meta.read(directory)
                mode = status.st_mode
            done += (
                f", the old one moved to {self._lost.take(directory, meta.NAME, finding.session)}"
            )
        times = examined.oldest_ns, examined.newest_ns
        rebuild_meta(directory, finding.session, old, examined.message_count, times, mode)
        return done


def _repaired(finding: Finding, how: str) -> Finding:
    return replace(finding, sentence=f"{finding.sentence}; {how}", repaired=True)


def _not_repaired(finding: Finding, error: OSError | StoreError) -> Finding:
    reason = error.strerror if isinstance(error, OSError) else error.sentence
    return replace(finding, sentence=f"{finding.sentence}; not repaired: {reason}")


@contextmanager
def _opened(name: str, store: int) -> Iterator[int | None]:
    """Open the directory `name` of the store; None if it is not a directory. Raises `OSError`."""
    try:
        directory = files.open_directory(name, store)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    try:
        yield directory
    finally:
        os.close(directory)


def _is_locked(directory: int) -> bool:
    with files.reopened(directory) as own:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
