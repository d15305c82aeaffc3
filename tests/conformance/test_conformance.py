"""stepfs recognizes steps and slugs exactly as the reference does, for everything recorded."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from storage.formats.kinds import Kind, NotAStep, classify
from storage.formats.slug import sender_slug
from tests.conformance.reference import as_written_again, rows, same_json

_KINDS = {
    "Compact": Kind.COMPACTION,
    "LegacyCompact": Kind.LEGACY_COMPACTION,
    "Event": Kind.EVENT,
    "Entry": Kind.ENTRY,
}


def _named(name: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in rows(name)]


@pytest.mark.parametrize("row", _named("classify"))
def test_a_document_is_the_kind_of_step_that_the_reference_says(row: dict[str, Any]) -> None:
    data = base64.b64decode(row["bytes"])
    if row["kind"] == "Error" or row.get("form") == "array":
        with pytest.raises(NotAStep):
            classify(data)
        return
    step = classify(data)
    assert step.kind is _KINDS[row["kind"]]
    assert step.data == data
    assert same_json(as_written_again(step.kind.value, step.value), row["json"])


@pytest.mark.parametrize("row", rows("slug"))
def test_a_name_has_the_slug_that_the_reference_gives(row: dict[str, str]) -> None:
    assert sender_slug(row["in"]) == row["out"]
