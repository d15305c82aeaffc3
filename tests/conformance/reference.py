"""The recorded answers of the reference, and how it rewrites a step."""

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
_BLOCKS: dict[str, set[str]] = {
    "text": {"cache_control"},
    "thinking": {"signature"},
    "tool_use": {"cache_control"},
    "tool_result": {"name", "cache_control"},
    "image": {"cache_control"},
}
"""The optional keys of each kind of content block."""
_REQUIRED_IN_BLOCKS = {
    "text": {"type", "text"},
    "thinking": {"type", "thinking"},
    "tool_use": {"type", "id", "name", "input"},
    "tool_result": {"type", "tool_use_id", "content"},
    "image": {"type", "source"},
}
_OPTIONAL_IN_MESSAGE = {"content", "tool_calls", "tool_call_id", "name", "reasoning_content"}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of `NAME.jsonl.xz` beside this module."""
    text = lzma.decompress((Path(__file__).parent / f"{name}.jsonl.xz").read_bytes()).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def as_written_again(kind: str, value: dict[str, Any]) -> Any:
    """The step `value` as the reference rewrites it; `kind` is the value of its `Kind`."""
    if kind == "entry":
        return entry_as_written_again(value)
    kept = _only(_KNOWN[value["event"] if kind == "event" else kind], value)
    if kind == "legacy compaction":
        return {"title": "", "archived_at": "", **kept}
    return kept


def entry_as_written_again(value: dict[str, Any]) -> dict[str, Any]:
    """The entry `value` as the reference rewrites it."""
    return _entry(value, _plain_message(value["message"]))


def message_as_kept(message: dict[str, Any]) -> dict[str, Any]:
    """The message as the reference of its dialect keeps it; unchanged if no dialect knows it."""
    content = message.get("content")
    if isinstance(content, list) and all(map(_is_block, content)):
        return {"role": message["role"], "content": [_block(block) for block in content]}
    return _plain_message(message)


def entry_as_kept(value: dict[str, Any]) -> dict[str, Any]:
    """The entry as the reference of its dialect keeps it."""
    return _entry(value, message_as_kept(value["message"]))


def _entry(value: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    agent = {"agent": value["agent"]} if value.get("agent") else {}
    return {**agent, "message": message}


def _plain_message(value: dict[str, Any]) -> dict[str, Any]:
    message = {
        key: item
        for key, item in value.items()
        if not (key in _OPTIONAL_IN_MESSAGE and item is None)
    }
    if "tool_calls" in message:
        message["tool_calls"] = _only(_TOOL_CALL, message["tool_calls"])
    return message


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in _BLOCKS


def _block(block: dict[str, Any]) -> dict[str, Any]:
    required, optional = _REQUIRED_IN_BLOCKS[block["type"]], _BLOCKS[block["type"]]
    kept = {
        key: item
        for key, item in block.items()
        if key in required or (key in optional and item is not None)
    }
    if isinstance(kept.get("content"), list):
        kept["content"] = [_block(inner) for inner in kept["content"]]
    return kept


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal up to rounding of floats."""
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
