"""Replay: from step files to the lines that a view shows.

The history begins after the last compaction, so it is looked for from the greatest number down, and
steps before it are never opened (G24). Each pass is bounded in steps and bytes, so that a caller can
run it in a thread and do something else in between (G23). Nothing here keeps state between passes.
"""

from __future__ import annotations

import errno
import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, Protocol

from storage.ahead import ahead
from storage.capabilities import is_near
from storage.formats.dialects import has_blocks
from storage.formats.kinds import Kind, NotAStep, Step, classify
from storage.render.lines import nothing
from storage.session import meta
from storage.session.index import Index, scan
from storage.session.steps import NUMBER_MAX, STEP_BYTES_MAX, LongStep, read_step, step_name

PASS_STEPS: Final = 2048
PASS_BYTES: Final = 4 << 20
TEXT_BYTES: Final = 128 << 10
LONG_BYTES: Final = 256 << 10
"""A longer step is long: nobody who keeps the interpreter from others reads it."""
LOOP_BYTES: Final = 64 << 10
"""So much of steps may be judged and shown on the loop at a time."""
LOOP_SECONDS: Final = 0.002
"""For so long likewise: what waits for the disk, or is slow to show, is for a thread."""
TOO_LONG: Final = f"it is longer than {STEP_BYTES_MAX >> 20} MiB"

Show = Callable[[Step], bytes | None]
"""The line that a view shows for a step, or None if it shows none."""
Met = tuple[Step, bytes | None]
"""A step and its line."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the history begins: the number of the last compaction (0: none) and its archive."""

    number: int
    archive: str | None
    blocks: bool | None = None
    """Whether the message of the archive is of content blocks; None where no entry tells."""


START: Final = Boundary(0, None)


@dataclass
class Text:
    """Consecutive lines of a view, from the steps `first` to `last` (both examined)."""

    first: int
    last: int
    shown: array[int]
    """The number of the step behind each line."""
    text: bytes

    def __post_init__(self) -> None:
        self.digest = hashlib.blake2b(self.text, digest_size=16)
        """Told here, where it is rendered: of a long text it takes its time."""


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


class LongSteps(Protocol):
    """Who reads long steps apart: `storage.documents.pool.Documents`."""

    def meet(self, session_fd: int, name: str, flags: int, show: Show) -> Met:
        """As `Documents.meet`."""


class Reader:
    """Reads steps of one session, leaving their access times alone where the process may (G4).

    A long step is read by `documents`, where there are any, and else here.
    """

    def __init__(self, session_fd: int, documents: LongSteps | None = None) -> None:
        self.fd = session_fd
        self._flags = os.O_NOATIME
        self._near: bool | None = None
        self._documents = documents
        self._most = STEP_BYTES_MAX if documents is None else LONG_BYTES
        self._known: Mapping[str, Step] = MappingProxyType({})
        """Steps by name that need no reading."""

    def ahead(self, names: Iterable[str]) -> Read:
        """What reads these names, in this order, for `meet`; some may be left out.

        On a far store many are read at a time, before they are asked for.
        """
        read = partial(self.read, most=self._most)
        if self._near is None:
            self._near = is_near(self.fd)
        if self._near:
            return read
        coming = ahead(read, names)

        def take(name: str) -> bytes:
            return next(outcome for expected, outcome in coming if expected == name).get()

        return take

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `read_step`."""
        try:
            return read_step(name, self.fd, self._flags, most)
        except PermissionError:
            if not self._flags:
                raise
            self._flags = 0
            return read_step(name, self.fd, most=most)

    def meet(self, read: Read, name: str, show: Show) -> Met:
        """The step `name`, read by `read` (see `ahead`), and what `show` makes of it.

        `show` is a function of a module, which a worker process can be told to call.

        A long step that documents have read has its value cut short, and no data. Raises `NotAStep`,
        `LongStep`, `StoreError` as `Documents.meet`, and `OSError` as `read_step`.
        """
        step = self._known.get(name)
        if step is None:
            try:
                step = classify(read(name))
            except LongStep:
                if self._documents is None:
                    raise
                return self._documents.meet(self.fd, name, self._flags, show)
        return step, show(step)

    def brief(self, known: Mapping[str, Step]) -> BriefReader:
        """A reader for one pass on the loop of a near store; it need not read what is `known`."""
        return BriefReader(self, known)

    def undocumented(self, known: Mapping[str, Step]) -> Reader:
        """A reader for passes in threads that may compute: of a long step `LongStep`."""
        reader = copy(self)
        reader._documents = None
        reader._known = known
        return reader


class Spent(Exception):  # noqa: N818 - it says what became of the reader
    """A pass on the loop came to its limit: a thread has to do it."""


class BriefReader(Reader):
    """Reads and judges at most `LOOP_BYTES` for at most `LOOP_SECONDS`, and then raises `Spent`."""

    def __init__(self, reader: Reader, known: Mapping[str, Step]) -> None:
        super().__init__(reader.fd)
        self._flags, self._near, self._known = reader._flags, True, known
        self._left = LOOP_BYTES
        self._end = monotonic() + LOOP_SECONDS
        self.judged: dict[str, Step] = {}
        """What it has read, by name."""

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `Reader.read`."""
        try:
            data = super().read(name, min(most, self._left))
        except LongStep:
            raise Spent from None
        self._left -= len(data)
        return data

    def meet(self, read: Read, name: str, show: Show) -> Met:
        """As `Reader.meet`."""
        if self._left <= 0 or monotonic() > self._end:
            raise Spent
        step = self._known.get(name)
        if step is None:
            step = self.judged[name] = classify(read(name))
        else:
            self._left -= len(step.data)
        return step, show(step)


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

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `Reader.read`. Raises `FileNotFoundError` for a step that was stored later."""
        if os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime_ns > self._time_ns:
            raise FileNotFoundError(errno.ENOENT, "stored later", name)
        return super().read(name, most)


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

    def met(self, reader: Reader, read: Read, names: Iterable[str]) -> list[Met] | None:
        """The steps of one number and their lines; None where a long step ends the pass.

        Raises `LongStep` where it is the first of the pass, and `OSError`.
        """
        try:
            all_met = [_meet(reader, read, name, self.found, self._show) for name in names]
        except LongStep:
            if self.found.reached is None:
                raise
            return None
        return [met for met in all_met if met is not None]

    def take(self, number: int, line: bytes | None) -> None:
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
) -> Pass:
    """Read steps upwards, until the pass is full.

    With `compactions` a compaction begins the history anew; without, it is shown like any step.
    Raises `OSError` where a step cannot be read, so that no view silently lacks one, and `LongStep`
    as `Reader.meet`.
    """
    gathering = _Gathering(show, backwards=False)
    read = reader.ahead(name for number in numbers for name in _names(number, odd))
    for number in numbers:
        if (met := gathering.met(reader, read, _names(number, odd))) is None:
            break
        for step, line in met:
            if compactions and step.kind.is_compaction:
                gathering.found.boundary = Boundary(number, step.archive)
                gathering.start_again()
            else:
                gathering.take(number, line)
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
        names = reversed(_names(number, odd))
        if (met := gathering.met(reader, read, names)) is None:
            break
        for step, line in met:
            if step.kind.is_compaction:
                gathering.found.boundary = Boundary(number, step.archive)
                break
            gathering.take(number, line)
        if gathering.found.boundary is not None:
            break
        gathering.examined(number)
        if gathering.bytes >= PASS_BYTES:
            break
    return gathering.finish()


def _names(number: int, odd: Mapping[int, Sequence[str]]) -> Sequence[str]:
    return odd.get(number) or (step_name(number),)


def _read(reader: Reader, read: Read, name: str, found: Pass) -> Step | None:
    met = _meet(reader, read, name, found, nothing)
    return met[0] if met is not None else None


def _meet(reader: Reader, read: Read, name: str, found: Pass, show: Show) -> Met | None:
    try:
        return reader.meet(read, name, show)
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
        found = backwards(reader, numbers, index.odd, nothing)
        if found.boundary is not None:
            return found.boundary
        end = numbers[0]
    return START


def with_form(reader: Reader, index: Index, boundary: Boundary) -> Boundary:
    """The boundary with the form of the archive's message (G2).

    It is that of the last entry before the compaction, without one that of the first after it.
    """
    if boundary.archive is None:
        return boundary
    message = _last_message(reader, index, boundary.number)
    if message is None:
        message = _first_message(reader, index, boundary.number)
    return boundary if message is None else replace(boundary, blocks=has_blocks(message))


def _last_message(reader: Reader, index: Index, end: int) -> Any:
    while numbers := index.before(end, PASS_STEPS):
        names = (name for number in reversed(numbers) for name in reversed(index.names(number)))
        if (message := _first_entry(reader, names)) is not None:
            return message
        end = numbers[0]
    return None


def _first_message(reader: Reader, index: Index, after: int) -> Any:
    numbers = index.between(after + 1, index.greatest, len(index.numbers))
    return _first_entry(reader, (name for number in numbers for name in index.names(number)))


def _first_entry(reader: Reader, names: Iterable[str]) -> Any:
    """The message of the first entry among these steps, None if there is none."""
    for name in names:
        try:
            step = _read(reader, reader.ahead([name]), name, Pass())
        except LongStep:
            continue  # any other entry tells as well
        if step is not None and step.kind is Kind.ENTRY:
            return step.value["message"]
    return None


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
            step = _read(reader, reader.ahead([name]), name, Pass())
            if step is not None and step.kind is Kind.ENTRY:
                yield number, step
