"""Loads a session as the daemon would resume it: all in memory, or its history step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from storage.formats.kinds import Step
from storage.render.lines import nothing
from storage.session import meta
from storage.session.index import Index, scan
from storage.session.reader import Reader
from storage.session.replay import Boundary, find_boundary
from storage.session.steps import NUMBER_MAX


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as the daemon would resume it: its meta, its entries and its archive's name."""

    meta: dict[str, Any]
    history: list[Step]
    archive: str | None


def load(session_fd: int, last: int = NUMBER_MAX, time_ns: int | None = None) -> Snapshot | None:
    """Load a whole session into memory; None if it has no meta.

    `last` ignores steps with greater numbers, `time_ns` steps stored after that time (nanoseconds
    since 1970, G30). Raises `StoreError` for a broken meta, as the reference does (a mount shows the
    history even then), and `OSError`.
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
    """The archive after which a session's history begins, and its entries with their numbers.

    `last` and `time_ns` are as for `load`. Entries are read lazily. Raises `OSError` if the directory
    cannot be listed or a step cannot be read.
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
            if met is not None and met[0].kind.is_entry:
                yield number, met[0]
