"""JSON documents as the store knows them: read strictly, and cut without encoding a value again.

A document is UTF-8 without byte order mark, may have JSON white space around it, nests at most
127 deep, and holds no number beyond a double, no lone surrogate escape, no raw control character.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

DEPTH_MAX = 127
WHITE_SPACE = b" \t\n\r"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS_OR_BRACKETS = re.compile(_STRING + rb"|[][{}]", re.DOTALL)
_STRINGS_OR_SPACE = re.compile(rb"(" + _STRING + rb")|[ \t\n\r]++", re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class NotJSON(ValueError):  # noqa: N818 - it says what the bytes are
    """Bytes that are no JSON document.

    `sentence` says what is wrong and where, `offset` is the first offending byte counted from 0,
    `code` is `"not-utf8"`, `"too-deep"` or `"not-json"`.
    """

    def __init__(self, reason: str, offset: int, code: str = "not-json") -> None:
        kind = "not UTF-8" if code == "not-utf8" else "not JSON"
        self.sentence = f"{kind} at byte {offset}: {reason}"
        self.offset = offset
        self.code = code
        super().__init__(self.sentence)


class Repeating(dict[str, Any]):
    """An object in which some keys occur more than once; `keys_repeated` are those."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.keys_repeated: set[str] = set()
        for key, value in members:
            if key in self:
                self.keys_repeated.add(key)
            self[key] = value


def parse(data: bytes) -> Any:
    """The value of the document `data`; of a repeated key the last counts. Raises `NotJSON`."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _diagnosis(data, error) from None
    if len(data) > 2 * DEPTH_MAX and _too_deep(data):
        raise _nested_too_deep(_offset_too_deep(data))
    return value


def exact(data: bytes, value: Any) -> Any:
    """`value`, which `parse` read from `data`, with what `parse` forgets kept apart.

    Objects that repeat keys are `Repeating`, and the number `-0` is a float. The slow reading that
    tells is left out where the value written again has lost nothing: a forgotten key would have
    taken its quotation marks along.
    """
    again = orjson.dumps(value)
    if again == data:
        return value
    if again.count(b'"') == data.count(b'"') and b"-0" not in data and rb"\u0022" not in data:
        return value
    return pairs(data)


def pairs(data: bytes) -> Any:
    """The value of a document that `parse` accepted, read slowly: see `exact`."""
    return _EXACT.decode(data.decode())


def member(data: bytes, key: str) -> tuple[int, int] | None:
    """Where in the object `data` the value of its member `key` begins and ends, in bytes.

    `data` is a document that `parse` accepted, `key` is ASCII. Of a repeated key it is the last;
    None when there is no such member.
    """
    text = data.decode("latin-1")  # one character a byte; nothing outside strings is above ASCII
    found = None
    position = _skip_space(text, text.index("{") + 1)
    while text[position] != "}":
        name, position = _PLAIN.raw_decode(text, position)
        start = _skip_space(text, _skip_space(text, position) + 1)
        _, end = _PLAIN.raw_decode(text, start)
        if name == key:
            found = start, end
        position = _skip_space(text, end)
        if text[position] == ",":
            position = _skip_space(text, position + 1)
    return found


def one_line(data: bytes) -> bytes:
    """The document `data` on one line (G1): its own bytes, the white space around it dropped.

    Only where these hold LF or CR is the white space between the tokens dropped too.
    """
    stripped = data.strip(WHITE_SPACE)
    if b"\n" not in stripped and b"\r" not in stripped:
        return stripped
    return _STRINGS_OR_SPACE.sub(rb"\1", stripped)


def _integer(literal: str) -> int | float:
    return -0.0 if literal == "-0" else int(literal)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    members_by_key = dict(members)
    return members_by_key if len(members_by_key) == len(members) else Repeating(members)


_EXACT = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_PLAIN = json.JSONDecoder()


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _too_deep(data: bytes) -> bool:
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    brackets = outside_strings.translate(_BRACES_TO_BRACKETS, _ALL_BUT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # takes away the innermost level
    return bool(brackets)


def _offset_too_deep(data: bytes) -> int:
    depth = 0
    for match in _STRINGS_OR_BRACKETS.finditer(data):
        if match[0] in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                return match.start()
        elif match[0] in b"]}":
            depth -= 1
    return len(data)


def _diagnosis(data: bytes, error: orjson.JSONDecodeError) -> NotJSON:
    try:
        text = data.decode()
    except UnicodeDecodeError as undecodable:
        return NotJSON(undecodable.reason, undecodable.start, "not-utf8")
    if not data.strip(WHITE_SPACE):
        return NotJSON("empty", 0)
    if data.startswith(_BYTE_ORDER_MARK):
        return NotJSON("begins with a byte order mark", 0)
    offset = len(text[: error.pos].encode())
    too_deep = _offset_too_deep(data)
    return _nested_too_deep(too_deep) if too_deep < offset else NotJSON(error.msg, offset)


def _nested_too_deep(offset: int) -> NotJSON:
    return NotJSON(f"nested more than {DEPTH_MAX} deep", offset, "too-deep")
