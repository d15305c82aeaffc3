"""Collects one JSON object that arrives in pieces, until it is complete (G10, G11)."""

from __future__ import annotations

import errno
from typing import Final

from storage.errors import StoreError
from storage.formats.jsontext import WHITE_SPACE
from storage.formats.nesting import Nesting

_BRACE: Final = ord("{")


class UnfinishedObject:
    """The text of an object received so far. Adding a piece takes time linear in the piece."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._nesting = Nesting()

    def __len__(self) -> int:
        return len(self._text)

    def take(self, piece: bytes) -> bytes | None:
        """Add `piece`; returns the object if that completes it, None while it is unfinished.

        White space around the object is allowed and dropped. Raises `StoreError` EINVAL as soon as
        the text starts with anything else or continues after the object; this is of no use then.
        """
        if not self._text:
            piece = piece.lstrip(WHITE_SPACE)
            if not piece:
                return None
            if piece[0] != _BRACE:
                raise _no_object("a JSON object is needed, it begins with {")
        closing = self._nesting.follow(piece, least=1)
        if closing is None:
            self._text += piece
            return None
        self._text += piece[: closing + 1]
        if piece[closing + 1 :].strip(WHITE_SPACE):
            sentence = f"nothing may follow the JSON object that ends at byte {len(self)}"
            raise _no_object(sentence)
        return bytes(self._text)


def _no_object(sentence: str) -> StoreError:
    return StoreError(errno.EINVAL, "bad-meta", sentence)
