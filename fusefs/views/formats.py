"""Formats: how a session's steps are shown as text, and which of them a view shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.formats.kinds import Kind, Step
from storage.render import jsonl, markdown


@dataclass(frozen=True, eq=False, slots=True)
class Format:
    """One way to make text of steps."""

    name: str
    """The name of the file that shows it."""
    show: Callable[[Step], bytes | None]
    """The line of a step, None where it has none."""
    history: bool
    """Whether it begins after the last compaction; else it shows every step from the first."""
    lead: Callable[[str, str | None], bytes] | None = None
    """How it begins after a compaction, given the archive's name and its text if known."""


@dataclass(frozen=True, slots=True)
class View:
    """What a file shows: a format of the session's steps, all of them or those up to `cut`."""

    format: Format
    cut: int | None = None


def _entry(show: Callable[[Step], bytes]) -> Callable[[Step], bytes | None]:
    return lambda step: show(step) if step.kind is Kind.ENTRY else None


HISTORY: Final = Format("history.jsonl", _entry(lambda s: jsonl.log_line(s.data)), history=True)
MESSAGES: Final = Format("messages.jsonl", _entry(jsonl.message_line), True, jsonl.archive_line)
MARKDOWN: Final = Format("history.md", _entry(markdown.entry), True, markdown.archive)
LOG: Final = Format("log.jsonl", lambda s: jsonl.log_line(s.data), history=False)
FORMATS: Final = (HISTORY, MESSAGES, MARKDOWN, LOG)
"""Those that a session's directory shows, in the order of its listing."""

BOUNDARY: Final = Format("compact", lambda _step: None, history=True)
"""Shows nothing, and so follows where the history begins."""
