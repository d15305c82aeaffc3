"""Documents are parsed strictly, and their parts are cut out as the original bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.formats.jsontext import NotJSON, Repeating, exact, member, one_line, pairs, parse

NESTED_127 = b"[" * 127 + b"]" * 127
NESTED_128 = b"[" * 128 + b"]" * 128


def _object_of(members: list[tuple[str, bytes]]) -> bytes:
    return b"{" + b", ".join(key.encode() + b":" + value for key, value in members) + b"}"


_numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text('a "\\\n\té🦀{}[]:,\x7f\u2028', max_size=8)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)
_layouts = st.sampled_from(
    [
        {"ensure_ascii": False, "separators": (",", ":")},
        {"ensure_ascii": True},
        {"ensure_ascii": False, "indent": 1},
        {"ensure_ascii": True, "separators": (" ,\r\n", "\t: ")},
    ]
)
_keys = st.sampled_from(['"a"', r'"\u0061"', '"é"', r'"\""', r'"\u0022"', r'"\\"', '"role"'])
_members: st.SearchStrategy[bytes] = st.recursive(
    st.sampled_from([b"0", b"-0", b"-0.0", b"-1", b"1e2", b'""', rb'"\u0022"', rb'"\" -0"', b"7"]),
    lambda inner: st.lists(st.tuples(_keys, inner), max_size=4).map(_object_of),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("data", "offset", "code"),
    [
        (b"", 0, "not-json"),
        (b" \n", 0, "not-json"),
        (b"\xef\xbb\xbf{}", 0, "not-json"),
        (b"\xc2\xa0{}", 0, "not-json"),
        (b"{} {}", 3, "not-json"),
        (b'{"a":1,}', 6, "not-json"),
        (b'{"role":"user",', 15, "not-json"),
        ('{"é":x}'.encode(), 6, "not-json"),
        (b'["\xff"]', 2, "not-utf8"),
        (b'"\xed\xa0\x80"', 1, "not-utf8"),
        (b'["a\tb"]', 3, "not-json"),
        (rb'["\ud800"]', 2, "not-json"),
        (rb'["\udc00\ud800"]', 2, "not-json"),
        (b"[1e400]", 1, "not-json"),
        (b"[" + b"9" * 400 + b"]", 1, "not-json"),
        (b"[NaN]", 1, "not-json"),
        (b"[1.7976931348623158e308]", 1, "not-json"),
        (b'["1",-17976931348623.158e295]', 5, "not-json"),
        (b"[1797693134862315" + b"8" * 293 + b"]", 1, "not-json"),
        (b"[0.00017976931348623157081452742373171e+312]", 1, "not-json"),
        (b"[01]", 1, "not-json"),
        (NESTED_128, 127, "too-deep"),
        (b'{"["' + b":" + NESTED_127 + b"}", 131, "too-deep"),
        (b"[" * 5000 + b"]" * 5000, 127, "too-deep"),
    ],
)
def test_invalid_documents_are_refused_with_the_offset_of_the_error(
    data: bytes, offset: int, code: str
) -> None:
    with pytest.raises(NotJSON) as refused:
        parse(data)
    assert (refused.value.offset, refused.value.code) == (offset, code)
    assert f"at byte {offset}: " in refused.value.sentence


@pytest.mark.parametrize(
    "data",
    [
        b" \t\r\n{} \t\r\n",
        NESTED_127,
        b'{"a":' * 126 + b"[]" + b"}" * 126,
        b'["' + b"[{" * 500 + b'"]',
        rb'["\\\"' + b"[" * 500 + rb'\\"]',
        b"[" + b"[]," * 500 + b"{}]",
        rb'"\ud83e\udd80"',
        b'"\x7f"',
        b"[1e-400, 0e400, 1.7976931348623157e308, 1.7976931348623158e307]",
        b'["1.7976931348623158e308", 17976931, 34862315]',
        b'{"a":1,"a":2}',
    ],
)
def test_valid_json_is_read(data: bytes) -> None:
    assert parse(data) == json.loads(data)


@given(st.integers(1, 140), st.sampled_from([b"[", b'{"[\\"":']), st.sampled_from([b"0", b'"]}"']))
def test_documents_nest_at_most_127_deep(depth: int, opening: bytes, inner: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    data = opening * depth + inner + closing * depth
    if depth <= 127:
        parse(data)
    else:
        with pytest.raises(NotJSON, match="deep"):
            parse(data)


def test_repeated_keys_are_reported_wherever_they_are() -> None:
    value = pairs(rb'{"a":{"b":1,"\u0062":2},"c":1}')
    assert type(value) is dict
    assert type(value["a"]) is Repeating
    assert value["a"] == {"b": 2}
    assert value["a"].keys_repeated == {"b"}


@given(_members)
def test_fast_parsing_reports_everything_that_slow_parsing_reports(data: bytes) -> None:
    assert _told(exact(data, parse(data))) == _told(pairs(data))


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        repeated = sorted(value.keys_repeated) if isinstance(value, Repeating) else []
        return [repeated, [(key, _told(item)) for key, item in value.items()]]
    return (type(value), value)


@given(st.dictionaries(st.sampled_from(["message", "content", "é", '"', "\\"]), _values), _layouts)
def test_a_member_is_found_at_its_own_bytes(value: dict[str, Any], layout: dict[str, Any]) -> None:
    data = b" " + json.dumps(value, **layout).encode() + b"\n"
    for key in ("message", "content"):
        span = member(data, key)
        if key in value:
            assert span is not None
            assert json.loads(data[span[0] : span[1]]) == value[key]
        else:
            assert span is None


def test_a_repeated_member_is_the_last_one() -> None:
    data = rb'{"a":1,"\u0061":[2],"b":{"a":3}}'
    assert member(data, "a") == (data.index(b"[2]"), data.index(b"[2]") + 3)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b' {"a" : 1.50,\t"b":"\\u0041"} \r\n', b'{"a" : 1.50,\t"b":"\\u0041"}'),
        (b'{"a":\n [1, 2,\r\n "x \\" y\\\\" , true ]\n}', b'{"a":[1,2,"x \\" y\\\\",true]}'),
        (b'{"a":\r"b  c"}', b'{"a":"b  c"}'),
    ],
)
def test_only_white_space_is_dropped_and_only_for_one_line(data: bytes, line: bytes) -> None:
    assert one_line(data) == line


@given(_values, _layouts)
def test_one_line_holds_the_same_value(value: Any, layout: dict[str, Any]) -> None:
    line = one_line(json.dumps(value, **layout).encode())
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == value


def test_a_string_of_megabytes_of_escapes_is_cut_in_bounded_memory() -> None:
    data = b'{\n"a":"' + rb"\"" * 2_000_000 + b'"\n}'
    assert one_line(data) == data.replace(b"\n", b"")
    assert member(data, "a") == (6, len(data) - 2)


CUT = b'{"message":{"role":"user","content":"'
HOSTILE = {
    "cut after escapes": CUT + rb"{\"a\":\"b\\n\"}" * (1 << 16),
    "cut in escapes": CUT + b"\\" * (1 << 20),
    "quotes": b'"' * (1 << 20),
    "brackets": b"[" * (1 << 20),
    "cut after many values": CUT[:-1] + b"[" + b"[]," * (1 << 18),
    "cut after deep values": CUT[:-1] + b"[" + (b"[" * 100 + b"]" * 100 + b",") * 5000,
    "no UTF-8 at its end": CUT + b"a" * (1 << 20) + b"\xff",
}


@pytest.mark.guarantee("G19c")
@pytest.mark.parametrize("name", HOSTILE)
def test_the_error_in_a_mebibyte_is_found_in_milliseconds(name: str) -> None:
    before = time.process_time()
    with pytest.raises(NotJSON):
        parse(HOSTILE[name])
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("unit", [b'"a":{},', b'"message":1,', b'"a":[[[]]],', rb'"a\"":"\\",'])
def test_a_member_is_cut_out_of_a_mebibyte_in_linear_time(unit: bytes) -> None:
    data = b"{" + unit * ((1 << 20) // len(unit)) + b'"message":"found"}'
    before = time.process_time()
    span = member(data, "message")
    assert time.process_time() - before < 1
    assert span is not None
    assert data[slice(*span)] == b'"found"'
