"""Searching the steps of sessions for a pattern, those before a compaction too.

A step's bytes tell in most cases that nothing in it matches: the pattern's own text would stand in them
as it is. Only the others are parsed. What tools were given and what they answered is left out unless it
is asked for: it carries credentials more often than words.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from storage.errors import StoreError
from storage.formats.kinds import Kind, NotAStep, Step, classify
from storage.posix import close_all, is_regular, open_directory, reopened
from storage.session import meta
from storage.session.reader import NO_STEP, Reader
from storage.session.steps import NUMBER_MAX, READ_FLAGS, step_number

TOOL_ROLES: Final = frozenset({"tool", "function"})
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What opening a session answers that was deleted meanwhile."""
LOOK_BYTES: Final = 16 << 10
"""What is longer is looked at when it is read."""
LOOK_STEPS: Final = 32
"""So many are looked at together."""
COMPACTION_ROLE: Final = "compaction"
"""Who speaks in the summary of a legacy compaction."""

_RUN: Final = re.compile(r"[A-Za-z0-9 _,;:<>=!@#%&'~`-]+")
"""Text that is itself in a pattern, and in JSON either itself or escaped as `\\uXXXX`."""
_NOT_TEXT: Final = re.compile(
    r"\\.|\[\^?(?:\\.|.)(?:\\.|[^]\\])*\]|.(?=[?*{])|\{[^}]*\}", re.DOTALL
)
"""Parts of a pattern that need not occur in a match: escapes, classes, optional items."""
_BEYOND: Final = re.compile(r"[|()]|\\[^\WbBdDsSwWAZ]")
"""Characters that make what follows them in a pattern no literal either."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a step, and whose: `part` is `"text"`, `"reasoning"`, `"call"` or `"result"`."""

    role: str
    part: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A line of a text in which the pattern was found, at `start` to `end` for the first time."""

    session: str
    step: int
    role: str
    part: str
    line: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, and where.

    `role` and `agent`, the session's or a guest's, are compared without regard to case; `since` and
    `until` are seconds since 1970, of the moment a step was stored (its file's mtime).
    """

    pattern: re.Pattern[str]
    literal: bytes = b""
    """A literal that occurs in every match; see `needed`."""
    ignore_case: bool = False
    role: str | None = None
    agent: str | None = None
    since: float | None = None
    until: float | None = None
    tools: bool = False
    """Whether arguments and results of tools are looked at."""

    def may_match(self, data: bytes) -> bool:
        """Whether a step of these bytes can match at all; never False for one that does."""
        if self.literal in data or (b"\\" in data and b"\\u" in data):
            return True
        return self.ignore_case and (self.literal in data.lower() or not data.isascii())

    def in_time(self, session_fd: int, name: str) -> bool:
        """Whether that step was stored when it should have been."""
        if self.since is None and self.until is None:
            return True
        stored = os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_mtime
        return (self.since is None or stored >= self.since) and (
            self.until is None or stored <= self.until
        )


def needed(pattern: str, *, fixed: bool = False, ignore_case: bool = False) -> bytes:
    """The longest literal that occurs in every match of `pattern`; `b""` if there is none.

    `fixed` says that the pattern is a text. In lower case if case is ignored.
    """
    if not fixed:
        if _BEYOND.search(pattern):
            return b""
        pattern = _NOT_TEXT.sub("\n", pattern)
    longest = max(_RUN.findall(pattern), key=len, default="")
    return (longest.lower() if ignore_case else longest).encode()


def sessions(store: int) -> list[str]:
    """The directories below an open store that may be sessions, in their order. Raises `OSError`."""
    with reopened(store) as own, os.scandir(own) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
        )


def search_sessions(store: int, slugs: Iterable[str], query: Query) -> Iterator[Hit]:
    """Every line that matches in these sessions of an open store; what is no session has none.

    Raises `OSError` as `search`.
    """
    for slug in slugs:
        try:
            session = open_directory(slug, store)
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        try:
            hits = list(search(session, slug, query))
            if hits and is_regular(meta.NAME, session):
                yield from hits
        finally:
            os.close(session)


def search(session_fd: int, session: str, query: Query) -> Iterator[Hit]:
    """Every line that matches, in the order of the steps; what is no step is passed over.

    Nobody else lists through `session_fd` meanwhile. Raises `OSError` where the session cannot be
    listed or a step not be read.
    """
    promising = sorted(_promising(session_fd, query))
    if not promising:
        return
    reader = Reader(session_fd)
    agent = _agent(session_fd) if query.agent is not None else None
    for number, name in promising:
        step = _read(reader, name, query)
        if step is not None and _is_by(step.value.get("agent") or agent, query):
            for text in texts(step):
                yield from _hits(session, number, text, query)


def texts(step: Step) -> Iterator[Text]:
    """What was said in a step, in any dialect, in its order."""
    if step.kind is Kind.ENTRY:
        yield from _of_message(step.value["message"])
    elif step.kind is Kind.LEGACY_COMPACTION:
        yield Text(COMPACTION_ROLE, "text", step.value["compact"])
    elif step.kind is Kind.EVENT and step.value["event"] == "user_steered":
        yield Text("user", "text", step.value["content"])


def _promising(session_fd: int, query: Query) -> Iterator[tuple[int, str]]:
    """Number and name of each step that can match by a quick look, in the order of the listing."""
    with os.scandir(session_fd) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.startswith("step-") and entry.is_file(follow_symlinks=False)
        ]
    flags = _flags(session_fd)
    for at in range(0, len(names), LOOK_STEPS):
        some = names[at : at + LOOK_STEPS]
        for name in _looked_at(session_fd, some, flags, query) if query.literal else some:
            number = step_number(name)
            if number is not None and number <= NUMBER_MAX:
                yield number, name


def _flags(session_fd: int) -> int:
    """How steps are opened; what is only looked at keeps its time of access where that may be (G4)."""
    user = os.geteuid()
    may_keep = user == 0 or user == os.fstat(session_fd).st_uid
    return READ_FLAGS | os.O_NOATIME if may_keep else READ_FLAGS


def _looked_at(session_fd: int, names: list[str], flags: int, query: Query) -> Iterable[str]:
    """Which of a few steps can match: mostly none, as one look at the bytes of all of them tells.

    Most of a search is this, so it makes no more calls than it must. Steps that are not as most are
    can match: whoever reads them then will see.
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(name, flags, dir_fd=session_fd) for name in names)
        looks = [os.read(descriptor, LOOK_BYTES) for descriptor in opened]
    except OSError:
        return names
    finally:
        close_all(opened)
    if max(map(len, looks)) < LOOK_BYTES and not query.may_match(b"\n".join(looks)):
        return ()
    return [
        name
        for name, look in zip(names, looks, strict=True)
        if len(look) == LOOK_BYTES or query.may_match(look)
    ]


def _read(reader: Reader, name: str, query: Query) -> Step | None:
    """The step that is to be searched, None if there is none of that name, or not of that time."""
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
    """Who speaks in the session but for guests; None if its meta does not tell."""
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
