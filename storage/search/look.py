"""Looking at the bytes of steps: in most cases they tell that nothing in them matches.

Most of a search is this, so what reads steps is loaded only where one can match.
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
"""What opening a session answers that was deleted meanwhile, or is closed to this user."""
LOOK_BYTES: Final = 16 << 10
"""What is longer is looked at when it is read."""
LOOK_STEPS: Final = 32
"""So many are looked at together."""


def sessions(store: int) -> list[str]:
    """The directories below an open store that may be sessions, in their order. Raises `OSError`."""
    return sorted(subdirectories(store))


def search_sessions(
    store: int, slugs: Iterable[str], query: Query, unread: list[OSError]
) -> Iterator[Hit]:
    """Every line that matches in these sessions of an open store; what is no session has none.

    Nor has one that this user may not read. What cannot be read for other reasons, and a single step
    that cannot be read, does not end the search: `unread` is given the error, with a path in the store.
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
    """Every line that matches, in the order of the steps; what is no step is passed over.

    Nobody else lists through `session_fd` meanwhile. Of a step that cannot be read `unread` is given the
    error. Raises `OSError` where the session cannot be listed.
    """
    promising = sorted(_promising(session_fd, query))
    if not promising:
        return
    from storage.search.texts import hits

    yield from hits(session_fd, session, promising, query, unread)


def _promising(session_fd: int, query: Query) -> Iterator[tuple[int, str]]:
    """Number and name of each step that can match by a quick look, in the order of the listing."""
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
    """How steps are opened; what is only looked at keeps its time of access where that may be (G4)."""
    user = os.geteuid()
    may_keep = user == 0 or user == os.fstat(session_fd).st_uid
    return READ_FLAGS | os.O_NOATIME if may_keep else READ_FLAGS


def _looked_at(session_fd: int, names: list[str], flags: int, query: Query) -> Iterable[str]:
    """Which of a few steps can match: mostly none, as one look at the bytes of all of them tells.

    Most of a search is this, so it makes no more calls than it must. Steps that are not as most are
    can match: whoever reads them then will see.
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
    """Close them, by one call where no other descriptor lies between them."""
    if descriptors and max(descriptors) - min(descriptors) + 1 == len(descriptors):
        os.closerange(min(descriptors), max(descriptors) + 1)
        return
    for descriptor in descriptors:
        os.close(descriptor)
