"""Which document is which kind of step: compaction, legacy compaction, event, entry, or none.

The kinds are tried in this order and the first that fits wins. A kind is a `Rule`: a function
that tells what keeps a value from fitting, as a path and a reason, or `""` when it fits. Rules for
objects know the keys of a kind; a known key that occurs twice does not fit, other keys are ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from storage.formats.jsontext import NotJSON, Repeating, exact, parse

Rule = Callable[[Any], str]

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


class Kind(enum.Enum):
    """The kinds of step, in the order in which they are tried."""

    COMPACTION = "compaction"
    LEGACY_COMPACTION = "legacy compaction"
    EVENT = "event"
    ENTRY = "entry"

    @property
    def is_compaction(self) -> bool:
        """Whether the history begins anew after a step of this kind."""
        return self is Kind.COMPACTION or self is Kind.LEGACY_COMPACTION


class NotAStep(ValueError):  # noqa: N818 - it says what the document is
    """A document that is no step; `sentence` says what is wrong and what would be right."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its kind, its JSON value, and the bytes of its file."""

    kind: Kind
    value: dict[str, Any]
    data: bytes

    @property
    def archive(self) -> str | None:
        """The name of the archive that a compaction points to; a legacy one has none."""
        if self.kind is Kind.COMPACTION:
            name: str = self.value["archive_name"]
            return name
        return None


def classify(data: bytes) -> Step:
    """The step that a file with the bytes `data` is.

    Raises `NotAStep` where the reference would skip the file, and for the forms that are
    deliberately no steps (arrays in place of objects, numbers as names of events).
    """
    try:
        value = parse(data)
    except NotJSON as error:
        raise NotAStep(error.sentence) from None
    return classify_value(value, data)


def classify_value(value: Any, data: bytes) -> Step:
    """As `classify`, for who has parsed `data` already: `value` is what it holds."""
    if type(value) is not dict:
        raise NotAStep("a step must be one JSON object")
    judged = exact(data, value)
    for kind, mark, rule in _KINDS:
        if mark in value and not rule(judged):
            return Step(kind, value, data)
    raise NotAStep(_why_not(judged))


def _why_not(value: dict[str, Any]) -> str:
    for kind, mark, rule in _KINDS:
        if mark in value:
            article = "an" if kind.value[0] in "aeiou" else "a"
            return f"not {article} {kind.value}: {rule(value).removeprefix('.')}"
    return "a step must have one of the keys message, event, archive_name"


def _anything(_value: Any) -> str:
    return ""


def _string(value: Any) -> str:
    return "" if type(value) is str else " must be a string"


def _one_of(*names: str) -> Rule:
    reason = " must be " + " or ".join(f'"{name}"' for name in names)

    def rule(value: Any) -> str:
        return "" if type(value) is str and value in names else reason

    return rule


def _integer(greatest: int) -> Rule:
    reason = f" must be an integer from 0 to {greatest}, written in digits alone"

    def rule(value: Any) -> str:
        return "" if type(value) is int and 0 <= value <= greatest else reason

    return rule


def _or_null(rule: Rule) -> Rule:
    def or_null(value: Any) -> str:
        if value is None:
            return ""
        wrong = rule(value)
        return f"{wrong}, or null" if wrong.startswith(" must be ") else wrong

    return or_null


def _array(rule: Rule) -> Rule:
    def array(value: Any) -> str:
        if type(value) is not list:
            return " must be an array"
        for index, item in enumerate(value):
            if wrong := rule(item):
                return f"[{index}]{wrong}"
        return ""

    return array


def _object(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    rules = {**required, **(optional or {})}
    rule_of = rules.get

    def object_(value: Any) -> str:
        if type(value) is not dict:
            if type(value) is not Repeating:
                return " must be an object"
            for key in rules:
                if key in value.keys_repeated:
                    return f".{key} must occur only once"
        for key in required:
            if key not in value:
                return f".{key} is missing"
        for key, item in value.items():
            if (rule := rule_of(key)) and (wrong := rule(item)):
                return f".{key}{wrong}"
        return ""

    return object_


_u32 = _integer(U32_MAX)
_u64 = _integer(U64_MAX)
_maybe_string = _or_null(_string)
_maybe_u32 = _or_null(_u32)

_compaction = _object({"archive_name": _string, "archived_at": _string})
_legacy_compaction = _object({"compact": _string}, {"title": _string, "archived_at": _string})

_usage = _object(
    {"prompt_tokens": _u32, "completion_tokens": _u32, "total_tokens": _u32},
    {
        "prompt_cache_hit_tokens": _maybe_u32,
        "prompt_cache_miss_tokens": _maybe_u32,
        "completion_tokens_details": _or_null(_object({}, {"reasoning_tokens": _maybe_u32})),
    },
)
_call_started = _object({"id": _string, "name": _string}, {"arguments": _string})
_events = {
    "tool_start": _object({"event": _string, "calls": _array(_call_started), "ts": _string}),
    "tool_result": _object(
        {"event": _string, "call_id": _string, "duration_ms": _u64, "ts": _string}
    ),
    "done": _object(
        {
            "event": _string,
            "model": _string,
            "iterations": _u64,
            "stop_reason": _string,
            "usage": _usage,
            "ts": _string,
        }
    ),
    "user_steered": _object({"event": _string, "content": _string, "ts": _string}),
}
_event_name = _one_of(*_events)


def _event(value: dict[str, Any]) -> str:
    name = value["event"]
    if wrong := _event_name(name):
        return f".event{wrong}"
    return _events[name](value)


_tool_call = _object(
    {
        "id": _string,
        "type": _one_of("function"),
        "function": _object({"name": _string, "arguments": _string}),
    },
    {"index": _maybe_u32},
)
_message = _object(
    {"role": _string},
    {
        "content": _anything,
        "tool_calls": _or_null(_array(_tool_call)),
        "tool_call_id": _maybe_string,
        "name": _maybe_string,
        "reasoning_content": _maybe_string,
    },
)
_entry = _object({"message": _message}, {"agent": _string})

_KINDS: tuple[tuple[Kind, str, Rule], ...] = (
    (Kind.COMPACTION, "archive_name", _compaction),
    (Kind.LEGACY_COMPACTION, "compact", _legacy_compaction),
    (Kind.EVENT, "event", _event),
    (Kind.ENTRY, "message", _entry),
)
