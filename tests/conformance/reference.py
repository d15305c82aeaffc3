"""The recorded answers of the reference, and its way of writing a step again."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path
from typing import Any

_KNOWN: dict[str, dict[str, Any]] = {
    "compaction": {"archive_name": {}, "archived_at": {}},
    "legacy compaction": {"compact": {}, "title": {}, "archived_at": {}},
    "tool_start": {"event": {}, "calls": {"id": {}, "name": {}, "arguments": {}}, "ts": {}},
    "tool_result": {"event": {}, "call_id": {}, "duration_ms": {}, "ts": {}},
    "done": {
        "event": {},
        "model": {},
        "iterations": {},
        "stop_reason": {},
        "usage": {
            "prompt_tokens": {},
            "completion_tokens": {},
            "total_tokens": {},
            "prompt_cache_hit_tokens": {},
            "prompt_cache_miss_tokens": {},
            "completion_tokens_details": {"reasoning_tokens": {}},
        },
        "ts": {},
    },
    "user_steered": {"event": {}, "content": {}, "ts": {}},
}
_TOOL_CALL: dict[str, Any] = {
    "index": {},
    "id": {},
    "type": {},
    "function": {"name": {}, "arguments": {}},
}
_OPTIONAL_IN_MESSAGE = {"content", "tool_calls", "tool_call_id", "name", "reasoning_content"}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of `NAME.jsonl.xz` beside this module."""
    text = lzma.decompress((Path(__file__).parent / f"{name}.jsonl.xz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def as_written_again(kind: str, value: dict[str, Any]) -> Any:
    """The step `value` as the reference writes it again; `kind` is the value of its `Kind`."""
    if kind == "entry":
        return entry_as_written_again(value)
    kept = _only(_KNOWN[value["event"] if kind == "event" else kind], value)
    if kind == "legacy compaction":
        return {"title": "", "archived_at": "", **kept}
    return kept


def entry_as_written_again(value: dict[str, Any]) -> dict[str, Any]:
    """The entry `value` as the reference writes it again."""
    message = {
        key: item
        for key, item in value["message"].items()
        if not (key in _OPTIONAL_IN_MESSAGE and item is None)
    }
    if "tool_calls" in message:
        message["tool_calls"] = _only(_TOOL_CALL, message["tool_calls"])
    return (
        {"agent": value["agent"], "message": message}
        if value.get("agent")
        else {"message": message}
    )


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, but for the last places of floats."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-15)
    return bool(one == other)


def _only(known: dict[str, Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_only(known, item) for item in value]
    if not known or not isinstance(value, dict):
        return value
    return {
        key: _only(known[key], item)
        for key, item in value.items()
        if key in known and item is not None
    }
