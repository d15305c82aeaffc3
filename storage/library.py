"""Sessions without a mount: what programs do with a store from Python.

Every function takes an open store and, but for the first three, the slug of a session. What they
write has the guarantees of the mount's control files: a step appears complete and under a number of
its own (G15), a line that the daemon would not read is refused (G6), and with `sync`, the default,
everything is on disk on return (G17). Nothing here counts messages: `update_meta` does what is asked.

    >>> import storage
    >>> with storage.open_store(path) as store:
    ...     slug = storage.create_session(store, "Crab", "tg:42")
    ...     numbers = storage.append_entries(store, slug, [
    ...         {"role": "user", "content": "list the files"},
    ...         {"message": {"role": "assistant", "content": "a.txt"}},
    ...     ])
    ...     found = storage.load_session(store, slug)
    ...     said = [step.value["message"]["content"] for step in found.history]
    ...     compacted = storage.append_compaction(store, slug, "monday")
    ...     after = storage.load_session(store, slug)
    ...     latest = storage.find_latest_session(store, "Crab", "tg:42")
    >>> slug, numbers, said
    ('crab_tg-42_1', [1, 2], ['list the files', 'a.txt'])
    >>> compacted, after.archive, after.history, latest
    (3, 'monday', [], 'crab_tg-42_1')
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from storage.errors import StoreError, from_os_error, printable
from storage.filesystems import is_local
from storage.formats.accept import archive_name, compaction, stored_form
from storage.formats.kinds import Step
from storage.session import meta, replay
from storage.session.index import scan
from storage.session.replay import Snapshot
from storage.session.steps import Claimer, Ownership, sync_steps
from storage.store import Store, now

SYNCED_STEPS: Final = 16
"""More new steps than these are synced with all of their file system, which costs less."""

Document = Mapping[str, Any]
"""A JSON object, as `json.loads` gives it."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a list: its slug and its meta, absent keys filled in."""

    slug: str
    meta: dict[str, Any]


@contextmanager
def open_store(path: str | os.PathLike[str]) -> Iterator[Store]:
    """The store at `path`, closed at the end of the block.

    Raises StoreError: ENOENT, ENOTDIR, EACCES, …
    """
    store = Store(os.fspath(path))
    try:
        yield store
    finally:
        store.close()


def create_session(store: Store, agent: str, created_by: str, *, sync: bool = True) -> str:
    """Make the next session of an agent and a sender; its slug (G11). Raises StoreError."""
    return store.create(agent, created_by, sync=sync)


def find_latest_session(store: Store, agent: str, created_by: str) -> str | None:
    """The slug of the latest session of an agent and a sender, None if there is none.

    Raises StoreError if the store cannot be listed.
    """
    return store.latest(agent, created_by)


def list_sessions(store: Store) -> list[SessionSummary]:
    """Every session whose meta is sound, by slug. Raises StoreError if the store cannot be listed."""
    summaries = []
    for slug in sorted(store.names()):
        with suppress(StoreError, OSError), _opened(store, slug) as directory:
            about = meta.parsed(meta.read(directory)[0])
            summaries.append(SessionSummary(slug, {**meta.ABSENT, **about}))
    return summaries


def load_session(store: Store, slug: str) -> Snapshot | None:
    """The session as the daemon would resume it, None if there is no such session.

    Its `history` is the entries after the last compaction, whose archive is `archive`. Raises
    StoreError for a broken meta, as the daemon does, and where a file cannot be read.
    """
    try:
        with _opened(store, slug) as directory:
            return replay.load(directory)
    except StoreError as error:
        if error.code == "no-session":
            return None
        raise


def append_entries(
    store: Store, slug: str, entries: Iterable[Document], *, sync: bool = True
) -> list[int]:
    """Append entries `{"message": …}` or bare messages `{"role": …}`; their step numbers (G5).

    All are judged before the first is stored. Raises StoreError: EINVAL for one that the daemon
    would not read (nothing is stored then), ENOENT; ENOSPC, …, and those before it are stored.
    """
    return _append(store, slug, map(_stored_form, entries), sync)


def append_events(
    store: Store, slug: str, events: Iterable[Document], *, sync: bool = True
) -> list[int]:
    """Append events `{"event": …, "ts": …}`; their step numbers. As `append_entries` otherwise."""
    return _append(store, slug, map(_stored_form, events), sync)


def append_compaction(store: Store, slug: str, archive: str, *, sync: bool = True) -> int:
    """End the history here: what came before is in the archive of that name (G8). The step's number.

    Raises StoreError: EINVAL for a name that is empty, over 255 bytes or holds control characters.
    """
    step = compaction(archive_name(os.fsencode(archive)), now())
    return _append(store, slug, [step], sync)[0]


def update_meta(store: Store, slug: str, patch: Document, *, sync: bool = True) -> dict[str, Any]:
    """Apply a merge patch (RFC 7396) to the meta; the meta as it is then (G10).

    A change that the daemon or a mount makes at the same moment is kept. Raises StoreError: EINVAL
    for a wrong type or a required key taken away (nothing changes then), ENOENT, EBUSY, …
    """
    asked = orjson.loads(orjson.dumps(patch))
    with _opened(store, slug) as directory, _doing(f"change the meta of {printable(slug)}"):
        return meta.update(directory, lambda about: meta.merged(about, asked), sync=sync)


def delete_session(store: Store, slug: str, *, sync: bool = True) -> bool:
    """Delete a session with all that is in it; False if there is none. Raises StoreError."""
    try:
        store.delete(slug, sync=sync)
    except StoreError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _stored_form(document: Document) -> Step:
    return stored_form(orjson.dumps(document))


def _append(store: Store, slug: str, steps: Iterable[Step | bytes], sync: bool) -> list[int]:
    judged = [step if isinstance(step, bytes) else step.data for step in steps]
    numbers: list[int] = []
    with _opened(store, slug) as directory, _doing(f"append to {printable(slug)}"):
        claimer = Claimer(directory, unnamed=is_local(directory))
        ownership = Ownership.of_session(directory)
        greatest = scan(directory).greatest
        each = sync and len(judged) <= SYNCED_STEPS
        for data in judged:
            greatest = claimer.claim(greatest + 1, data, ownership, sync=each).number
            numbers.append(greatest)
        if sync:
            sync_steps(directory, (), whole=not each)
    return numbers


@contextmanager
def _opened(store: Store, slug: str) -> Iterator[int]:
    directory = store.open_session(slug)
    try:
        yield directory
    finally:
        os.close(directory)


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, what) from error
