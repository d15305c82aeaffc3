"""Renders entries of the history as Markdown for people: `history.md`.

Each entry is a section that begins with a heading and ends with an empty line, so that the file is a
sequence of sections and only ever grows (G13). Both dialects look the same: speaker, reasoning, text,
tool calls with pretty-printed input; a tool's result is a section of its own. Text is shown unchanged,
with two exceptions. Control characters other than tab and line feed are replaced by their pictures
(`␛` for ESC), so that no text can drive the reader's terminal. And text is framed: blocks that it leaves
open are closed, and its headings rank below the speakers'.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Final

from storage.formats.kinds import Step
from storage.render.framing import framed
from storage.render.pieces import code, fenced, json_fenced, named, reasoning, size, visible
from storage.render.pretty import LEFT_OUT, PARTS_MAX, Room

LINES_MAX: Final = 200
CHARACTERS_MAX: Final = 16 << 10

_TOOL_ROLES: Final = frozenset({"tool", "function"})


@dataclass(frozen=True, slots=True)
class About:
    """What is known about an entry besides its document."""

    number: int = 0
    """The number of its step; 0 to show none."""
    time: str = ""
    """When it was stored, as text; empty to show none."""
    tool_name: Callable[[str], str | None] = lambda _call_id: None
    """Returns the name of the tool that an earlier entry called with this id, or None."""


NOTHING: Final = About()
EMPTY: Final = "*(empty)*"
_NO_MORE: Final = object()


def entry(step: Step, about: About = NOTHING) -> bytes:
    """The section of an entry, or several: a tool's results have sections of their own.

    A result longer than `LINES_MAX` lines or `CHARACTERS_MAX` characters is cut to that: three
    quarters of it from the beginning and one from the end, with a note of what is left out between.
    """
    message: dict[str, Any] = step.value["message"]
    speaker, after = _speaker(message, step.value.get("agent"), about), _after(about)
    if _is_text_alone(message):
        text = "\n\n".join(_text(message, message["content"]))
        return f"## {speaker}{after}\n\n{text or EMPTY}\n\n".encode()
    room, pieces = Room(), list[str]()
    shown = _parts(message)
    for is_result, parts in groupby(islice(shown, PARTS_MAX), _is_result):
        if is_result:
            for block in parts:
                pieces += _result_section(block, after, about, room)
        else:
            pieces.append(f"## {speaker}{after}")
            said = [piece for part in parts for piece in _said(message, part, room)]
            pieces += said or [EMPTY]
    if next(shown, _NO_MORE) is not _NO_MORE:
        pieces.append(LEFT_OUT)
    return ("\n\n".join(pieces) + "\n\n").encode()


def calls(step: Step) -> dict[str, str]:
    """The tool calls in an entry: tool names by call id."""
    parts = islice(_parts(step.value["message"]), PARTS_MAX)
    uses = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_use"]
    return {u["id"]: u["name"] for u in uses if _is_text(u, "id") and _is_text(u, "name")}


def head(slug: str, created_at: str) -> bytes:
    """The head of the file: the slug, and `created_at` (RFC 3339; `""` if unknown) as a sentence."""
    begun = f"Begun {visible(created_at[:19]).replace('T', ' ')}. " if created_at else ""
    return f"# {code(slug)}\n\n{begun}Times are in UTC.\n\n".encode()


def archive(name: str, text: str | None) -> bytes:
    """The section after the head in a history that follows a compaction with the archive `name`.

    `text` is the archive's text, None if it is unknown.
    """
    if text is None:
        body = f"*The text of the archive {code(name)} is not available.*"
    else:
        body = framed(visible(text)) or EMPTY
    return f"## Archived context {code(name)}\n\n{body}\n\n---\n\n".encode()


def _speaker(message: dict[str, Any], agent: str | None, about: About) -> str:
    role: str = message["role"]
    words = [role if role.isidentifier() else code(role)]
    if agent:
        words.append(f"(guest agent {code(agent)})")
    call_id = message["tool_call_id"] if _is_text(message, "tool_call_id") else None
    name = message["name"] if _is_text(message, "name") else call_id and about.tool_name(call_id)
    words += [code(word) for word in (name, call_id) if word]
    return " ".join(words)


def _after(about: About) -> str:
    told = [f"step {about.number}"] if about.number else []
    return "".join(f" · {word}" for word in [*told, about.time] if word)


def _is_text_alone(message: dict[str, Any]) -> bool:
    """Whether the message is a single text, as most are."""
    get = message.get
    return (
        isinstance(get("content"), str)
        and get("reasoning_content") is None
        and get("tool_calls") is None
    )


class _Arguments(str):
    """A call's input given as a string, which should be JSON."""


def _parts(message: dict[str, Any]) -> Iterator[Any]:
    """The parts of a message as blocks, in display order."""
    if _is_text(message, "reasoning_content"):
        yield {"type": "thinking", "thinking": message["reasoning_content"]}
    content, calls = message.get("content"), message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    if isinstance(content, list) and content:
        yield from content
    elif content not in (None, []) or not calls:
        yield content or None
    for call in calls:
        if isinstance(call, dict) and isinstance(function := call.get("function"), dict):
            name, given = function.get("name"), function.get("arguments")
            given = _Arguments(given) if isinstance(given, str) else given
            yield {"type": "tool_use", "id": call.get("id"), "name": name, "input": given}


def _is_result(part: object) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") == "tool_result"
        and isinstance(part.get("tool_use_id"), str)
    )


def _said(message: dict[str, Any], part: Any, room: Room) -> Iterator[str]:
    """The Markdown of one part of a speaker's message."""
    if isinstance(part, dict) and isinstance(part.get("type"), str):
        yield from _block(message, part, room)
    elif isinstance(part, str):
        yield from _text(message, part)
    elif part is not None:
        yield json_fenced(part, room)


def _block(message: dict[str, Any], block: dict[str, Any], room: Room) -> Iterator[str]:
    kind = block["type"]
    if _is_text(block, "text", empty=True):
        yield from _text(message, block["text"])
    elif kind == "thinking" and _is_text(block, "thinking", empty=True):
        if block["thinking"].strip():
            yield reasoning(block["thinking"])
    elif kind == "tool_use" and _is_text(block, "name", empty=True):
        call_id = f" {code(block['id'])}" if _is_text(block, "id") else ""
        yield f"### Calls {code(block['name'])}{call_id}"
        yield _laid_out(block.get("input"), room)
    else:
        yield named(block)


def _laid_out(given: object, room: Room) -> str:
    if not isinstance(given, _Arguments):
        return json_fenced(given, room)
    try:
        return json_fenced(json.loads(given), room)
    except (ValueError, RecursionError):
        return fenced(visible(given))


def _text(message: dict[str, Any], text: str) -> Iterator[str]:
    if message["role"] in _TOOL_ROLES:
        yield from _cut(visible(text))
    elif shown := framed(visible(text)):
        yield shown


def _result_section(block: dict[str, Any], after: str, about: About, room: Room) -> Iterator[str]:
    """A tool's result: the tool's name, its own or that of the call with its id, and the content."""
    call_id: str = block["tool_use_id"]
    name = block["name"] if _is_text(block, "name") else about.tool_name(call_id)
    failed = " failed" if block.get("is_error") is True else ""
    words = " ".join(code(word) for word in (name, call_id) if word)
    yield f"## tool {words}".rstrip() + f"{failed}{after}"
    content = block.get("content")
    shown: list[str] = []
    parts = content if isinstance(content, list) else [content]
    for part in parts[:PARTS_MAX]:
        if isinstance(part, str) or (isinstance(part, dict) and _is_text(part, "text", empty=True)):
            shown += _cut(visible(part if isinstance(part, str) else part["text"]))
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            shown.append(named(part))
        elif part is not None:
            shown.append(json_fenced(part, room))
    if len(parts) > PARTS_MAX:
        shown.append(LEFT_OUT)
    yield from shown or [EMPTY]


def _is_text(value: dict[str, Any], key: str, empty: bool = False) -> bool:
    found = value.get(key)
    return isinstance(found, str) and (empty or bool(found))


def _cut(text: str) -> Iterator[str]:
    """A tool's result in a fence; a long one loses its middle."""
    if len(text) <= CHARACTERS_MAX and text.count("\n") <= LINES_MAX:
        if text:
            yield fenced(text)
        return
    text = text.rstrip("\n")
    start = _whole_lines(text, 3)
    end = len(text) - _whole_lines(text[: -CHARACTERS_MAX - 1 : -1], 1)
    if start >= end:
        yield fenced(text)
        return
    end += text.startswith("\n", end)
    left_out = text[start:end]
    lines, left_size = left_out.count("\n"), size(len(left_out.encode()))
    yield fenced(text[:start])
    yield f"*… {lines:,} lines, {left_size}, left out here; history.jsonl has all …*"
    yield fenced(text[end:])


def _whole_lines(text: str, quarters: int) -> int:
    """How many characters of a long text to show; whole lines, unless that shows less than half."""
    characters = CHARACTERS_MAX * quarters // 4
    at = 0
    for _ in range(LINES_MAX * quarters // 4):
        following = text.find("\n", at, characters) + 1
        if not following:
            return at if at >= characters // 2 else characters
        at = following
    return at
