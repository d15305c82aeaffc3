"""An entry of the history as Markdown, for people: `history.md`.

Every entry is a block that begins with a heading and ends with an empty line, so that the file is
the blocks one after the other and only ever grows (G13). Text is shown as it is, with two
exceptions. Control characters other than tab and line feed are shown as their pictures (`␛` for
ESC), so that no text drives the terminal it is read in. And what a text leaves open (a code fence,
an HTML comment) is closed after it, so that it does not swallow what others say next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from storage.formats.kinds import Step
from storage.render.pretty import LEFT_OUT, PARTS_MAX, Room

LINES_MAX: Final = 200
CHARACTERS_MAX: Final = 16 << 10
NAME_MAX: Final = 500

_TOOL_ROLES: Final = frozenset({"tool", "function"})
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BACKTICKS: Final = re.compile("`+")
_LIST_ITEM: Final = re.compile(r" {0,3}(?:[-+*]|[0-9]{1,9}[.)])(?: {1,4}(?=[^ ])| |$)")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")
_HTML: Final = (
    (r"<!--", r"-->", "-->"),
    (r"<\?", r"\?>", "?>"),
    (r"<!\[CDATA\[", r"\]\]>", "]]>"),
    (r"<![A-Za-z]", r">", ">"),
    (r"<(?i:pre|script|style|textarea)(?=[\s>]|$)", r"</(?i:pre|script|style|textarea)>", "</pre>"),
)


def entry(step: Step) -> bytes:
    """The block of an entry: who speaks, reasoning, text, tool calls; a tool's result is fenced.

    Of a result of more than `LINES_MAX` lines or `CHARACTERS_MAX` characters that much is shown,
    three quarters from its beginning, with a note of what is left out before its end.
    """
    message: dict[str, Any] = step.value["message"]
    room = Room()
    blocks = [_heading(message, step.value.get("agent"))]
    if reasoning := message.get("reasoning_content"):
        blocks.append(_quoted(visible(reasoning)))
    blocks += _content(message.get("content"), message["role"] in _TOOL_ROLES, room)
    calls = message.get("tool_calls") or []
    for call in calls[:PARTS_MAX]:
        blocks += _call(call, room)
    if len(calls) > PARTS_MAX:
        blocks.append(LEFT_OUT)
    if len(blocks) == 1:
        blocks.append("*(empty)*")
    return ("\n\n".join(blocks) + "\n\n").encode()


def archive(name: str, text: str | None) -> bytes:
    """How the file begins after a compaction with the archive `name`; `text` is None if unknown."""
    if text is None:
        body = f"*The text of the archive {_code(name)} is not available.*"
    else:
        body = _closed(visible(text)) or "*(empty)*"
    return f"# Archived context {_code(name)}\n\n{body}\n\n---\n\n".encode()


def visible(text: str) -> str:
    """`text` with its control characters as pictures, and line ends as line feeds."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _CONTROL.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def _heading(message: dict[str, Any], agent: str | None) -> str:
    role: str = message["role"]
    words = ["##", role if role.isidentifier() else _code(role)]
    if agent:
        words.append(f"(guest agent {_code(agent)})")
    words += [_code(message[key]) for key in ("name", "tool_call_id") if message.get(key)]
    return " ".join(words)


def _content(content: object, fenced: bool, room: Room) -> Iterator[str]:
    parts = content if isinstance(content, list) else [content]
    yield from _parts(parts[:PARTS_MAX], fenced, room)
    if len(parts) > PARTS_MAX:
        yield LEFT_OUT


def _parts(parts: list[Any], fenced: bool, room: Room) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            if fenced:
                yield from _result(visible(text))
            elif shown := _closed(visible(text)):
                yield shown
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            yield _named(part)
        elif part is not None:
            yield _json(part, room)


def _named(part: dict[str, Any]) -> str:
    """A part that is no text: its type and what it is, never its data."""
    kind: str = part["type"]
    inner = part.get(kind)
    source = inner.get("url") if isinstance(inner, dict) else inner
    words = [_code(kind)]
    if isinstance(source, str) and source.startswith("data:"):
        media, _, data = source[5:].partition(",")
        size = len(data) * 3 // 4 if media.endswith(";base64") else len(data)
        words.append(f"{_code(media.split(';')[0] or 'text/plain')}, {_size(size)}")
    elif isinstance(source, str):
        words.append(_code(source))
    elif isinstance(inner, dict):
        words += [
            _code(inner[key]) for key in ("filename", "name", "format") if _is_text(inner, key)
        ]
    return f"*[{' '.join(words)}]*"


def _is_text(value: dict[str, Any], key: str) -> bool:
    return isinstance(value.get(key), str)


def _call(call: dict[str, Any], room: Room) -> Iterator[str]:
    function = call["function"]
    yield f"### Calls {_code(function['name'])} {_code(call['id'])}".rstrip()
    try:
        yield _json(json.loads(function["arguments"]), room)
    except (ValueError, RecursionError):
        yield _fenced(visible(function["arguments"]))


def _json(value: object, room: Room) -> str:
    text, whole = room.pretty(value)
    if not text:
        return LEFT_OUT
    block = _fenced(visible(text), "json")
    return block if whole else f"{block}\n\n{LEFT_OUT}"


def _result(text: str) -> Iterator[str]:
    if len(text) <= CHARACTERS_MAX and text.count("\n") <= LINES_MAX:
        if text:
            yield _fenced(text)
        return
    text = text.rstrip("\n")
    start = _whole_lines(text, 3)
    end = len(text) - _whole_lines(text[: -CHARACTERS_MAX - 1 : -1], 1)
    if start >= end:
        yield _fenced(text)
        return
    end += text.startswith("\n", end)
    left_out = text[start:end]
    lines, size = left_out.count("\n"), _size(len(left_out.encode()))
    yield _fenced(text[:start])
    yield f"*… {lines:,} lines, {size}, left out here; history.jsonl has all …*"
    yield _fenced(text[end:])


def _whole_lines(text: str, quarters: int) -> int:
    """How many characters to show of a long text, in whole lines where that is not much less."""
    characters = CHARACTERS_MAX * quarters // 4
    at = 0
    for _ in range(LINES_MAX * quarters // 4):
        following = text.find("\n", at, characters) + 1
        if not following:
            return at if at >= characters // 2 else characters
        at = following
    return at


def _fenced(text: str, language: str = "") -> str:
    longest = max((run.end() - run.start() for run in _BACKTICKS.finditer(text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"


def _quoted(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    return "> *Reasoning*\n>\n" + "\n".join(f"> {line}".rstrip() for line in lines)


def _code(text: str) -> str:
    """`text` as a code span on one line; a very long one is cut."""
    line = " ".join(visible(text[:NAME_MAX]).split()) or " "
    if len(text) > NAME_MAX:
        line += "…"
    longest = max(map(len, _BACKTICKS.findall(line)), default=0)
    marks = "`" * (longest + 1)
    return f"{marks} {line} {marks}" if longest else f"{marks}{line}{marks}"


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} bytes"
    return f"{size / 1024:,.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):,.1f} MiB"


def _closed(text: str) -> str:
    """`text` with its open fence or HTML block closed, by the rules of CommonMark.

    What a list item or a quotation holds matters not: it ends with them, at the next heading.
    """
    text = text.rstrip("\n")
    if not text.strip():
        return ""
    if "```" not in text and "~~~" not in text and "<" not in text:
        return text
    end: re.Pattern[str] | None = None
    closing, item = "", 0
    for line in text.split("\n"):
        if end is None:
            item = _item(line, item)
            if not item:
                end, closing = _opened(line)
        elif end.search(line):
            end = None
    return f"{text}\n{closing}" if end else text


def _item(line: str, item: int) -> int:
    """The column at which the content of the list item begins that `line` is in, 0 outside one."""
    if marker := _LIST_ITEM.match(line):
        return marker.end()
    indent = len(line) - len(line.lstrip(" "))
    return item if indent >= item or indent == len(line) else 0


def _opened(line: str) -> tuple[re.Pattern[str] | None, str]:
    """What ends the block that `line` opens and leaves open, and a line that does so."""
    if (fence := _FENCE.match(line)) and not (fence[1][0] == "`" and "`" in fence[2]):
        mark = fence[1]
        return re.compile(rf"^ {{0,3}}{mark[0]}{{{len(mark)},}}[ \t]*$"), mark
    for begins, ends, closing in _HTML if "<" in line[:4] else ():
        if re.match(" {0,3}" + begins, line):
            return (None, "") if re.search(ends, line) else (re.compile(ends), closing)
    return None, ""
