"""Encodes a changed JSON object, keeping the original bytes of everything that did not change."""

from __future__ import annotations

import json
from typing import Any

from storage.formats import jsontext


def spliced(raw: bytes, before: dict[str, Any], after: dict[str, Any]) -> bytes:
    """`after` as compact JSON; values that are the same objects as in `before` keep their bytes.

    `raw` is the document that `before` was parsed from. So numbers that Python would write
    differently survive a change elsewhere in the document, at any depth.
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
    """`value` as compact JSON in UTF-8, escaped as the daemon escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
