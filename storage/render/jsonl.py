"""Renders steps as lines of the JSONL views: `log.jsonl`, `history.jsonl` and `messages.jsonl`."""

from __future__ import annotations

from typing import Any

import orjson

from storage.formats.dialects import is_blocks
from storage.formats.jsontext import WHITE_SPACE, items, member, one_line
from storage.formats.kinds import Step

_MESSAGE_FIRST = b'{"message":'


def log_line(step: Step) -> bytes:
    """The line of a step in `log.jsonl` and `history.jsonl` (G1)."""
    return (step.data if step.is_line else one_line(step.data)) + b"\n"


def message_line(step: Step) -> bytes:
    """The line of an entry in `messages.jsonl` (G2): the message's own bytes.

    If a guest agent spoke as the assistant, its text is wrapped in a tag that names it: the whole
    content if that is a string, else each text block. No other value is encoded again.
    """
    if step.is_line and len(step.value) == 1:
        return step.data[len(_MESSAGE_FIRST) : -1] + b"\n"
    message = one_line(_message(step))
    agent = step.value.get("agent")
    if agent and step.value["message"]["role"] == "assistant":
        message = _as_guest(message, step.value["message"].get("content"), agent)
    return message + b"\n"


def archive_line(name: str, text: str | None, blocks: bool = False) -> bytes:
    """The first line of `messages.jsonl` after a compaction with the archive `name` (G2).

    It is a user message with the archive's `text`, or with a placeholder if `text` is None. `blocks`
    selects the dialect whose content is an array of blocks.
    """
    told = f"[archived context unavailable: {name}]" if text is None else text
    content = [{"type": "text", "text": told}] if blocks else told
    return orjson.dumps({"role": "user", "content": content}) + b"\n"


def _as_guest(message: bytes, content: Any, agent: str) -> bytes:
    if not is_blocks(content):
        return _with_content(message, _told(agent, content if isinstance(content, str) else ""))
    start, end = _found(member(message, "content"))
    written = message[start:end]
    parts, done = [message[:start]], 0
    for block, (first, last) in zip(content, items(written), strict=True):
        if block["type"] == "text" and isinstance(block.get("text"), str):
            from_, to = _found(member(written[first:last], "text"))
            parts += [written[done : first + from_], orjson.dumps(_told(agent, block["text"]))]
            done = first + to
    return b"".join([*parts, written[done:], message[end:]])


def _told(agent: str, text: str) -> str:
    return f'<from agent="{agent}">\n{text}\n</from>'


def _message(step: Step) -> bytes:
    data = step.data
    if len(step.value) == 1 and data.startswith(_MESSAGE_FIRST):
        return data.rstrip(WHITE_SPACE)[len(_MESSAGE_FIRST) : -1]
    start, end = _found(member(data, "message"))
    return data[start:end]


def _found(span: tuple[int, int] | None) -> tuple[int, int]:
    if span is None:
        raise ValueError("a member that the value has is not in its bytes")
    return span


def _with_content(message: bytes, content: str) -> bytes:
    encoded = orjson.dumps(content)
    span = member(message, "content")
    if span is None:
        return message[:-1] + b',"content":' + encoded + b"}"
    return message[: span[0]] + encoded + message[span[1] :]
