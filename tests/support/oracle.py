"""Which bytes the reference loads as which kind of step: the table of the store's format,
implemented again from its text alone, without any code of the project, slow and simple."""

from __future__ import annotations

import json
import math
import re
from typing import Any

U32, U64 = 2**32 - 1, 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Object:
    """A JSON object that keeps its members in order, duplicates included."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = members

    def get(self, key: str) -> list[Any]:
        """The values of all members with this key."""
        return [value for name, value in self.members if name == key]


class _Unfit(Exception):  # noqa: N818 - it is no error
    pass


def kind(data: bytes) -> str | None:
    """`compaction`, `legacy compaction`, `event`, `entry`, or None where the reference skips it."""
    value = _document(data)
    if not isinstance(value, _Object):
        return None
    for name, fits in (
        ("compaction", _compaction),
        ("legacy compaction", _legacy),
        ("event", _event),
        ("entry", _entry),
    ):
        try:
            fits(value)
        except _Unfit:
            continue
        return name
    return None


def _document(data: bytes) -> Any:
    try:
        text = data.decode()
        value = json.loads(
            text, object_pairs_hook=_Object, parse_constant=_no_constant, parse_int=_integer
        )
        _check(value, 1)
    except (ValueError, RecursionError, _Unfit):
        return None
    return value


def _no_constant(_name: str) -> None:
    raise _Unfit


def _integer(literal: str) -> int | float:
    if literal == "-0":
        return -0.0
    if len(literal) > 400:
        raise _Unfit
    return int(literal)


def _check(value: Any, depth: int) -> None:
    """Refuse numbers beyond a double, lone surrogates, and nesting deeper than 127."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unfit
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            float(value)
        except OverflowError:
            raise _Unfit from None
    if isinstance(value, str) and _SURROGATE.search(value):
        raise _Unfit
    if isinstance(value, list | _Object):
        if depth > 127:
            raise _Unfit
        for item in value if isinstance(value, list) else value.members:
            if isinstance(value, _Object):
                _check(item[0], depth)
                _check(item[1], depth + 1)
            else:
                _check(item, depth + 1)


def _one(value: _Object, key: str) -> Any:
    found = value.get(key)
    if len(found) != 1:
        raise _Unfit
    return found[0]


def _string(value: _Object, *keys: str) -> None:
    for key in keys:
        if not isinstance(_one(value, key), str):
            raise _Unfit


def _maybe(value: _Object, key: str, *, null: bool) -> Any:
    """The value of a key that may be absent, or null if `null`; None for both."""
    if not value.get(key):
        return None
    found = _one(value, key)
    if found is None and not null:
        raise _Unfit
    return found


def _maybe_string(value: _Object, *keys: str, null: bool) -> None:
    for key in keys:
        if not isinstance(_maybe(value, key, null=null), str | None):
            raise _Unfit


def _unsigned(found: Any, greatest: int) -> None:
    if type(found) is not int or not 0 <= found <= greatest:
        raise _Unfit


def _list(found: Any) -> list[_Object]:
    if not isinstance(found, list) or not all(isinstance(item, _Object) for item in found):
        raise _Unfit
    return found


def _compaction(value: _Object) -> None:
    _string(value, "archive_name", "archived_at")


def _legacy(value: _Object) -> None:
    _string(value, "compact")
    _maybe_string(value, "title", "archived_at", null=False)


def _event(value: _Object) -> None:
    _string(value, "event")
    match _one(value, "event"):
        case "tool_start":
            for call in _list(_one(value, "calls")):
                _string(call, "id", "name")
                _maybe_string(call, "arguments", null=False)
        case "tool_result":
            _string(value, "call_id")
            _unsigned(_one(value, "duration_ms"), U64)
        case "done":
            _string(value, "model", "stop_reason")
            _unsigned(_one(value, "iterations"), U64)
            _usage(_one(value, "usage"))
        case "user_steered":
            _string(value, "content")
        case _:
            raise _Unfit
    _string(value, "ts")


def _usage(usage: Any) -> None:
    if not isinstance(usage, _Object):
        raise _Unfit
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        _unsigned(_one(usage, key), U32)
    for key in ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"):
        _maybe_unsigned(usage, key)
    details = _maybe(usage, "completion_tokens_details", null=True)
    if details is not None:
        if not isinstance(details, _Object):
            raise _Unfit
        _maybe_unsigned(details, "reasoning_tokens")


def _maybe_unsigned(value: _Object, key: str) -> None:
    found = _maybe(value, key, null=True)
    if found is not None:
        _unsigned(found, U32)


def _entry(value: _Object) -> None:
    message = _one(value, "message")
    if not isinstance(message, _Object):
        raise _Unfit
    _string(message, "role")
    _maybe_string(value, "agent", null=False)
    if len(message.get("content")) > 1:
        raise _Unfit
    _maybe_string(message, "tool_call_id", "name", "reasoning_content", null=True)
    calls = _maybe(message, "tool_calls", null=True)
    for call in _list([] if calls is None else calls):
        _string(call, "id", "type")
        if _one(call, "type") != "function":
            raise _Unfit
        function = _one(call, "function")
        if not isinstance(function, _Object):
            raise _Unfit
        _string(function, "name", "arguments")
        _maybe_unsigned(call, "index")
