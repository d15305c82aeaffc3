"""The query of a search, and whether the bytes of a step rule out a match.

`Query` is a named tuple because importing `dataclasses` would double the start-up time of a search.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

_RUN: Final = re.compile(r"[A-Za-z0-9 _,;:<>=!@#%&'~`-]+")
"""Characters that stand for themselves in a pattern, and in JSON, unless escaped as `\\uXXXX`."""
_WORD: Final = re.compile(r"[A-Za-z_]{2,}")
"""Text that also stays the same when a tool's input is encoded again and put after the tool's name."""
_NOT_TEXT: Final = re.compile(
    r"\\.|\[\^?(?:\\.|.)(?:\\.|[^]\\])*\]|.(?=[?*{])|\{[^}]*\}", re.DOTALL
)
"""Parts of a pattern that need not occur in a match: escapes, classes, optional items."""
_BEYOND: Final = re.compile(r"[|()]|\\[^\WbBdDsSwWAZ]")
"""Groups, alternatives, and escapes other than classes and anchors: no literal is sought then."""


class Query(NamedTuple):
    """What to search for, and in which steps.

    `role`, and `agent` (the session's or a guest's), are compared ignoring case; `since` and `until`
    limit when a step was stored (its file's mtime), in seconds since 1970.
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
    """Whether arguments and results of tools are searched too."""

    def may_match(self, data: bytes) -> bool:
        """Whether a step with these bytes can match; never False for one that does."""
        if self.literal in data or (b"\\" in data and b"\\u" in data):
            return True
        return self.ignore_case and (self.literal in data.lower() or not data.isascii())

    def in_time(self, session_fd: int, name: str) -> bool:
        """Whether a step was stored between `since` and `until`. Raises `OSError`."""
        if self.since is None and self.until is None:
            return True
        stored = os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mtime
        return (self.since is None or stored >= self.since) and (
            self.until is None or stored <= self.until
        )


def needed(
    pattern: str, *, fixed: bool = False, ignore_case: bool = False, tools: bool = False
) -> bytes:
    """The longest literal known to occur in everything that `pattern` matches; `b""` if there is none.

    It is in lower case with `ignore_case`. `fixed`: the pattern is literal text. `tools`: the input of
    tools is searched too, which may be encoded differently in the step's bytes.
    """
    if not fixed:
        if _BEYOND.search(pattern):
            return b""
        pattern = _NOT_TEXT.sub("\n", pattern)
    runs = (_WORD if tools else _RUN).findall(pattern)
    longest = max(runs, key=len, default="")
    return (longest.lower() if ignore_case else longest).encode()
