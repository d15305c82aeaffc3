"""Markdown constructs that no text inside them can break out of."""

from __future__ import annotations

import re
from typing import Any, Final

from storage.render.pretty import LEFT_OUT, Room

NAME_MAX: Final = 500

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BACKTICKS: Final = re.compile("`+")


def visible(text: str) -> str:
    """`text` with control characters replaced by their pictures, and CRLF line ends by line feeds."""
    if text.replace("\n", "").isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _CONTROL.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def code(text: str) -> str:
    """`text` as a code span on one line, cut to `NAME_MAX` characters."""
    line = " ".join(visible(text[:NAME_MAX]).split()) or " "
    if len(text) > NAME_MAX:
        line += "…"
    longest = max(map(len, _BACKTICKS.findall(line)), default=0)
    marks = "`" * (longest + 1)
    return f"{marks} {line} {marks}" if longest else f"{marks}{line}{marks}"


def fenced(text: str, language: str = "") -> str:
    """`text` in a code fence longer than any run of backticks in it."""
    longest = max((run.end() - run.start() for run in _BACKTICKS.finditer(text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"


def json_fenced(value: object, room: Room) -> str:
    """A JSON value, pretty-printed in a fence as far as `room` allows."""
    text, whole = room.pretty(value)
    if not text:
        return LEFT_OUT
    block = fenced(visible(text), "json")
    return block if whole else f"{block}\n\n{LEFT_OUT}"


def reasoning(text: str) -> str:
    """A speaker's reasoning as a block quote."""
    lines = visible(text).rstrip("\n").split("\n")
    return "> *Reasoning*\n>\n" + "\n".join(f"> {line}".rstrip() for line in lines)


def size(bytes_: int) -> str:
    """A number of bytes in readable units."""
    if bytes_ < 1024:
        return f"{bytes_} bytes"
    return f"{bytes_ / 1024:,.1f} KiB" if bytes_ < 1 << 20 else f"{bytes_ / (1 << 20):,.1f} MiB"


def named(part: dict[str, Any]) -> str:
    """A placeholder for a part that is not text: its type and a description, never its data."""
    kind: str = part["type"]
    words = [code(kind)]
    for inner in (part.get(kind), part.get("source"), part):
        if told := _source(inner):
            words += told
            break
    return f"*[{' '.join(words)}]*"


def _source(inner: object) -> list[str]:
    """A description of an image, a sound or a document."""
    if isinstance(inner, dict):
        url = inner.get("url")
        if isinstance(url, str):
            return _source(url)
        keys = ("filename", "name", "media_type", "format")
        words = [code(inner[key]) for key in keys if isinstance(inner.get(key), str)]
        data = inner.get("data")
        if isinstance(data, str):
            told = size(_decoded_size(data) if inner.get("type") != "text" else len(data.encode()))
            words = [*words[:-1], f"{words[-1]}, {told}"] if words else [told]
        return words
    if isinstance(inner, str) and inner.startswith("data:"):
        media, _, data = inner[5:].partition(",")
        length = _decoded_size(data) if media.endswith(";base64") else len(data)
        return [f"{code(media.split(';')[0] or 'text/plain')}, {size(length)}"]
    return [code(inner)] if isinstance(inner, str) else []


def _decoded_size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")
