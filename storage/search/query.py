"""What is searched for, and what the bytes of a step tell of it.

A named tuple, and not a dataclass, whose library takes as long to load as all else that begins a search.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

_RUN: Final = re.compile(r"[A-Za-z0-9 _,;:<>=!@#%&'~`-]+")
"""Text that is itself in a pattern, and in JSON either itself or escaped as `\\uXXXX`."""
_WORD: Final = re.compile(r"[A-Za-z_]{2,}")
"""Text that is also the same when a JSON document is written again, or put behind a name."""
_NOT_TEXT: Final = re.compile(
    r"\\.|\[\^?(?:\\.|.)(?:\\.|[^]\\])*\]|.(?=[?*{])|\{[^}]*\}", re.DOTALL
)
"""Parts of a pattern that need not occur in a match: escapes, classes, optional items."""
_BEYOND: Final = re.compile(r"[|()]|\\[^\WbBdDsSwWAZ]")
"""Characters that make what follows them in a pattern no literal either."""


class Query(NamedTuple):
    """What is looked for, and where.

    `role` and `agent`, the session's or a guest's, are compared without regard to case; `since` and
    `until` are seconds since 1970, of the moment a step was stored (its file's mtime).
    """

    pattern: re.Pattern[str]
    literal: bytes = b""
    """A literal that occurs in every match; see `needed`."""
    ignore_case: bool = False
    role: str | None = None
    agent: str | None = None
    since: float | None = None
    until: float | None = None
    tools: bool = False
    """Whether arguments and results of tools are looked at."""

    def may_match(self, data: bytes) -> bool:
        """Whether a step of these bytes can match at all; never False for one that does."""
        if self.literal in data or (b"\\" in data and b"\\u" in data):
            return True
        return self.ignore_case and (self.literal in data.lower() or not data.isascii())

    def in_time(self, session_fd: int, name: str) -> bool:
        """Whether that step was stored when it should have been."""
        if self.since is None and self.until is None:
            return True
        stored = os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mtime
        return (self.since is None or stored >= self.since) and (
            self.until is None or stored <= self.until
        )


def needed(
    pattern: str, *, fixed: bool = False, ignore_case: bool = False, tools: bool = False
) -> bytes:
    """The longest literal that occurs in whatever `pattern` matches; `b""` if none is sure to.

    `fixed` says that the pattern is a text, `tools` that what tools are given is looked at, which is
    written anew. In lower case if case is ignored.
    """
    if not fixed:
        if _BEYOND.search(pattern):
            return b""
        pattern = _NOT_TEXT.sub("\n", pattern)
    runs = (_WORD if tools else _RUN).findall(pattern)
    longest = max(runs, key=len, default="")
    return (longest.lower() if ignore_case else longest).encode()
