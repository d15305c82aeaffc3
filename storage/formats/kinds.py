"""Which document is which kind of step: compaction, legacy compaction, event, entry, or none.

The kinds are tried in this order and the first that fits wins.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from storage.formats.dialects import ENTRY, EVENT
from storage.formats.jsontext import NotJSON, exact, parse
from storage.formats.rules import Rule, object_, string


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


_compaction = object_({"archive_name": string, "archived_at": string})
_legacy_compaction = object_({"compact": string}, {"title": string, "archived_at": string})

_KINDS: tuple[tuple[Kind, str, Rule], ...] = (
    (Kind.COMPACTION, "archive_name", _compaction),
    (Kind.LEGACY_COMPACTION, "compact", _legacy_compaction),
    (Kind.EVENT, "event", EVENT),
    (Kind.ENTRY, "message", ENTRY),
)
