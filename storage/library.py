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
from typing import Any

import orjson

from storage.append import claim_all
from storage.archives import Memory
from storage.creation import create_next
from storage.deletion import delete
from storage.errors import StoreError, doing, printable
from storage.fork import finish, fork
from storage.formats.accept import archive_name, compaction, stored_form
from storage.formats.kinds import Step
from storage.session import meta, meta_update, snapshot
from storage.session.epochs import scan_epochs
from storage.session.index import scan
from storage.session.reader import Reader
from storage.session.snapshot import Snapshot
from storage.session.steps import NUMBER_MAX, Ownership
from storage.store import Store
from storage.times import nanoseconds, now

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
    return create_next(store, agent, created_by, sync=sync)


def find_latest_session(store: Store, agent: str, created_by: str) -> str | None:
    """The slug of the latest session of an agent and a sender, None if there is none.

    Raises StoreError if the store cannot be listed.
    """
    return store.latest(agent, created_by)


def list_sessions(store: Store) -> list[SessionSummary]:
    """Every session whose meta is sound, by slug. Raises StoreError if the store cannot be listed."""
    summaries = []
    for slug in sorted(store.names()):
        with suppress(StoreError, OSError), store.opened(slug) as directory:
            about = meta.parsed(meta.read(directory)[0])
            summaries.append(SessionSummary(slug, {**meta.ABSENT, **about}))
    return summaries


def load_session(store: Store, slug: str, *, at: int | str | None = None) -> Snapshot | None:
    """The session as the daemon would resume it, None if there is no such session.

    Its `history` is the entries after the last compaction, whose archive is `archive`. With `at`, a
    step's number or a time (RFC 3339), as if the steps up to that number, or those stored by that
    time, were all there is (G30). Raises StoreError for a broken meta, as the daemon does, where a
    file cannot be read, and EINVAL for what is no time.
    """
    last, time_ns = (NUMBER_MAX, _time(at)) if isinstance(at, str) else (at, None)
    try:
        with store.opened(slug) as directory, doing(f"load {printable(slug)}"):
            return snapshot.load(directory, NUMBER_MAX if last is None else last, time_ns)
    except StoreError as error:
        if error.code == "no-session":
            return None
        raise


def count_epochs(store: Store, slug: str) -> int:
    """How many histories the session has had: one more than it has compactions (G29).

    Raises StoreError: ENOENT; where a file cannot be read.
    """
    with store.opened(slug) as directory, doing(f"read {printable(slug)}"):
        return len(scan_epochs(Reader(directory), scan(directory)))


def load_epoch(store: Store, slug: str, epoch: int) -> Snapshot | None:
    """The session as the daemon would have resumed it just before a compaction, the `epoch`-th (G29).

    They are counted from 1, and the last epoch is the present history. None if there is no such
    session or epoch. Raises StoreError as `load_session` does.
    """
    try:
        with store.opened(slug) as directory, doing(f"load {printable(slug)}"):
            last = scan_epochs(Reader(directory), scan(directory)).last_step(epoch)
    except LookupError:
        return None
    return load_session(store, slug, at=last)


def fork_session(
    store: Store,
    slug: str,
    *,
    at: int | None = None,
    agent: str | None = None,
    created_by: str | None = None,
    sync: bool = True,
) -> str:
    """Make a session with copies of the steps of `slug`, up to the number `at` if given; its slug.

    It loads as `load_session` does at that step (G30), and is its origin's agent's and sender's if no
    others are given. It is there completely or not at all. Raises StoreError: ENOENT, ENOSPC, …
    """
    return finish(fork(store, slug, at=at, agent=agent, created_by=created_by, sync=sync))


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


def append_compaction(
    store: Store,
    slug: str,
    archive: str,
    summary: str | None = None,
    *,
    memory: str | os.PathLike[str] | None = None,
    sync: bool = True,
) -> int:
    """End the history here: what came before is in the archive of that name (G8). The step's number.

    A `summary` is stored first as the archive's text, in the exported tree `memory` (G31); by default
    that is `memory` beside the store, unless the daemon's `memory.db` is there. Raises StoreError:
    EINVAL for a name that is empty, over 255 bytes or holds control characters; with a summary EROFS
    for a memory that is the daemon's database, EEXIST for an archive that has another text. Nothing
    is compacted then.
    """
    step = compaction(archive_name(os.fsencode(archive)), now())
    if summary is not None:
        _keep_summary(store, slug, archive, summary, memory, sync)
    return _append(store, slug, [step], sync)[0]


def update_meta(store: Store, slug: str, patch: Document, *, sync: bool = True) -> dict[str, Any]:
    """Apply a merge patch (RFC 7396) to the meta; the meta as it is then (G10).

    A change that the daemon or a mount makes at the same moment is kept. Raises StoreError: EINVAL
    for a wrong type or a required key taken away (nothing changes then), ENOENT, EBUSY, …
    """
    asked = orjson.loads(orjson.dumps(patch))
    with store.opened(slug) as directory, doing(f"change the meta of {printable(slug)}"):
        return meta_update.update(directory, lambda about: meta.merged(about, asked), sync=sync)


def delete_session(store: Store, slug: str, *, sync: bool = True) -> bool:
    """Delete a session with all that is in it; False if there is none. Raises StoreError."""
    try:
        delete(store, slug, sync=sync)
    except StoreError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _keep_summary(
    store: Store,
    slug: str,
    archive: str,
    summary: str,
    memory: str | os.PathLike[str] | None,
    sync: bool,
) -> None:
    found = Memory.beside(store.path) if memory is None else Memory(os.fspath(memory))
    with store.opened(slug) as directory, doing(f"compact {printable(slug)}"):
        mode = Ownership.of_session(directory).mode
        found.keep(archive, summary, mode, lambda _: True, sync=sync)


def _time(text: str) -> int:
    time_ns = nanoseconds(text)
    if time_ns is None:
        sentence = f"{printable(text)} is not a time: RFC 3339 is needed, such as {now()}"
        raise StoreError(errno.EINVAL, "not-a-time", sentence)
    return time_ns


def _stored_form(document: Document) -> Step:
    return stored_form(orjson.dumps(document))


def _append(store: Store, slug: str, steps: Iterable[Step | bytes], sync: bool) -> list[int]:
    judged = [step if isinstance(step, bytes) else step.data for step in steps]
    numbers: list[int] = []
    with store.opened(slug) as directory, doing(f"append to {printable(slug)}"):
        claim_all(directory, judged, numbers, sync=sync)
    return numbers
