"""A changed JSON object written again, with the bytes of all that did not change."""

from __future__ import annotations

import json
from typing import Any

from storage.formats import jsontext


def spliced(raw: bytes, before: dict[str, Any], after: dict[str, Any]) -> bytes:
    """`after` as compact JSON, in which what is the same object in `before` keeps its bytes.

    `raw` is the document that `before` was parsed from. Numbers that Python would write in another
    way so survive a change beside them, at any depth.
    """
    known = {json.loads(key): (key, value) for key, value in jsontext.members(raw)}
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


def encoded(value: object) -> bytes:
    """`value` as compact JSON, in UTF-8 and with the escapes that the daemon writes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
