"""JSON laid out over lines for people, bounded: nobody reads what millions of values look like."""

from __future__ import annotations

import json
from typing import Final

CHARACTERS_MAX: Final = 256 << 10
"""Characters of JSON shown per entry, at most."""
PARTS_MAX: Final = 1000
"""Parts, and calls, shown per entry; the rest is left out."""
LEFT_OUT: Final = "*… left out here; history.jsonl has all …*"

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, indent=2)


class Room:
    """What room one entry has for the JSON in it."""

    def __init__(self, characters: int = CHARACTERS_MAX) -> None:
        self._left = characters

    def pretty(self, value: object) -> tuple[str, bool]:
        """A value laid out, as far as there is room, and whether that is all of it."""
        pieces, left = [], self._left
        for piece in _ENCODER.iterencode(value):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                break
        text, self._left = "".join(pieces)[: self._left], max(0, left)
        return text, left >= 0
