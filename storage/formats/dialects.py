"""Schemas of entries and events, in the two dialects that versions of the daemon write.

The first dialect stores messages in the form of OpenAI's API; the second stores Anthropic's content
blocks, and counts tokens differently. Nothing in a document names its dialect, and one session may hold
both if the daemon was upgraded in between. So each document is judged on its own, and is valid if it
fits either dialect.
"""

from __future__ import annotations

from typing import Any, Final

from storage.formats.rules import (
    U32_MAX,
    U64_MAX,
    Rule,
    anything,
    array,
    either,
    integer,
    map_of,
    object_,
    one_of,
    or_null,
    string,
    tagged,
)

_u32 = integer(U32_MAX)
_u64 = integer(U64_MAX)
_maybe_string = or_null(string)
_maybe_u32 = or_null(_u32)


def has_blocks(message: Any) -> bool:
    """Whether a message's content is an array, as in the dialect with content blocks."""
    return isinstance(message, dict) and isinstance(message.get("content"), list)


def is_blocks(content: object) -> bool:
    """Whether content is an array of blocks: objects that each have a `type`, known or unknown."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(block, dict) and type(block.get("type")) is str for block in content)
    )


_tool_call = object_(
    {
        "id": string,
        "type": one_of("function"),
        "function": object_({"name": string, "arguments": string}),
    },
    {"index": _maybe_u32},
)
_plain_message = object_(
    {"role": string},
    {
        "content": anything,
        "tool_calls": or_null(array(_tool_call)),
        "tool_call_id": _maybe_string,
        "name": _maybe_string,
        "reasoning_content": _maybe_string,
    },
)


def _result_content(value: Any) -> str:
    if type(value) is str:
        return ""
    return _blocks(value) if type(value) is list else " must be a string or an array of blocks"


_block = tagged(
    "type",
    {
        "text": object_({"type": string, "text": string}, {"cache_control": anything}),
        "thinking": object_({"type": string, "thinking": string}, {"signature": _maybe_string}),
        "tool_use": object_(
            {"type": string, "id": string, "name": string, "input": anything},
            {"cache_control": anything},
        ),
        "tool_result": object_(
            {"type": string, "tool_use_id": string, "content": _result_content},
            {"name": _maybe_string, "cache_control": anything},
        ),
        "image": object_({"type": string, "source": anything}, {"cache_control": anything}),
    },
)
_blocks = array(_block)
_blocks_message = object_({"role": string, "content": _blocks})

MESSAGE: Final[Rule] = either(_plain_message, _blocks_message, lambda _message: False)
ENTRY: Final[Rule] = object_({"message": MESSAGE}, {"agent": string})

USAGE_OF_WHOLES: Final[Rule] = object_(
    {"prompt_tokens": _u32, "completion_tokens": _u32, "total_tokens": _u32},
    {
        "prompt_cache_hit_tokens": _maybe_u32,
        "prompt_cache_miss_tokens": _maybe_u32,
        "completion_tokens_details": or_null(object_({}, {"reasoning_tokens": _maybe_u32})),
    },
)
"""The usage object of the first dialect, whose counts include their details; in the second dialect
each count stands alone."""
_usage = either(
    USAGE_OF_WHOLES,
    object_(
        {"input_tokens": _u32, "output_tokens": _u32},
        {
            "cache_read_tokens": _u32,
            "cache_write_tokens": _u32,
            "reasoning_tokens": _u32,
            "server_tool_calls": map_of(_u32),
        },
    ),
    lambda usage: isinstance(usage, dict) and "input_tokens" in usage,
)
_call_started = object_({"id": string, "name": string}, {"arguments": string})
_events = {
    "tool_start": object_({"event": string, "calls": array(_call_started), "ts": string}),
    "tool_result": object_({"event": string, "call_id": string, "duration_ms": _u64, "ts": string}),
    "done": object_(
        {
            "event": string,
            "model": string,
            "iterations": _u64,
            "stop_reason": string,
            "usage": _usage,
            "ts": string,
        }
    ),
    "user_steered": object_({"event": string, "content": string, "ts": string}),
}
EVENT: Final[Rule] = tagged("event", _events)
