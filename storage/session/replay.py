"""Replay: from step files to the lines that a view shows.

The history begins after the last compaction, so it is looked for from the greatest number down, and
steps before it are never opened (G24). Each pass is bounded in steps and bytes, so that a caller can
run it in a thread and do something else in between (G23). Nothing here keeps state between passes.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from storage.ahead import ahead
from storage.capabilities import is_near
from storage.formats.kinds import Kind, NotAStep, Step, classify
from storage.session import meta
from storage.session.index import Index, scan
from storage.session.steps import NUMBER_MAX, STEP_BYTES_MAX, read_step, step_name

PASS_STEPS: Final = 2048
PASS_BYTES: Final = 4 << 20
TEXT_BYTES: Final = 128 << 10
TOO_LONG: Final = f"it is longer than {STEP_BYTES_MAX >> 20} MiB"

Show = Callable[[Step], bytes | None]
"""The line that a view shows for a step, or None if it shows none."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the history begins: the number of the last compaction (0: none) and its archive."""

    number: int
    archive: str | None


START: Final = Boundary(0, None)


@dataclass(slots=True)
class Text:
    """Consecutive lines of a view, from the steps `first` to `last` (both examined)."""

    first: int
    last: int
    shown: array[int]
    """The number of the step behind each line."""
    text: bytes


@dataclass(slots=True)
class Pass:
    """What one bounded pass over steps found."""

    texts: list[Text] = field(default_factory=list)
    """In step order."""
    boundary: Boundary | None = None
    """The compaction met; forwards it is the last of several, and `texts` is what follows it."""
    reached: int | None = None
    """The number of the last step that was examined, in the direction of the pass."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Names that are no steps, each with a sentence."""


Read = Callable[[str], bytes]


class Reader:
    """Reads steps of one session, leaving their access times alone where the process may (G4)."""

    def __init__(self, session_fd: int) -> None:
        self.fd = session_fd
        self._flags = os.O_NOATIME
        self._near: bool | None = None

    def ahead(self, names: Iterable[str]) -> Read:
        """What reads these names, in this order, as `read` does; some may be left out.

        On a far store many are read at a time, before they are asked for.
        """
        if self._near is None:
            self._near = is_near(self.fd)
        if self._near:
            return self.read
        coming = ahead(self.read, names)

        def take(name: str) -> bytes:
            return next(outcome for expected, outcome in coming if expected == name).get()

        return take

    def read(self, name: str) -> bytes:
        """As `read_step`."""
        try:
            return read_step(name, self.fd, self._flags)
        except PermissionError:
            if not self._flags:
                raise
            self._flags = 0
            return read_step(name, self.fd)


class ReaderAsOf(Reader):
    """Reads the steps that were stored by a time; for it, later ones are not there (G30).

    A step's time is its file's mtime, the only time that every step has: the daemon, mounts and forks
    leave it at the moment of storing, and copies made by `cp -p`, `tar` and `rsync -a` keep it. The
    times in events and compactions are their writers' words, and entries have none.
    """

    def __init__(self, session_fd: int, time_ns: int) -> None:
        """`time_ns` is in nanoseconds since 1970."""
        super().__init__(session_fd)
        self._time_ns = time_ns

    def read(self, name: str) -> bytes:
        """As `Reader.read`. Raises `FileNotFoundError` for a step that was stored later."""
        if os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime_ns > self._time_ns:
            raise FileNotFoundError(errno.ENOENT, "stored later", name)
        return super().read(name)


NOT_REGULAR: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
NO_STEP: Final = NOT_REGULAR | {errno.EFBIG}
"""Errors of reading a file that is no step whatever it holds."""


class _Gathering:
    """Collects lines into texts of about `TEXT_BYTES`."""

    def __init__(self, show: Show, backwards: bool) -> None:
        self.found = Pass()
        self.bytes = 0
        self._show = show
        self._backwards = backwards
        self._lines: list[bytes] = []
        self._shown: array[int] = array("Q")
        self._edge: int | None = None
        self._held = 0

    def take(self, number: int, step: Step) -> None:
        line = self._show(step)
        if line is None:
            return
        self._lines.append(line)
        self._shown.append(number)
        self._held += len(line)
        self.bytes += len(line)

    def examined(self, number: int) -> None:
        """Every name of `number` was looked at: a text may end here."""
        if self._edge is None:
            self._edge = number
        self.found.reached = number
        if self._held >= TEXT_BYTES:
            self.close_text()

    def close_text(self) -> None:
        if self._edge is None or self.found.reached is None:
            return
        if self._lines:
            if self._backwards:
                self._lines.reverse()
                self._shown.reverse()
            first, last = sorted((self._edge, self.found.reached))
            self.found.texts.append(Text(first, last, self._shown, b"".join(self._lines)))
        self._lines, self._shown, self._edge, self._held = [], array("Q"), None, 0

    def start_again(self) -> None:
        """Forget what was gathered: a compaction was met going forwards."""
        self._lines, self._shown, self._held = [], array("Q"), 0
        self.found.texts.clear()

    def finish(self) -> Pass:
        self.close_text()
        if self._backwards:
            self.found.texts.reverse()
        return self.found


def forwards(
    reader: Reader,
    numbers: Sequence[int],
    odd: dict[int, list[str]],
    show: Show,
    compactions: bool,
    known: Mapping[int, Step] = MappingProxyType({}),
) -> Pass:
    """Read steps upwards, until the pass is full; those that are `known` need no reading.

    With `compactions` a compaction begins the history anew; without, it is shown like any step.
    Raises `OSError` where a step cannot be read, so that no view silently lacks one.
    """
    gathering = _Gathering(show, backwards=False)
    read = reader.ahead(name for number in numbers for name in _names(number, odd))
    for number in numbers:
        for name in _names(number, odd):
            step = known.get(number) or _read(read, name, gathering.found)
            if step is None:
                continue
            if compactions and step.kind.is_compaction:
                gathering.found.boundary = Boundary(number, step.archive)
                gathering.start_again()
            else:
                gathering.take(number, step)
        gathering.examined(number)
        if gathering.bytes >= PASS_BYTES:
            break
    return gathering.finish()


def backwards(
    reader: Reader, numbers: Sequence[int], odd: dict[int, list[str]], show: Show
) -> Pass:
    """Read steps downwards, until a compaction is found or the pass is full."""
    gathering = _Gathering(show, backwards=True)
    read = reader.ahead(n for number in reversed(numbers) for n in reversed(_names(number, odd)))
    for number in reversed(numbers):
        for name in reversed(_names(number, odd)):
            step = _read(read, name, gathering.found)
            if step is None:
                continue
            if step.kind.is_compaction:
                gathering.found.boundary = Boundary(number, step.archive)
                break
            gathering.take(number, step)
        if gathering.found.boundary is not None:
            break
        gathering.examined(number)
        if gathering.bytes >= PASS_BYTES:
            break
    return gathering.finish()


def _names(number: int, odd: Mapping[int, Sequence[str]]) -> Sequence[str]:
    return odd.get(number) or (step_name(number),)


def _read(read: Read, name: str, found: Pass) -> Step | None:
    try:
        return classify(read(name))
    except NotAStep as error:
        found.skipped.append((name, error.sentence))
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EFBIG:
            found.skipped.append((name, TOO_LONG))
        elif error.errno in NOT_REGULAR:
            found.skipped.append((name, "it is no regular file"))
        else:
            raise
    return None


def find_boundary(reader: Reader, index: Index, below: int | None = None) -> Boundary:
    """The last compaction of a session (one with a number less than `below`, if given)."""
    end = index.greatest + 1 if below is None else below
    while numbers := index.before(end, PASS_STEPS):
        found = backwards(reader, numbers, index.odd, lambda _step: None)
        if found.boundary is not None:
            return found.boundary
        end = numbers[0]
    return START


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as the daemon would resume it."""

    meta: dict[str, Any]
    history: list[Step]
    archive: str | None


def load(session_fd: int, last: int = NUMBER_MAX, time_ns: int | None = None) -> Snapshot | None:
    """A whole session in memory: its meta, its history and its archive; None without a meta.

    With `last` as if the steps up to that number were all there is, with `time_ns` as if those stored
    by that time were (nanoseconds since 1970, G30). Raises `StoreError` for a broken meta, as the
    reference does; a mount shows the history then too.
    """
    try:
        about = meta.read(session_fd)[0]
    except FileNotFoundError:
        return None
    archive, entries = history(session_fd, last, time_ns)
    return Snapshot({**meta.ABSENT, **meta.parsed(about)}, [step for _, step in entries], archive)


def history(
    session_fd: int, last: int = NUMBER_MAX, time_ns: int | None = None
) -> tuple[str | None, Iterator[tuple[int, Step]]]:
    """The archive that a session's history begins after, and its entries with their numbers.

    `last` and `time_ns` are as for `load`. The entries are read as they are asked for. Raises
    `OSError` as the listing and the reading do.
    """
    reader = Reader(session_fd) if time_ns is None else ReaderAsOf(session_fd, time_ns)
    index = scan(session_fd)
    boundary = find_boundary(reader, index, last + 1)
    return boundary.archive, _entries(reader, index, boundary, last)


def _entries(
    reader: Reader, index: Index, boundary: Boundary, last: int
) -> Iterator[tuple[int, Step]]:
    for number in index.between(boundary.number + 1, last, len(index.numbers)):
        for name in index.names(number):
            step = _read(reader.read, name, Pass())
            if step is not None and step.kind is Kind.ENTRY:
                yield number, step
