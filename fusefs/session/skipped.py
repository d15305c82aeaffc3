"""Logs the files of one session that are skipped, in a bounded number of lines (S2)."""

from __future__ import annotations

import logging
from typing import Final

from storage.errors import printable

NAMED: Final = 20
"""This many names are logged one by one; further ones are only counted."""
REMEMBERED: Final = 2000
"""Names counted at most."""

log: Final = logging.getLogger(__name__)


class Skipped:
    """The files skipped in a session while it is open; each name is logged once."""

    __slots__ = ("_names", "_slug", "_told")

    def __init__(self, slug: str) -> None:
        self._slug = printable(slug)
        self._names: dict[str, None] = {}
        """The skipped names. Not a set: that takes three times the memory while it is empty."""
        self._told = NAMED
        """The number of names covered by log lines so far."""

    def note(self, name: str, sentence: str) -> None:
        """The file `name` is skipped, for the reason in `sentence`."""
        if name in self._names or len(self._names) >= REMEMBERED:
            return
        self._names[name] = None
        if len(self._names) <= NAMED:
            log.warning("%s/%s is skipped: %s", self._slug, printable(name), sentence)

    def sum_up(self) -> None:
        """At the end of a pass: log how many more files are skipped, if the number has grown."""
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
