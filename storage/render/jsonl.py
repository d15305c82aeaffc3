"""The lines that steps become in the views: `log.jsonl` and `history.jsonl`, `messages.jsonl`."""

from __future__ import annotations

import orjson

from storage.formats.jsontext import WHITE_SPACE, member, one_line
from storage.formats.kinds import Step

_MESSAGE_FIRST = b'{"message":'


def log_line(data: bytes) -> bytes:
    """The line of the step with the bytes `data` in `log.jsonl` and `history.jsonl` (G1)."""
    return one_line(data) + b"\n"


def message_line(step: Step) -> bytes:
    """The line of an entry in `messages.jsonl` (G2): its message's own bytes.

    Where an agent other than the session's own spoke as assistant, the content tells its name; no
    other value is encoded again.
    """
    message = one_line(_message(step))
    agent = step.value.get("agent")
    if agent and step.value["message"]["role"] == "assistant":
        content = step.value["message"].get("content")
        text = content if isinstance(content, str) else ""
        message = _with_content(message, f'<from agent="{agent}">\n{text}\n</from>')
    return message + b"\n"


def archive_line(name: str, text: str | None) -> bytes:
    """The first line of `messages.jsonl` after a compaction with the archive `name` (G2).

    It is a user message with the archive's `text`, or with a placeholder where that is unknown.
    """
    content = f"[archived context unavailable: {name}]" if text is None else text
    return orjson.dumps({"role": "user", "content": content}) + b"\n"


def _message(step: Step) -> bytes:
    data = step.data
    if len(step.value) == 1 and data.startswith(_MESSAGE_FIRST):
        return data.rstrip(WHITE_SPACE)[len(_MESSAGE_FIRST) : -1]
    return _at(data, member(data, "message"))


def _at(data: bytes, span: tuple[int, int] | None) -> bytes:
    if span is None:
        raise ValueError("an entry without a message")
    return data[span[0] : span[1]]


def _with_content(message: bytes, content: str) -> bytes:
    encoded = orjson.dumps(content)
    span = member(message, "content")
    if span is None:
        return message[:-1] + b',"content":' + encoded + b"}"
    return message[: span[0]] + encoded + message[span[1] :]
