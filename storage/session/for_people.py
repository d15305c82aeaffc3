"""`history.md`: the entries as Markdown, with details that are not in their documents (G2).

These are the step number, the time of storing, and the tool's name for a result that lacks it, which is
taken from the earlier call.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Final

from storage.errors import StoreError
from storage.formats.kinds import NotAStep, Step, classify
from storage.render import markdown
from storage.session import meta
from storage.session.reader import LONG_BYTES, Reader
from storage.session.steps import LongStep, step_name, step_number

CALL_STEPS_MAX: Final = 16
"""How many steps back the call is searched for a result that does not name its tool."""


def entry(step: Step, session_fd: int, name: str) -> bytes | None:
    """The section for the step in the file `name`; None if it is not an entry."""
    if not step.kind.is_entry:
        return None
    number = step_number(name) or 0
    called = partial(_tool_called, session_fd, number)
    return markdown.entry(step, markdown.About(number, _stored(session_fd, name), called))


def head(session_fd: int, slug: str) -> bytes:
    """The head of the file. It holds only what never changes, so that the file only grows (G13)."""
    try:
        created_at = str(meta.parsed(meta.read(session_fd)[0])["created_at"])
    except (OSError, StoreError):
        created_at = ""
    return markdown.head(slug, created_at)


def _stored(session_fd: int, name: str) -> str:
    """When a step was stored, in UTC: the mtime of its file. Empty if that is unknown."""
    try:
        seconds = os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mtime
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OSError, ValueError, OverflowError):
        return ""


def _tool_called(session_fd: int, number: int, call_id: str) -> str | None:
    """The name of the tool that an entry shortly before step `number` called with this id."""
    reader = Reader(session_fd)
    for earlier in range(number - 1, max(0, number - 1 - CALL_STEPS_MAX), -1):
        try:
            step = classify(reader.read(step_name(earlier), LONG_BYTES))
        except (OSError, LongStep, NotAStep):
            continue
        if step.kind.is_compaction:
            return None
        if step.kind.is_entry and (name := markdown.calls(step).get(call_id)):
            return name
    return None
