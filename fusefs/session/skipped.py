"""Names of one session that are skipped, said in a bounded number of log lines (S2)."""

from __future__ import annotations

import logging
from typing import Final

from storage.errors import printable

NAMED: Final = 20
"""Names logged one by one; further ones are only counted."""
REMEMBERED: Final = 2000

log: Final = logging.getLogger(__name__)


class Skipped:
    """What is skipped of a session while it is open; each name is told once."""

    __slots__ = ("_names", "_slug", "_told")

    def __init__(self, slug: str) -> None:
        self._slug = printable(slug)
        self._names: dict[str, None] = {}
        """Not a set, which takes three times the memory while nothing is skipped."""
        self._told = NAMED

    def note(self, name: str, sentence: str) -> None:
        """A name is skipped, for that reason."""
        if name in self._names or len(self._names) >= REMEMBERED:
            return
        self._names[name] = None
        if len(self._names) <= NAMED:
            log.warning("%s/%s is skipped: %s", self._slug, printable(name), sentence)

    def sum_up(self) -> None:
        """Everything was looked at: tell how many more there are, if they are more than before."""
        if len(self._names) <= self._told:
            return
        more = len(self._names) - NAMED
        least = "at least " if len(self._names) >= REMEMBERED else ""
        log.warning(
            "%s is skipped: %s%d more of its files; stepfs check names each",
            self._slug,
            least,
            more,
        )
        self._told = len(self._names)
