"""The meta: one JSON object a session, that others rewrite at the same time (G9, G10)."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from storage import posix as files
from storage.capabilities import is_near
from storage.errors import StoreError
from storage.formats import jsontext
from storage.formats.splice import encoded, spliced

NAME = "meta"
REQUIRED = ("agent", "created_by", "created_at")
LOCK = ".meta.lock"
"""Whoever changes the meta has this file, which only those can open who may, and its lock."""
ASIDE = f".meta.{os.uname().nodename.replace('/', '-')}.tmp"
"""Where an update is written aside: one name a host, so that whoever has the lock may clear it."""
NEXT = f"{ASIDE}.next"
TEMPORARIES = (LOCK, ASIDE, NEXT)
ABSENT = {"title": "", "updated_at": "", "message_count": 0}
"""What the daemon takes keys to be that are not there."""
KNOWN = frozenset({*REQUIRED, *ABSENT, "summary"})

LOCK_SECONDS = 10.0
_LOCK_PAUSE_SECONDS = 0.001
_RACES_MAX = 8
"""How often the lock's file may be another by the time that it is locked."""
_LOCK_PAUSE_MAX_SECONDS = 0.05
_ATTEMPTS = 20
U64_MAX = 2**64 - 1
META_BYTES_MAX = 1 << 20
"""A longer one counts as broken, and is never read."""

Meta = dict[str, Any]
Change = Callable[[Meta], Meta | None]
Seen = tuple[bytes, os.stat_result]


def check(value: object) -> Meta:
    """`value` if the daemon would read it as a meta. Raises StoreError EINVAL."""
    if not isinstance(value, dict):
        raise _invalid("the meta must be one JSON object")
    if isinstance(value, jsontext.Repeating) and value.keys_repeated & KNOWN:
        raise _invalid(f"the meta repeats {', '.join(sorted(value.keys_repeated & KNOWN))}")
    for key in REQUIRED:
        if not isinstance(value.get(key), str):
            raise _invalid(f'the meta needs "{key}", a string')
    for key in ("title", "updated_at"):
        if not isinstance(value.get(key, ""), str):
            raise _invalid(f'"{key}" must be a string')
    if not isinstance(value.get("summary"), str | None):
        raise _invalid('"summary" must be a string')
    count = value.get("message_count", 0)
    if type(count) is not int or not 0 <= count <= U64_MAX:
        raise _invalid('"message_count" must be a whole number from 0')
    return value


def merged(meta: Meta, patch: Meta) -> Meta:
    """`meta` after the merge patch `patch` (RFC 7396), checked (G10). Neither is changed.

    What the patch does not touch is the same object as before. Raises StoreError EINVAL for
    another `created_at`, a required key deleted, or a known key of the wrong type.
    """
    result = check(_patched(meta, patch))
    if result["created_at"] != meta["created_at"]:
        raise _invalid('"created_at" never changes')
    return result


def _patched(target: object, patch: Meta) -> Meta:
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _patched(result.get(key), value)
        else:
            result[key] = value
    return result


def patch(text: bytes) -> Meta:
    """The merge patch that an object's text is. Raises StoreError EINVAL if it is no JSON object."""
    value = _value(text)
    if not isinstance(value, dict):
        raise _invalid("a JSON object is needed")
    return value


def _value(data: bytes) -> Any:
    try:
        jsontext.parse(data)
        return jsontext.pairs(data)  # keeps big integers, and tells of repeated keys
    except jsontext.NotJSON as error:
        raise StoreError(errno.EINVAL, error.code, error.sentence) from None


def read(session_fd: int, name: str = NAME) -> Seen:
    """The bytes of the session's meta and its status: never what another host has replaced already.

    Raises OSError; StoreError EINVAL for what is no regular file, or is too long.
    """
    if is_near(session_fd):
        return _read(session_fd, name)
    for attempt in range(1, _ATTEMPTS + 1):
        files.refresh(name, session_fd)
        try:
            return _read(session_fd, name)
        except FileNotFoundError:
            if attempt > files.MISSING_ATTEMPTS:
                raise
        except OSError as error:
            if error.errno != errno.ESTALE or attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _read(session_fd: int, name: str) -> Seen:
    """The bytes of the session's meta and its status.

    Raises OSError, and StoreError EINVAL if it is no file or longer than `META_BYTES_MAX`.
    """
    if not stat.S_ISREG(os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mode):
        raise _invalid("the meta is no regular file")
    return files.read_regular(name, session_fd, META_BYTES_MAX)


def parsed(data: bytes) -> Meta:
    """The meta that a meta file's bytes hold. Raises StoreError EINVAL if the daemon would not."""
    return check(_value(data))


def fresh(agent: str, created_by: str, now: str) -> bytes:
    """The meta of a new session, as the daemon writes it."""
    meta = {"agent": agent, "created_by": created_by, "created_at": now}
    return encoded({**meta, "title": "", "updated_at": now, "message_count": 0})


def count_delta(entries: int, now: str, *, reset: bool = False) -> Change:
    """The change after stores at the time `now` (G9): `entries` more messages.

    With `reset` they follow a compaction, after which only the archive's own message is left.
    """

    def change(meta: Meta) -> Meta:
        before = 1 if reset else meta.get("message_count", 0)
        return {**meta, "updated_at": now, "message_count": min(before + entries, U64_MAX)}

    return change


def update(
    session_fd: int, change: Change, *, sync: bool, patience_seconds: float = LOCK_SECONDS
) -> Meta:
    """Applies `change` to the meta as it is, and returns what the meta is now (G9, G10).

    `change` gets the meta and returns the new one, or None for nothing to do; it is called again on
    what an outside writer put there meanwhile, so that no side's change is lost. Mounts take turns, on
    several hosts too, by the lock of a hidden file that only those can open who may write the session.
    What did not change keeps its bytes, the file its mode and, where the process may, its owner. With
    `sync` it is on disk on return.

    Raises StoreError, also what `change` raises, with the meta left as it was: EINVAL for a broken
    one, EBUSY if somebody holds the lock for `patience_seconds` (0: it is tried once). Raises OSError.
    """
    with files.reopened(session_fd) as directory, _locked(directory, patience_seconds):
        try:
            result = _changed(directory, change, sync)
        finally:
            _clear(directory)
        if sync:
            os.fsync(directory)
        return result


def clear_leftover(session_fd: int) -> None:
    """Removes what an update left aside when a crash ended it. Raises OSError."""
    with (
        suppress(StoreError),  # one may be at work
        files.reopened(session_fd) as directory,
        _locked(directory, 0),
    ):
        _clear(directory)


@contextmanager
def _locked(directory: int, seconds: float) -> Iterator[None]:
    """Holds the lock of the meta.

    On a near store the file that carries it is there only while somebody holds it. On a far one it
    stays: what a client believes of a name that comes and goes can be wrong.
    """
    lock = _lock(directory, seconds)
    try:
        yield
    finally:
        if is_near(directory):
            with suppress(FileNotFoundError):
                os.unlink(LOCK, dir_fd=directory)
        os.close(lock)


def _lock(directory: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    pause = _LOCK_PAUSE_SECONDS
    while True:
        lock = _lock_once(directory)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            sentence = "another program has kept the session locked for too long"
            raise StoreError(errno.EBUSY, "busy", sentence)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LOCK_PAUSE_MAX_SECONDS)


def _lock_once(directory: int) -> int | None:
    """The locked file, open, if nobody has it; it is the one of its name.

    Whoever had it unlinks it, so the file may be another by the time that it is locked. Then nobody
    holds it, and it is tried again.
    """
    for _ in range(_RACES_MAX):
        lock = _lock_file(directory)
        if lock is None:
            continue
        try:
            if files.lock(lock) is False:
                return None
            if _is_named(lock, directory):
                lock, mine = -1, lock
                return mine
        finally:
            if lock >= 0:
                os.close(lock)
    return None


def _is_named(lock: int, directory: int) -> bool:
    try:
        files.refresh(LOCK, directory)
        return files.is_same(LOCK, directory, lock)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False


def _lock_file(directory: int) -> int | None:
    """The lock's file, made if it is not there, for whoever may make files in the directory."""
    status = os.fstat(directory)
    writers = status.st_mode & 0o222
    mode, owner = 0o600 | writers | writers << 1, (status.st_uid, status.st_gid)
    with suppress(FileExistsError):
        files.write_new(LOCK, b"", directory, mode, owner, False)
    try:
        return os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        if not os.access(".", os.W_OK, dir_fd=directory, effective_ids=True):
            raise
        return None  # it has not been given its mode yet
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return None


def _clear(directory: int) -> None:
    for name in (ASIDE, NEXT):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _changed(directory: int, change: Change, sync: bool) -> Meta:
    """Puts the changed meta in place until what it replaces is what had been changed."""
    base = seen = read(directory)
    try:
        while True:
            before = parsed(base[0])
            after = change(before) or before
            data = _written(base[0], before, after)
            if base is seen and data == base[0]:
                return before
            mine = data, _write_aside(directory, data, base[1], sync)
            out, placed = _swap(directory, seen)
            if _same(out, seen):
                return after
            base, seen = out, mine if placed else out
    except BaseException:
        if base is not seen:
            _put_back(directory, seen)
        raise


def _written(raw: bytes, before: Meta, after: Meta) -> bytes:
    data = spliced(raw, before, after)
    if len(data) > META_BYTES_MAX:
        raise _invalid(f"the meta would be longer than {META_BYTES_MAX} bytes")
    return data


def _write_aside(directory: int, data: bytes, like: os.stat_result, sync: bool) -> os.stat_result:
    owner, mode = (like.st_uid, like.st_gid), stat.S_IMODE(like.st_mode)
    try:
        status = files.write_new(NEXT, data, directory, mode, owner, sync)
    except FileExistsError:  # a crash has left it
        os.unlink(NEXT, dir_fd=directory)
        status = files.write_new(NEXT, data, directory, mode, owner, sync)
    os.rename(NEXT, ASIDE, src_dir_fd=directory, dst_dir_fd=directory)
    return status


def _swap(directory: int, seen: Seen) -> tuple[Seen, bool]:
    """Puts the file written aside in place: what was there, and whether it is in place now.

    What was there is aside then. A file system without an exchange cannot tell what a rename
    replaces; there the meta is looked at just before, and left if it is not what was `seen`. What
    the daemon writes between these two calls is lost.
    """
    try:
        files.exchange(ASIDE, NAME, directory)
    except OSError as error:
        if error.errno not in files.UNSUPPORTED:
            raise
    else:
        return read(directory, ASIDE), True
    found = read(directory)
    if not _same(found, seen):
        return found, False
    os.rename(ASIDE, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    return found, True


def _put_back(directory: int, mine: Seen) -> None:
    """Puts back the outside change that is aside, or a later one that came out meanwhile."""
    theirs = read(directory, ASIDE)
    while not _same(out := _swap(directory, mine)[0], mine):
        mine, theirs = theirs, out


def _same(one: Seen, other: Seen) -> bool:
    return one[0] == other[0] and all(
        getattr(one[1], field) == getattr(other[1], field)
        for field in ("st_mode", "st_uid", "st_gid")
    )


def _invalid(sentence: str) -> StoreError:
    return StoreError(errno.EINVAL, "bad-meta", sentence)
