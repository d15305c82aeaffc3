"""JSON documents as the store accepts them: parsed strictly, and cut without encoding a value again.

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
"""A document no longer than this cannot exceed `DEPTH_MAX`: it parses, so its brackets are balanced."""
WHITE_SPACE = b" \t\n\r"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# An unterminated string takes in the rest of the text: trying each later quote as a start would take
# quadratic time.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS_OR_NUMBERS = re.compile(_STRING + rb"|([-+.0-9Ee]++)", re.DOTALL)
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_STRING_OR_WORD = re.compile(_STRING + rb"|[^][{},:\" \t\n\r]++", re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_GREATEST = Decimal(sys.float_info.max)
_HALVES_OF_GREATEST = rb"17976931", rb"34862315"
"""A number that rounds to the greatest double contains one of these, wherever its decimal point is."""


class NotJSON(ValueError):  # noqa: N818 - it says what the bytes are
    """Bytes that are not a JSON document.

    `sentence` says what is wrong and where, `offset` is the first offending byte (from 0), `code`
    is `"not-utf8"`, `"too-deep"` or `"not-json"`.
    """

    def __init__(self, reason: str, offset: int, code: str = "not-json") -> None:
        kind = "not UTF-8" if code == "not-utf8" else "not JSON"
        self.sentence = f"{kind} at byte {offset}: {reason}"
        self.offset = offset
        self.code = code
        super().__init__(self.sentence)


class Repeating(dict[str, Any]):
    """An object in which some keys occur more than once.

    `keys_repeated` are those keys, `members` all members as written. The dictionary itself has the
    last value of a repeated key.
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
    """Parse the document `data`; the last value of a repeated key wins. Raises `NotJSON`."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise diagnosis(data, error) from None
    _refuse_what_parses(data)
    return value


def parse_on(data: bytes, value: Any) -> tuple[Any, bool]:
    """As `exact`, for a `value` that orjson loaded from `data` and `parse` has not checked.

    Also returns whether `data` is known to be one line without white space between its tokens.

    Fast for documents in the daemon's own format: a value that encodes to the same bytes repeats no
    key, and holds no `-0` and no number that only rounds to a double. Raises `NotJSON` as `parse` does.
    """
    if len(data) > _SHALLOW_BYTES and _brackets(data) > DEPTH_MAX:
        _refuse_what_parses(data)
        return exact(data, value), False
    again = orjson.dumps(value)
    if again == data:
        return value, True
    _refuse_what_parses(data)
    return _exact(data, value, again), False


def exact(data: bytes, value: Any) -> Any:
    """`value`, which `parse` read from `data`, with the details that `parse` drops.

    Objects that repeat keys are `Repeating`, and the number `-0` is a float. The slow parser that
    keeps them runs only if encoding the value again loses something: a dropped key takes its
    quotation marks with it.
    """
    return _exact(data, value, orjson.dumps(value))


def _exact(data: bytes, value: Any, again: bytes) -> Any:
    """As `exact`; `again` is `value` encoded again."""
    if again == data:
        return value
    if again.count(b'"') == data.count(b'"') and b"-0" not in data and rb"\u0022" not in data:
        return value
    return pairs(data)


def pairs(data: bytes) -> Any:
    """The exact value of a document that `parse` accepted, from the slow parser: see `exact`."""
    return _EXACT.decode(data.decode())


def member(data: bytes, key: str) -> tuple[int, int] | None:
    """The byte range of the value of member `key` in the object `data`; None if there is no such member.

    `data` is a document that `parse` accepted, `key` is ASCII. The last member of a repeated key
    counts.
    """
    nesting, at, found = Nesting(), 0, None
    for match in _key(key).finditer(data):
        nesting.follow(data, at, match.start())
        at = match.start()
        if nesting.depth == 1 and not nesting.in_string:
            found = match.end()
    return None if found is None else (found, _end_of_value(data, found))


def members(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The raw keys and values of the object `data`, which `parse` accepted, in order."""
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
    """The byte range of each item in the array `data`, a document that `parse` accepted."""
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
    """Matches `key`, however its characters are escaped, up to the start of its value."""
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
    """Refuse a number above the greatest double that would be rounded to it: the daemon does."""
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
