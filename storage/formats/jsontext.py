"""JSON documents as the store knows them: read strictly, and cut without encoding a value again.

A document is UTF-8 without byte order mark, may have JSON white space around it, nests at most
127 deep, and holds no number beyond a double, no lone surrogate escape, no raw control character.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, Final

import orjson

from storage.formats.nesting import Nesting

DEPTH_MAX = 127
_SHALLOW_BYTES: Final = 2 * DEPTH_MAX
"""A document of so few bytes is not nested deeper: it parses, so each bracket has its other one."""
WHITE_SPACE = b" \t\n\r"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The rest of the text counts as a string where none ends: looking at each quote in it for one that
# does would take quadratic time.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS_OR_NUMBERS = re.compile(_STRING + rb"|([-+.0-9Ee]++)", re.DOTALL)
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_STRING_OR_WORD = re.compile(_STRING + rb"|[^][{},:\" \t\n\r]++", re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_GREATEST = Decimal(sys.float_info.max)
_HALVES_OF_GREATEST = rb"17976931", rb"34862315"
"""Wherever its point stands, one of these is in a number that rounds to the greatest double."""


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
    """An object in which some keys occur more than once; `keys_repeated` are those.

    `members` are all that were written; of a repeated key the dictionary has the last.
    """

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.members = members
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
        raise diagnosis(data, error) from None
    _refuse_what_parses(data)
    return value


def parse_on(data: bytes, value: Any) -> Any:
    """`exact` for who has only loaded `value` from `data`. Raises `NotJSON` as `parse`.

    At once where the document is as the daemon writes it: a value that gives the same bytes when it
    is written again repeats no key, and holds no `-0` and no number that only rounds to a double.
    """
    if len(data) > _SHALLOW_BYTES and _brackets(data) > DEPTH_MAX:
        _refuse_what_parses(data)
        return exact(data, value)
    again = orjson.dumps(value)
    if again == data:
        return value
    _refuse_what_parses(data)
    return _exact(data, value, again)


def exact(data: bytes, value: Any) -> Any:
    """`value`, which `parse` read from `data`, with what `parse` forgets kept apart.

    Objects that repeat keys are `Repeating`, and the number `-0` is a float. The slow reading that
    tells is left out where the value written again has lost nothing: a forgotten key would have
    taken its quotation marks along.
    """
    return _exact(data, value, orjson.dumps(value))


def _exact(data: bytes, value: Any, again: bytes) -> Any:
    """As `exact`, where `again` is `value` written again."""
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
    nesting, at, found = Nesting(), 0, None
    for match in _key(key).finditer(data):
        nesting.follow(data, at, match.start())
        at = match.start()
        if nesting.depth == 1 and not nesting.in_string:
            found = match.end()
    return None if found is None else (found, _end_of_value(data, found))


def members(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of the object `data`, which `parse` accepted, as their bytes, in order."""
    at = _after_space(data, data.index(b"{") + 1)
    while data[at] != ord("}"):
        end = _end_of_value(data, at)
        start = _after_space(data, _after_space(data, end) + 1)
        stop = _end_of_value(data, start)
        yield data[at:end], data[start:stop]
        at = _after_space(data, stop)
        if data[at] == ord(","):
            at = _after_space(data, at + 1)


def items(data: bytes) -> list[tuple[int, int]]:
    """Where in the array `data` each of its items begins and ends, in bytes.

    `data` is a document that `parse` accepted.
    """
    found = []
    at = _after_space(data, data.index(b"[") + 1)
    while data[at] != ord("]"):
        end = _end_of_value(data, at)
        found.append((at, end))
        at = _after_space(data, end)
        if data[at] == ord(","):
            at = _after_space(data, at + 1)
    return found


def one_line(data: bytes) -> bytes:
    """The document `data` on one line (G1): its own bytes, the white space around it dropped.

    Only where these hold LF or CR is the white space between the tokens dropped too.
    """
    stripped = data.strip(WHITE_SPACE)
    if b"\n" not in stripped and b"\r" not in stripped:
        return stripped
    parts, at = [], 0
    for string in _WHOLE_STRING.finditer(stripped):
        parts += [stripped[at : string.start()].translate(None, WHITE_SPACE), string[0]]
        at = string.end()
    return b"".join([*parts, stripped[at:].translate(None, WHITE_SPACE)])


def _brackets(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")


def _refuse_what_parses(data: bytes) -> None:
    if len(data) > _SHALLOW_BYTES and _brackets(data) > DEPTH_MAX:
        too_deep = _offset_too_deep(data, len(data))
        if too_deep is not None:
            raise _nested_too_deep(too_deep)
    if _HALVES_OF_GREATEST[0] in data or _HALVES_OF_GREATEST[1] in data:
        _refuse_rounded(data)


def _integer(literal: str) -> int | float:
    return -0.0 if literal == "-0" else int(literal)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    members_by_key = dict(members)
    return members_by_key if len(members_by_key) == len(members) else Repeating(members)


_EXACT = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


@cache
def _key(key: str) -> re.Pattern[bytes]:
    """Finds `key`, however its characters are escaped, and the white space to its value."""
    characters = (rb"(?:%c|\\u00(?i:%02x))" % (ord(c), ord(c)) for c in key)
    return re.compile(rb'"' + b"".join(characters) + rb'"[ \t\n\r]*+:[ \t\n\r]*+')


def _after_space(data: bytes, at: int) -> int:
    space = _SPACE.match(data, at)
    return space.end() if space else at


def _end_of_value(data: bytes, start: int) -> int:
    if data[start] in b"[{":
        closing = Nesting().follow(data, start, least=1)
        return len(data) if closing is None else closing + 1
    scalar = _STRING_OR_WORD.match(data, start)
    return scalar.end() if scalar else start


def _offset_too_deep(data: bytes, end: int) -> int | None:
    return Nesting().follow(data, end=end, most=DEPTH_MAX)


def _refuse_rounded(data: bytes) -> None:
    """The daemon takes no number that is beyond the greatest double and only rounds to it."""
    for token in _STRINGS_OR_NUMBERS.finditer(data):
        number = token[1]
        if number and any(half in number for half in _HALVES_OF_GREATEST):
            exactly = Decimal(number.decode())
            if exactly.copy_abs() > _GREATEST:
                raise NotJSON("number out of range", token.start())


def diagnosis(data: bytes, error: orjson.JSONDecodeError) -> NotJSON:
    """What is wrong with `data`, which could not be loaded."""
    try:
        text = data.decode()
    except UnicodeDecodeError as undecodable:
        return NotJSON(undecodable.reason, undecodable.start, "not-utf8")
    if not data.strip(WHITE_SPACE):
        return NotJSON("empty", 0)
    if data.startswith(_BYTE_ORDER_MARK):
        return NotJSON("begins with a byte order mark", 0)
    offset = len(text[: error.pos].encode())
    too_deep = _offset_too_deep(data, offset)
    return NotJSON(error.msg, offset) if too_deep is None else _nested_too_deep(too_deep)


def _nested_too_deep(offset: int) -> NotJSON:
    return NotJSON(f"nested more than {DEPTH_MAX} deep", offset, "too-deep")
