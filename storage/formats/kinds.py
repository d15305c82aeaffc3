"""Classifies documents as steps: compaction, legacy compaction, event, entry, or no step at all.

The kinds are tried in this order, and the first that fits wins.
"""

from __future__ import annotations

import enum
from typing import Any, Final, NamedTuple

import orjson

from storage.formats.dialects import ENTRY, EVENT
from storage.formats.jsontext import NotJSON, diagnosis, exact, parse_on
from storage.formats.rules import Rule, object_, string


class Kind(enum.Enum):
    """The kinds of step, in the order in which they are tried."""

    COMPACTION = "compaction"
    LEGACY_COMPACTION = "legacy compaction"
    EVENT = "event"
    ENTRY = "entry"

    def __init__(self, name: str) -> None:
        self.is_compaction = name.endswith("compaction")
        """Whether the history begins anew after a step of this kind."""
        self.is_entry = name == "entry"
        """Whether a step of this kind is shown in the history."""


class NotAStep(ValueError):  # noqa: N818 - it says what the document is
    """A document that is not a step; `sentence` says what is wrong and what would be right."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Step(NamedTuple):
    """A step: its kind, its JSON value, and the bytes of its file."""

    kind: Kind
    value: dict[str, Any]
    data: bytes
    is_line: bool = False
    """Whether `data` is known to be one line, with no white space around it (G1)."""

    @property
    def archive(self) -> str | None:
        """The name of the archive that a compaction points to; a legacy one has none."""
        if self.kind is Kind.COMPACTION:
            name: str = self.value["archive_name"]
            return name
        return None


def classify(data: bytes) -> Step:
    """Classify the content `data` of a step file.

    Raises `NotAStep` where the reference would skip the file, and for forms that are deliberately
    not accepted (arrays in place of objects, numbers as event names).
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotAStep(diagnosis(data, error).sentence) from None
    if _is_of_texts(value) and orjson.dumps(value) == data:
        return Step(_ENTRY, value, data, True)
    try:
        judged, is_line = parse_on(data, value)
        return _judged(value, judged, data, is_line)
    except NotJSON as error:
        raise NotAStep(error.sentence) from None


def classify_value(value: Any, data: bytes) -> Step:
    """As `classify`, for a caller that has already parsed `data` into `value`."""
    return _judged(value, exact(data, value), data)


def _judged(value: Any, judged: Any, data: bytes, is_line: bool = False) -> Step:
    """`judged` is `value` as `exact` gives it."""
    if type(value) is not dict:
        raise NotAStep("a step must be one JSON object")
    for kind, mark, rule in _KINDS:
        if mark in value and not rule(judged):
            return Step(kind, value, data, is_line)
    raise NotAStep(_why_not(judged))


def _is_of_texts(value: Any) -> bool:
    """Whether this is an entry whose message holds only strings and nulls.

    Most steps are. If its value also encodes to the same bytes, no other rule needs to be checked.
    """
    if type(value) is not dict or len(value) != 1:
        return False
    message = value.get("message")
    return (
        type(message) is dict
        and _TEXT_TYPES.issuperset(map(type, message.values()))
        and type(message.get("role")) is str
        and message.get("tool_calls") is None
    )


def _why_not(value: dict[str, Any]) -> str:
    for kind, mark, rule in _KINDS:
        if mark in value:
            article = "an" if kind.value[0] in "aeiou" else "a"
            return f"not {article} {kind.value}: {rule(value).removeprefix('.')}"
    return "a step must have one of the keys message, event, archive_name"


_compaction = object_({"archive_name": string, "archived_at": string})
_legacy_compaction = object_({"compact": string}, {"title": string, "archived_at": string})

_ENTRY: Final = Kind.ENTRY
"""Looking a member up in its enumeration takes as long as encoding a short entry."""
_TEXT_TYPES: Final = frozenset({str, type(None)})

_KINDS: tuple[tuple[Kind, str, Rule], ...] = (
    (Kind.COMPACTION, "archive_name", _compaction),
    (Kind.LEGACY_COMPACTION, "compact", _legacy_compaction),
    (Kind.EVENT, "event", EVENT),
    (Kind.ENTRY, "message", ENTRY),
)
