"""The meta: one JSON object per session, which other programs rewrite concurrently (G9, G10)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Any

from storage import posix as files
from storage.capabilities import is_near
from storage.errors import StoreError
from storage.formats import jsontext
from storage.formats.splice import encoded

NAME = "meta"
REQUIRED = ("agent", "created_by", "created_at")
ABSENT = {"title": "", "updated_at": "", "message_count": 0}
"""The values that the daemon assumes for missing keys."""
KNOWN = frozenset({*REQUIRED, *ABSENT, "summary"})

U64_MAX = 2**64 - 1
META_BYTES_MAX = 1 << 20
"""A longer meta counts as broken and is never read."""

Meta = dict[str, Any]
Change = Callable[[Meta], Meta | None]
Seen = tuple[bytes, os.stat_result]


def check(value: object) -> Meta:
    """`value`, if the daemon would accept it as a meta; else raises `StoreError` EINVAL."""
    if not isinstance(value, dict):
        raise invalid("the meta must be one JSON object")
    if isinstance(value, jsontext.Repeating) and value.keys_repeated & KNOWN:
        raise invalid(f"the meta repeats {', '.join(sorted(value.keys_repeated & KNOWN))}")
    for key in REQUIRED:
        if not isinstance(value.get(key), str):
            raise invalid(f'the meta needs "{key}", a string')
    for key in ("title", "updated_at"):
        if not isinstance(value.get(key, ""), str):
            raise invalid(f'"{key}" must be a string')
    if not isinstance(value.get("summary"), str | None):
        raise invalid('"summary" must be a string')
    count = value.get("message_count", 0)
    if type(count) is not int or not 0 <= count <= U64_MAX:
        raise invalid('"message_count" must be a whole number from 0')
    return value


def merged(meta: Meta, patch: Meta) -> Meta:
    """`meta` after the merge patch `patch` (RFC 7396), checked (G10). Neither is changed.

    Values that the patch does not touch are the same objects as before. Raises `StoreError` EINVAL
    if `created_at` would change, a required key be deleted, or a known key get the wrong type.
    """
    result = check(_patched(meta, patch))
    if result["created_at"] != meta["created_at"]:
        raise invalid('"created_at" never changes')
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
    """Parse a merge patch. Raises `StoreError` EINVAL if `text` is not a JSON object."""
    value = _value(text)
    if not isinstance(value, dict):
        raise invalid("a JSON object is needed")
    return value


def _value(data: bytes) -> Any:
    try:
        jsontext.parse(data)
        return jsontext.pairs(data)  # keeps big integers and repeated keys
    except jsontext.NotJSON as error:
        raise StoreError(errno.EINVAL, error.code, error.sentence) from None


def read(session_fd: int, name: str = NAME) -> Seen:
    """The bytes and the status of the session's meta, never those that another host has replaced.

    Raises `OSError`, and `StoreError` EINVAL if it is not a regular file or is too long.
    """
    if not is_near(session_fd):
        files.refresh(name, session_fd)
    return files.persistently(name, session_fd, partial(_read, session_fd, name), kept=True)


def read_near(session_fd: int) -> Seen:
    """As `read`, on a near store, for a caller that has just seen that it is a regular file."""
    return files.read_regular(NAME, session_fd, META_BYTES_MAX)


def _read(session_fd: int, name: str) -> Seen:
    """One attempt to read the meta. Raises `OSError`, and `StoreError` EINVAL as `read` does."""
    if not stat.S_ISREG(os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mode):
        raise invalid("the meta is not a regular file")
    return files.read_regular(name, session_fd, META_BYTES_MAX)


def parsed(data: bytes) -> Meta:
    """Parse the content of a meta file. Raises `StoreError` EINVAL if the daemon would refuse it."""
    return check(_value(data))


def fresh(agent: str, created_by: str, now: str) -> bytes:
    """The content of a new session's meta, as the daemon writes it; `now` is RFC 3339."""
    meta = {"agent": agent, "created_by": created_by, "created_at": now}
    return encoded({**meta, "title": "", "updated_at": now, "message_count": 0})


def count_delta(entries: int, now: str, *, reset: bool = False) -> Change:
    """The change to a meta after `entries` messages were stored at the time `now` (G9, RFC 3339).

    With `reset` they follow a compaction, after which only the archive's own message counts.
    """

    def change(meta: Meta) -> Meta:
        before = 1 if reset else meta.get("message_count", 0)
        return {**meta, "updated_at": now, "message_count": min(before + entries, U64_MAX)}

    return change


def invalid(sentence: str) -> StoreError:
    """The error for a meta that is refused for the reason in `sentence`."""
    return StoreError(errno.EINVAL, "bad-meta", sentence)
