"""Rules say whether a value fits; if not, they say where, and what would fit."""

from __future__ import annotations

from typing import Any

import pytest

from storage.formats import jsontext
from storage.formats.rules import (
    Rule,
    anything,
    array,
    either,
    integer,
    map_of,
    object_,
    one_of,
    or_null,
    string,
    tagged,
)

POINT = object_({"x": integer(9)}, {"name": or_null(string)})
SHAPE = tagged("kind", {"dot": object_({"at": POINT}), "line": object_({"points": array(POINT)})})


@pytest.mark.parametrize(
    ("rule", "text", "wrong"),
    [
        (anything, "[1,null]", ""),
        (string, '"a"', ""),
        (string, "1", " must be a string"),
        (one_of("a", "b"), '"b"', ""),
        (one_of("a", "b"), '"c"', ' must be "a" or "b"'),
        (integer(9), "9", ""),
        (integer(9), "10", " must be an integer from 0 to 9, written in digits alone"),
        (integer(9), "1.0", " must be an integer from 0 to 9, written in digits alone"),
        (integer(9), "true", " must be an integer from 0 to 9, written in digits alone"),
        (or_null(string), "null", ""),
        (or_null(string), "1", " must be a string, or null"),
        (array(string), '["a"]', ""),
        (array(string), '["a",1]', "[1] must be a string"),
        (array(string), "{}", " must be an array"),
        (POINT, '{"x":1,"name":null,"other":[]}', ""),
        (POINT, '{"name":"a"}', ".x is missing"),
        (POINT, '{"x":1,"name":2}', ".name must be a string, or null"),
        (POINT, '{"x":1,"x":1}', ".x must occur only once"),
        (POINT, '{"x":1,"other":1,"other":1}', ""),
        (POINT, "[]", " must be an object"),
        (map_of(string), '{"a":"b","a":"c"}', ""),
        (map_of(string), '{"a":"b","a":1}', ".a must be a string"),
        (SHAPE, '{"kind":"dot","at":{"x":1}}', ""),
        (SHAPE, '{"kind":"dot","at":{"x":10}}', f".at.x{integer(9)(10)}"),
        (SHAPE, '{"kind":"line","points":[{"x":1},{}]}', ".points[1].x is missing"),
        (SHAPE, '{"kind":"box"}', '.kind must be "dot" or "line"'),
        (SHAPE, '{"kind":["dot"]}', '.kind must be "dot" or "line"'),
        (SHAPE, '{"at":{"x":1}}', ".kind is missing"),
        (SHAPE, '{"kind":"dot","kind":"dot","at":{"x":1}}', ".kind must occur only once"),
        (SHAPE, '{"kind":"dot","at":{"x":1},"at":{"x":1}}', ".at must occur only once"),
        (SHAPE, '{"kind":"dot","at":{"x":1},"other":1,"other":1}', ""),
        (SHAPE, '"dot"', " must be an object"),
    ],
)
def test_a_value_fits_or_the_rule_says_what_would(rule: Rule, text: str, wrong: str) -> None:
    assert rule(jsontext.pairs(text.encode())) == wrong


def test_of_alternative_rules_the_one_that_was_meant_says_what_is_wrong() -> None:
    def is_list(value: Any) -> bool:
        return isinstance(value, list)

    rule = either(string, array(string), is_list)
    assert [rule(value) for value in ("a", ["a"])] == ["", ""]
    assert rule([1]) == "[0] must be a string"
    assert rule(1) == " must be a string"
