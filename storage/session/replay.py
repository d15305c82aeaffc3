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
IRREGULAR: Final = "it is no regular file"
NOT_REGULAR: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
NO_STEP: Final = NOT_REGULAR | {errno.EFBIG}
"""Errors of reading a file that is no step whatever it holds."""

Show = Callable[[Step, int, str], bytes | None]
"""The line that a view shows for a step, or None if it shows none; the descriptor of the session and
the name of the step's file tell where it is."""
Met = tuple[Step, bytes | None]
"""A step and its line."""
Skipped = list[tuple[str, str]]
"""Names that are no steps, each with a sentence."""


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
    skipped: Skipped = field(default_factory=list)


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
        self._time_ns: int | None = None
        """Steps that were stored later are not there."""

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

    def as_of(self, time_ns: int) -> Reader:
        """A reader for which steps that were stored after a time are not there (G30).

        `time_ns` is in nanoseconds since 1970. A step's time is its file's mtime, the only time that
        every step has: the daemon, mounts and forks leave it at the moment of storing, and copies made
        by `cp -p`, `tar` and `rsync -a` keep it. The times in events and compactions are their writers'
        words, and entries have none.
        """
        reader = copy(self)
        reader._time_ns = time_ns
        return reader

    def read(self, name: str, most: int = STEP_BYTES_MAX) -> bytes:
        """As `read_step`. Raises `FileNotFoundError` too for a step that was stored too late."""
        if self._time_ns is not None:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            if found.st_mtime_ns > self._time_ns:
                raise FileNotFoundError(errno.ENOENT, "stored later", name)
        try:
            return read_step(name, self.fd, self._flags, most)
        except PermissionError:
            if not self._flags:
                raise
            self._flags = 0
            return read_step(name, self.fd, most=most)

    def meet(self, read: Read, name: str, show: Show, skipped: Skipped) -> Met | None:
        """The step `name`, read by `read` (see `ahead`), and what `show` makes of it.

        None for one that has gone, or that is no step: that is told to `skipped`. `show` is a function
        of a module, which a worker process can be told to call. A long step that documents have read
        has its value cut short, and no data. Raises `LongStep`, `StoreError` as `Documents.meet`, and
        `OSError` as `read_step`.
        """
        try:
            return self._met(read, name, show)
        except NotAStep as error:
            skipped.append((name, error.sentence))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in NO_STEP:
                raise
            skipped.append((name, TOO_LONG if error.errno == errno.EFBIG else IRREGULAR))
        return None

    def _met(self, read: Read, name: str, show: Show) -> Met:
        step = self._known.get(name)
        if step is None:
            try:
                step = classify(read(name))
            except LongStep:
                if self._documents is None:
                    raise
                return self._documents.meet(self.fd, name, self._flags, show)
        return step, show(step, self.fd, name)

    def brief(self, known: Mapping[str, Step]) -> BriefReader:
        """A reader for one pass on the loop of a near store; it need not read what is `known`."""
        return BriefReader(self, known if self._time_ns is None else {})

    def undocumented(self, known: Mapping[str, Step]) -> Reader:
        """A reader for passes in threads that may compute: of a long step `LongStep`."""
        reader = copy(self)
        reader._documents = None
        reader._known = known if self._time_ns is None else {}
        return reader


class Spent(Exception):  # noqa: N818 - it says what became of the reader
    """A pass on the loop came to its limit: a thread has to do it."""


class BriefReader(Reader):
    """Reads and judges at most `LOOP_BYTES` for at most `LOOP_SECONDS`, and then raises `Spent`."""

    def __init__(self, reader: Reader, known: Mapping[str, Step]) -> None:
        super().__init__(reader.fd)
        self._flags, self._near, self._known = reader._flags, True, known
        self._time_ns = reader._time_ns
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

    def _met(self, read: Read, name: str, show: Show) -> Met:
        if self._left <= 0 or monotonic() > self._end:
            raise Spent
        step = self._known.get(name)
        if step is None:
            step = self.judged[name] = classify(read(name))
        else:
            self._left -= len(step.data)
        return step, show(step, self.fd, name)


class _Gathering:
    """One pass: collects the lines of the steps it examines into texts of about `TEXT_BYTES`."""

    def __init__(
        self,
        reader: Reader,
        show: Show,
        odd: Mapping[int, Sequence[str]],
        *,
        backwards: bool,
    ) -> None:
        self.found = Pass()
        self.boundaries = True
        """Whether a compaction is one, and not a step like others."""
        self._reader = reader
        self._show = show
        self._odd = odd
        self._backwards = backwards
        self._read: Read = reader.read
        self._lines: list[bytes] = []
        self._shown: array[int] = array("Q")
        self._edge: int | None = None
        self._held = 0
        self._bytes = 0

    def run(self, numbers: Sequence[int]) -> Pass:
        """Examine the steps in this order, until the pass is full."""
        self._read = self._reader.ahead(name for number in numbers for name in self._names(number))
        for number in numbers:
            if not self._examine(number):
                break
        self._close_text()
        if self._backwards:
            self.found.texts.reverse()
        return self.found

    def _names(self, number: int) -> Sequence[str]:
        names = self._odd.get(number)
        if names is None:
            return (step_name(number),)
        return names[::-1] if self._backwards else names

    def _examine(self, number: int) -> bool:
        """Look at every name of `number`; whether the pass goes on."""
        try:
            met = [self._meet(name) for name in self._names(number)]
        except LongStep:
            if self.found.reached is None:
                raise
            return False
        for each in met:
            if each is None:
                continue
            step, line = each
            if step.kind.is_compaction and self.boundaries:
                self.found.boundary = Boundary(number, step.archive)
                if self._backwards:
                    return False
                self._start_again()
            elif line is not None:
                self._lines.append(line)
                self._shown.append(number)
                self._held += len(line)
        self.found.reached = number
        if self._edge is None:
            self._edge = number
        if self._held >= TEXT_BYTES:
            self._close_text()
        return self._held + self._bytes < PASS_BYTES

    def _meet(self, name: str) -> Met | None:
        return self._reader.meet(self._read, name, self._show, self.found.skipped)

    def _close_text(self) -> None:
        """A text may end here: every name of the last number was looked at."""
        if self._edge is None or self.found.reached is None:
            return
        if self._lines:
            if self._backwards:
                self._lines.reverse()
                self._shown.reverse()
            first, last = sorted((self._edge, self.found.reached))
            self.found.texts.append(Text(first, last, self._shown, b"".join(self._lines)))
        self._bytes += self._held
        self._lines, self._shown, self._edge, self._held = [], array("Q"), None, 0

    def _start_again(self) -> None:
        """Forget what was gathered: a compaction was met going forwards."""
        self._bytes += self._held
        self._lines, self._shown, self._held = [], array("Q"), 0
        self.found.texts.clear()


def forwards(
    reader: Reader,
    numbers: Sequence[int],
    odd: Mapping[int, Sequence[str]],
    show: Show,
    compactions: bool,
) -> Pass:
    """Read steps upwards, until the pass is full.

    With `compactions` a compaction begins the history anew; without, it is shown like any step.
    Raises `OSError` where a step cannot be read, so that no view silently lacks one, and `LongStep`
    as `Reader.meet`.
    """
    gathering = _Gathering(reader, show, odd, backwards=False)
    gathering.boundaries = compactions
    return gathering.run(numbers)


def backwards(
    reader: Reader, numbers: Sequence[int], odd: Mapping[int, Sequence[str]], show: Show
) -> Pass:
    """Read steps downwards, until a compaction is found or the pass is full."""
    return _Gathering(reader, show, odd, backwards=True).run(numbers[::-1])


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
            met = reader.meet(reader.ahead([name]), name, nothing, [])
        except LongStep:
            continue  # any other entry tells as well
        if met is not None and met[0].kind is Kind.ENTRY:
            return met[0].value["message"]
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
    reader = Reader(session_fd) if time_ns is None else Reader(session_fd).as_of(time_ns)
    index = scan(session_fd)
    boundary = find_boundary(reader, index, last + 1)
    return boundary.archive, _entries(reader, index, boundary, last)


def _entries(
    reader: Reader, index: Index, boundary: Boundary, last: int
) -> Iterator[tuple[int, Step]]:
    for number in index.between(boundary.number + 1, last, len(index.numbers)):
        for name in index.names(number):
            met = reader.meet(reader.ahead([name]), name, nothing, [])
            if met is not None and met[0].kind is Kind.ENTRY:
                yield number, met[0]
