"""Writes a sample store: believable sessions with everything that a store can hold.

The bytes are those that the daemon would write, and always the same: nothing depends on the clock, so
that two sample stores compare equal, including file times.
"""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime, timedelta

from storage.demo.sessions import SESSIONS
from storage.demo.story import Story
from storage.errors import StoreError, from_os_error, printable
from storage.formats.slug import session_prefix
from storage.session.steps import step_name


def write(directory: str) -> list[str]:
    """Write the sample store into `directory`, creating it if needed; returns the slugs in order.

    Raises `StoreError`: ENOTEMPTY if the directory is not empty, ENOTDIR if the path is not a
    directory, else the errno of the call that failed.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        if os.listdir(directory):
            raise StoreError(
                errno.ENOTEMPTY,
                "not-empty",
                f"{printable(directory)} is not empty: give a new or an empty directory",
            )
        return [_write_session(directory, story) for story in _stories()]
    except FileExistsError:
        raise StoreError(
            errno.ENOTDIR, "not-a-directory", f"{printable(directory)} is not a directory"
        ) from None
    except OSError as error:
        raise from_os_error(error, f"write a sample store to {printable(directory)}") from error


def _stories() -> list[Story]:
    first = datetime(2026, 4, 20, 8, 12, 5, tzinfo=UTC)
    stories = []
    for index, tell in enumerate(SESSIONS):
        stories.append(tell(first + timedelta(hours=19 * index, minutes=7 * index)))
    return stories


def _write_session(store: str, story: Story) -> str:
    prefix = session_prefix(story.agent, story.created_by)
    taken = [int(name[len(prefix) :]) for name in os.listdir(store) if name.startswith(prefix)]
    slug = f"{prefix}{max(taken, default=0) + 1}"
    session = os.path.join(store, slug)
    os.mkdir(session)
    for step in story.steps:
        _write_file(os.path.join(session, step_name(step.number)), step.data, step.time)
    meta = json.dumps(story.meta(), ensure_ascii=False, separators=(",", ":")).encode()
    _write_file(os.path.join(session, "meta"), meta, story.now)
    _set_time(session, story.now)
    return slug


def _write_file(path: str, data: bytes, time: datetime) -> None:
    with open(path, "xb") as file:
        file.write(data)
    _set_time(path, time)


def _set_time(path: str, time: datetime) -> None:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    os.utime(path, ns=(nanoseconds, nanoseconds))
