"""A changed JSON object written again, with the bytes of all that did not change."""

from __future__ import annotations

import json
import re
from typing import Any

from storage.formats import jsontext

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def spliced(raw: bytes, before: dict[str, Any], after: dict[str, Any]) -> bytes:
    """`after` as compact JSON, in which what is the same object in `before` keeps its bytes.

    `raw` is the document that `before` was parsed from. Numbers that Python would write in another
    way so survive a change beside them, at any depth.
    """
    known = _members(raw)
    members = []
    for key, value in after.items():
        raw_key, raw_value = known.get(key, (encoded(key), b""))
        if not raw_value:
            raw_value = encoded(value)
        elif value is before[key]:
            raw_value = jsontext.one_line(raw_value)
        elif isinstance(value, dict) and isinstance(before[key], dict):
            raw_value = spliced(raw_value, before[key], value)
        else:
            raw_value = encoded(value)
        members.append(raw_key + b":" + raw_value)
    return b"{" + b",".join(members) + b"}"


def _members(raw: bytes) -> dict[str, tuple[bytes, bytes]]:
    """The bytes of each key and value in the object `raw`; of a repeated key the last."""
    text = raw.decode("latin-1")  # one character a byte
    found = {}
    position = _after_space(text, text.index("{") + 1)
    while text[position] != "}":
        _, end = _DECODER.raw_decode(text, position)
        raw_key = raw[position:end]
        start = _after_space(text, _after_space(text, end) + 1)
        _, end = _DECODER.raw_decode(text, start)
        found[json.loads(raw_key)] = raw_key, raw[start:end]
        position = _after_space(text, end)
        if text[position] == ",":
            position = _after_space(text, position + 1)
    return found


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def encoded(value: object) -> bytes:
    """`value` as compact JSON, in UTF-8 and with the escapes that the daemon writes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
