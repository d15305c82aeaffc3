"""Tracks the nesting depth of JSON text in linear time, without building a value.

The text is processed in windows: whole-buffer operations strip strings, escapes and everything but
brackets from a window, and only a window in which the depth can leave its bounds is scanned bracket by
bracket. The text need not be valid JSON, and may come in pieces.
"""

from __future__ import annotations

import re
import sys
from array import array
from itertools import accumulate
from typing import Final

_WINDOW_BYTES: Final = 1 << 16
_FIRST_WINDOW_BYTES: Final = 1 << 8
"""Size of the first window; each next one doubles, so that a short value's tail is not copied."""
_OPENING, _CLOSING = b"\x01", b"\xff"
_SIGNS: Final = bytes.maketrans(b"[{]}", 2 * _OPENING + 2 * _CLOSING)
_ALL_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|\\["\\]|[][{}]', re.DOTALL)


class Nesting:
    """Tracks the depth from the beginning of a text, or of a value in it."""

    __slots__ = ("_escaped", "depth", "in_string")

    def __init__(self) -> None:
        self.depth = 0
        """Brackets open at the end of the text followed so far."""
        self.in_string = False
        """Whether it ends within a string."""
        self._escaped = False

    def follow(
        self,
        text: bytes,
        start: int = 0,
        end: int = sys.maxsize,
        *,
        least: int = -sys.maxsize,
        most: int = sys.maxsize,
    ) -> int | None:
        """Process `text[start:end]`, which continues what was processed before.

        Returns the offset in `text` of the first bracket that takes the depth below `least` or above
        `most`, after which this object is of no further use; None if there is no such bracket.
        """
        at, end, size = start, min(end, len(text)), _FIRST_WINDOW_BYTES
        while at < end:
            found = self._take(text[at : min(at + size, end)], least, most)
            if found is not None:
                return at + found
            at, size = at + size, min(2 * size, _WINDOW_BYTES)
        return None

    def _take(self, window: bytes, least: int, most: int) -> int | None:
        skipped = 1 if self._escaped and window[0] in b'"\\' else 0
        window, self._escaped = window[skipped:], False
        began_in_string = self.in_string
        brackets = self._brackets(window)
        opened = brackets.count(_OPENING)
        closed = len(brackets) - opened
        if self.depth - closed < least or self.depth + opened > most:
            depths = accumulate(array("b", brackets), initial=self.depth)
            next(depths)
            for bracket, depth in enumerate(depths):
                if not least <= depth <= most:
                    return skipped + _offset(window, bracket, began_in_string)
        self.depth += opened - closed
        return None

    def _brackets(self, window: bytes) -> bytes:
        """The brackets outside strings, as signed bytes."""
        if b"\\" in window:
            backslashes = len(window) - len(window.rstrip(b"\\"))
            self._escaped = backslashes % 2 == 1
            window = window.replace(rb"\\", b"").replace(rb"\"", b"")
        parts = window.split(b'"')
        outside = b"".join(parts[self.in_string :: 2])
        self.in_string ^= len(parts) % 2 == 0
        return outside.translate(_SIGNS, _ALL_BUT_BRACKETS)


def _offset(window: bytes, bracket: int, in_string: bool) -> int:
    """The offset in the window of bracket number `bracket`, counted from 0."""
    text = b'"' + window if in_string else window
    for token in _TOKENS.finditer(text):
        if token[0] in b"[]{}":
            if bracket == 0:
                return token.start() - in_string
            bracket -= 1
    raise AssertionError("the bracket is in the window")
