"""Rules out, by their bytes, steps in which nothing can match.

A search spends most of its time here. The modules that parse steps are loaded only once one can match.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from storage.posix import is_regular, open_directory, subdirectories
from storage.search.query import Query
from storage.session.steps import NUMBER_MAX, READ_FLAGS, step_number

if TYPE_CHECKING:
    from storage.search.texts import Hit

META: Final = "meta"
PASSED_OVER: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES})
"""Errors on opening what is not a session, was deleted meanwhile, or is not readable for this user."""
LOOK_BYTES: Final = 16 << 10
"""A longer step is not ruled out here, but when it is read."""
LOOK_STEPS: Final = 32
"""Steps examined together."""


def sessions(store: int) -> list[str]:
    """The names of directories in an open store that may be sessions, sorted. Raises `OSError`."""
    return sorted(subdirectories(store))


def search_sessions(
    store: int, slugs: Iterable[str], query: Query, unread: list[OSError]
) -> Iterator[Hit]:
    """Every matching line in these sessions of an open store.

    Directories that are not sessions, or that this user may not read, are skipped. Other errors, also on
    a single step, do not end the search but are appended to `unread`, with the path in the store.
    """
    for slug in slugs:
        try:
            session = open_directory(slug, store)
        except OSError as error:
            if error.errno not in PASSED_OVER:
                unread.append(error)
            continue
        try:
            hits = list(search(session, slug, query, unread))
            if hits and is_regular(META, session):
                yield from hits
        except OSError as error:
            unread.append(OSError(error.errno, error.strerror, slug))
        finally:
            os.close(session)


def search(session_fd: int, session: str, query: Query, unread: list[OSError]) -> Iterator[Hit]:
    """Every matching line of a session, in the order of the steps; files that are not steps are skipped.

    The caller must not list through `session_fd` at the same time. Errors on a step are appended to
    `unread`. Raises `OSError` if the session cannot be listed.
    """
    promising = sorted(_promising(session_fd, query))
    if not promising:
        return
    from storage.search.texts import hits

    yield from hits(session_fd, session, promising, query, unread)


def _promising(session_fd: int, query: Query) -> Iterator[tuple[int, str]]:
    """Number and name of each step that was not ruled out, in the order of the listing."""
    with os.scandir(session_fd) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.startswith("step-") and entry.is_file(follow_symlinks=False)
        ]
    flags = _flags(session_fd)
    for at in range(0, len(names), LOOK_STEPS):
        some = names[at : at + LOOK_STEPS]
        for name in _looked_at(session_fd, some, flags, query) if query.literal else some:
            number = step_number(name)
            if number is not None and number <= NUMBER_MAX:
                yield number, name


def _flags(session_fd: int) -> int:
    """Flags for opening steps: their access times are kept if the process may do so (G4)."""
    user = os.geteuid()
    may_keep = user == 0 or user == os.fstat(session_fd).st_uid
    return READ_FLAGS | os.O_NOATIME if may_keep else READ_FLAGS


def _looked_at(session_fd: int, names: list[str], flags: int, query: Query) -> Iterable[str]:
    """Those of a few steps that can match: mostly none, and one test of all their bytes shows that.

    A search spends most of its time here, so this makes as few calls as possible. If there is any error,
    all of the steps count as able to match: reading them will show what is wrong.
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(name, flags, dir_fd=session_fd) for name in names)
        looks = [os.read(descriptor, LOOK_BYTES) for descriptor in opened]
    except OSError:
        return names
    finally:
        _close_all(opened)
    if max(map(len, looks)) < LOOK_BYTES and not query.may_match(b"\n".join(looks)):
        return ()
    return [
        name
        for name, look in zip(names, looks, strict=True)
        if len(look) == LOOK_BYTES or query.may_match(look)
    ]


def _close_all(descriptors: list[int]) -> None:
    """Close all of them, by one call if no other descriptor lies between them."""
    if descriptors and max(descriptors) - min(descriptors) + 1 == len(descriptors):
        os.closerange(min(descriptors), max(descriptors) + 1)
        return
    for descriptor in descriptors:
        os.close(descriptor)
