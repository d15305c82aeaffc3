"""Formats: how a session's steps are shown as text, and which of them a view shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fusefs.views.cuts import Cut
from storage.render import jsonl, lines, markdown
from storage.session import for_people
from storage.session.reader import Show


@dataclass(frozen=True, eq=False, slots=True)
class Format:
    """One way to make text of steps."""

    name: str
    """The name of the file that shows it."""
    show: Show
    history: bool
    """Whether it begins after the last compaction; else it shows every step from the first."""
    head: Callable[[int, str], bytes] | None = None
    """How it begins once it shows anything, given the descriptor and the slug of its session."""
    lead: Callable[[str, str | None, bool], bytes] | None = None
    """What follows that after a compaction, given the archive's name, its text if known, and whether
    messages there are of content blocks."""


@dataclass(frozen=True, slots=True)
class View:
    """What a file shows: a format of the session's steps, all of them or those that `cut` leaves."""

    format: Format
    cut: Cut | None = None


HISTORY: Final = Format("history.jsonl", lines.history, history=True)
MESSAGES: Final = Format("messages.jsonl", lines.messages, history=True, lead=jsonl.archive_line)
MARKDOWN: Final = Format(
    "history.md",
    for_people.entry,
    history=True,
    head=for_people.head,
    lead=lambda name, text, _: markdown.archive(name, text),
)
LOG: Final = Format("log.jsonl", lines.log, history=False)
FORMATS: Final = (HISTORY, MESSAGES, MARKDOWN, LOG)
"""Those that a session's directory shows, in the order of its listing."""
PAST_FORMATS: Final = (HISTORY, MESSAGES, MARKDOWN)
"""Those that are shown of the past too."""

BOUNDARY: Final = Format("compact", lines.nothing, history=True)
"""Shows nothing, and so follows where the history begins."""
