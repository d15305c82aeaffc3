"""Pretty-prints JSON for people, up to a bound: nobody reads millions of values."""

from __future__ import annotations

import json
from typing import Final

CHARACTERS_MAX: Final = 256 << 10
"""At most this many characters of JSON are shown per entry."""
PARTS_MAX: Final = 1000
"""At most this many parts, and calls, are shown per entry; the rest is left out."""
LEFT_OUT: Final = "*… left out here; history.jsonl has all …*"

# What was parsed has no cycles. Looking for them would keep every value whose printing is cut short in
# a cycle of the encoder's own, for a collector that does not run in a worker.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, indent=2, check_circular=False)


class Room:
    """The characters of JSON that one entry may still show."""

    def __init__(self, characters: int = CHARACTERS_MAX) -> None:
        self._left = characters

    def pretty(self, value: object) -> tuple[str, bool]:
        """A value pretty-printed as far as there is room, and whether it is complete."""
        pieces, left = [], self._left
        for piece in _ENCODER.iterencode(value):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                break
        text, self._left = "".join(pieces)[: self._left], max(0, left)
        return text, left >= 0
