"""Formats: how a session's steps are shown as text, and which of them a view shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fusefs.views.cuts import AtTime, Cut
from storage.render import jsonl, lines, markdown
from storage.session import for_people
from storage.session.reader import Show


@dataclass(frozen=True, eq=False, slots=True)
class Format:
    """A way to render steps as text."""

    name: str
    """The name of the file in this format."""
    show: Show
    history: bool
    """Whether it begins after the last compaction; else it shows every step from the first."""
    head: Callable[[int, str], bytes] | None = None
    """Renders the head of a file that is not empty, given the session's descriptor and slug."""
    lead: Callable[[str, str | None, bool], bytes] | None = None
    """Renders what follows the head after a compaction, given the archive's name, its text if known, and
    whether messages there have content blocks."""
    times: bool = False
    """Whether it shows the times of the steps."""


@dataclass(frozen=True, slots=True)
class View:
    """What a file shows: the session's steps in a format, all or only those within `cut`."""

    format: Format
    cut: Cut | None = None

    @property
    def follows_times(self) -> bool:
        """Whether what it shows depends on the times of the steps."""
        return self.format.times or isinstance(self.cut, AtTime)


HISTORY: Final = Format("history.jsonl", lines.history, history=True)
MESSAGES: Final = Format("messages.jsonl", lines.messages, history=True, lead=jsonl.archive_line)
MARKDOWN: Final = Format(
    "history.md",
    for_people.entry,
    history=True,
    head=for_people.head,
    lead=lambda name, text, _: markdown.archive(name, text),
    times=True,
)
LOG: Final = Format("log.jsonl", lines.log, history=False)
FORMATS: Final = (HISTORY, MESSAGES, MARKDOWN, LOG)
"""The formats in a session's directory, in the order of its listing."""
PAST_FORMATS: Final = (HISTORY, MESSAGES, MARKDOWN)
"""The formats in which the past is shown too."""

BOUNDARY: Final = Format("compact", lines.nothing, history=True)
"""Shows no steps: it only tracks where the history begins."""
