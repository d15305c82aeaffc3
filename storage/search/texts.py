"""The texts in a step, and the lines of them that match a query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from storage.errors import StoreError
from storage.formats.kinds import Kind, NotAStep, Step, classify
from storage.search.query import Query
from storage.session import meta
from storage.session.reader import NO_STEP, Reader

TOOL_ROLES: Final = frozenset({"tool", "function"})
COMPACTION_ROLE: Final = "compaction"
"""The role given to the summary in a legacy compaction."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text in a step, and its speaker; `part` is `"text"`, `"reasoning"`, `"call"` or `"result"`."""

    role: str
    part: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A line with a match; the first one is `line[start:end]`."""

    session: str
    step: int
    role: str
    part: str
    line: str
    start: int
    end: int


def hits(
    session_fd: int,
    session: str,
    steps: Iterable[tuple[int, str]],
    query: Query,
    unread: list[OSError],
) -> Iterator[Hit]:
    """Every matching line in these steps, given by number and name.

    Files that are not steps are skipped. Errors on a step are appended to `unread`, with the path in the
    store.
    """
    reader = Reader(session_fd)
    agent = _agent(session_fd) if query.agent is not None else None
    for number, name in steps:
        try:
            step = _read(reader, name, query)
        except OSError as error:
            unread.append(OSError(error.errno, error.strerror, f"{session}/{name}"))
            continue
        if step is not None and _is_by(step.value.get("agent") or agent, query):
            for text in texts(step):
                yield from _hits(session, number, text, query)


def texts(step: Step) -> Iterator[Text]:
    """The texts in a step of any dialect, in order."""
    if step.kind.is_entry:
        yield from _of_message(step.value["message"])
    elif step.kind is Kind.LEGACY_COMPACTION:
        yield Text(COMPACTION_ROLE, "text", step.value["compact"])
    elif step.kind is Kind.EVENT and step.value["event"] == "user_steered":
        yield Text("user", "text", step.value["content"])


def _read(reader: Reader, name: str, query: Query) -> Step | None:
    """Read a step to be searched; None if it cannot match, is out of time, or is not a step."""
    try:
        data = reader.read(name)
        if not query.may_match(data) or not query.in_time(reader.fd, name):
            return None
        return classify(data)
    except (NotAStep, FileNotFoundError):
        return None
    except OSError as error:
        if error.errno not in NO_STEP:
            raise
        return None


def _is_by(agent: str | None, query: Query) -> bool:
    return query.agent is None or (agent or "").lower() == query.agent.lower()


def _agent(session_fd: int) -> str | None:
    """The session's agent, who speaks unless a guest does; None if the meta does not tell."""
    try:
        value = orjson.loads(meta.read(session_fd)[0])
    except (OSError, StoreError, orjson.JSONDecodeError):
        return None
    agent = value.get("agent") if type(value) is dict else None
    return agent if type(agent) is str else None


def _hits(session: str, number: int, text: Text, query: Query) -> Iterator[Hit]:
    if text.part in ("call", "result") and not query.tools:
        return
    if query.role is not None and text.role.lower() != query.role.lower():
        return
    for line in text.text.splitlines():
        if found := query.pattern.search(line):
            yield Hit(session, number, text.role, text.part, line, found.start(), found.end())


def _of_message(message: dict[str, Any]) -> Iterator[Text]:
    role = message["role"]
    part = "result" if role.lower() in TOOL_ROLES else "text"
    if type(thought := message.get("reasoning_content")) is str:
        yield Text(role, "reasoning", thought)
    content = message.get("content")
    if type(content) is str:
        yield Text(role, part, content)
    elif type(content) is list:
        for block in content:
            yield from _of_block(role, part, block)
    elif content is not None:
        yield Text(role, part, _json(content))
    calls = message.get("tool_calls")
    for call in calls if type(calls) is list else ():
        function = call["function"]
        yield Text(role, "call", f"{function['name']} {function['arguments']}")


def _of_block(role: str, part: str, block: Any) -> Iterator[Text]:
    kind = block.get("type") if type(block) is dict else None
    if kind == "thinking" and type(block.get("thinking")) is str:
        yield Text(role, "reasoning", block["thinking"])
    elif kind == "text" and type(block.get("text")) is str:
        yield Text(role, part, block["text"])
    elif kind == "tool_use":
        yield Text(role, "call", f"{block.get('name')} {_json(block.get('input'))}")
    elif kind == "tool_result":
        content = block.get("content")
        for inner in content if type(content) is list else ({"type": "text", "text": content},):
            yield from _of_block("tool", "result", inner)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
