"""A changed object is written so that everything unchanged keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from storage.formats import jsontext
from storage.formats.splice import encoded, spliced
from tests.support.metas import objects


@given(before=objects, after=objects)
def test_what_is_written_means_what_was_asked_for(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    raw = json.dumps(before, indent=2).encode()
    parsed = jsontext.pairs(raw)
    asked = {**parsed, **after}
    assert json.loads(spliced(raw, parsed, asked)) == asked


@pytest.mark.parametrize(
    "number", ["1e400", "123456789012345678901234567890", "1.10", "-0.0", "1E5", "0.1e-7"]
)
def test_numbers_beside_a_change_are_written_as_they_were_at_any_depth(number: str) -> None:
    raw = f'{{"a": {{"n": {number}, "b": 1}}, "m": [{number}]}}'.encode()
    before = jsontext.pairs(raw)
    after = {**before, "a": {**before["a"], "b": 2}}
    assert spliced(raw, before, after) == f'{{"a":{{"n":{number},"b":2}},"m":[{number}]}}'.encode()


def test_a_key_keeps_the_escapes_that_it_was_written_with() -> None:
    raw = rb'{"\u0061": 1, "b": 2}'
    before = jsontext.pairs(raw)
    assert spliced(raw, before, {**before, "b": 3}) == rb'{"\u0061":1,"b":3}'


def test_removed_keys_disappear_and_new_keys_come_last() -> None:
    raw = b'{"a":1,"b":2}'
    before = jsontext.pairs(raw)
    assert spliced(raw, before, {"b": before["b"], "c": "\u00e9"}) == '{"b":2,"c":"é"}'.encode()
    assert encoded({"a": [1, "é\n"]}) == '{"a":[1,"é\\n"]}'.encode()
