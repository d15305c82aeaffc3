"""A step has the first kind that its document fits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.formats.kinds import Kind, NotAStep, classify

USAGE = '{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
CALL = '{"id":"c","type":"function","function":{"name":"bash","arguments":"{}"}}'


def _done(usage: str) -> str:
    return (
        '{"event":"done","model":"m","iterations":2,"stop_reason":"stop",'
        f'"usage":{usage},"ts":"t"}}'
    )


def _calls(calls: str) -> str:
    return f'{{"message":{{"role":"assistant","tool_calls":{calls}}}}}'


def _result(duration: str) -> str:
    return f'{{"event":"tool_result","call_id":"c","duration_ms":{duration},"ts":"t"}}'


COMPACTIONS = [
    '{"archive_name":"a","archived_at":"t"}',
    '{"archive_name":"a","archived_at":"t","message":{"role":"user"}}',
    '{"archive_name":"","archived_at":"","zz":1,"zz":2}',
]
LEGACY_COMPACTIONS = [
    '{"compact":"summary"}',
    '{"compact":"summary","title":"t","archived_at":"t"}',
    '{"compact":"s","archive_name":"a","message":{"role":"user"}}',
]
EVENTS = [
    '{"event":"tool_start","calls":[],"ts":"t"}',
    '{"event":"tool_start","calls":[{"id":"i","name":"n"},{"id":"i","name":"n","arguments":""}],'
    '"ts":"t"}',
    _result("0"),
    _result("18446744073709551615"),
    _done(USAGE),
    _done(USAGE[:-1] + ',"prompt_cache_hit_tokens":4294967295,"prompt_cache_miss_tokens":null}'),
    _done(USAGE[:-1] + ',"completion_tokens_details":null}'),
    _done(USAGE[:-1] + ',"completion_tokens_details":{}}'),
    _done(USAGE[:-1] + ',"completion_tokens_details":{"reasoning_tokens":7,"zz":[]}}'),
    '{"event":"user_steered","content":"x","ts":"t","calls":1,"calls":2}',
    '{"event":"user_steered","content":"x","ts":"t","message":{"role":"user"}}',
]
ENTRIES = [
    '{"message":{"role":"user","content":"list files"}}',
    '{"agent":"guest","message":{"role":"assistant","content":null}}',
    '{"message":{"role":""}}',
    '{"message":{"role":"user","content":[{"type":"text","type":"image"}]}}',
    '{"message":{"role":"tool","content":-0,"tool_call_id":null,"name":"bash"}}',
    '{"message":{"role":"user","cache":1,"cache":2}}',
    '{"message":{"role":"user"},"archive_name":"a"}',
    '{"message":{"role":"user"},"archive_name":"a","archive_name":"b","archived_at":"t"}',
    '{"message":{"role":"user"},"event":"done"}',
    '{"message":{"role":"user"},"compact":null}',
    r'{"messag\u0065":{"\u0072ole":"user"}}',
    _calls("null"),
    _calls("[]"),
    _calls(f'[{CALL[:-1]},"index":null}}]'),
    _calls(f'[{CALL[:-1]},"index":4294967295}}]'),
]
NO_STEPS = [
    ("", "empty"),
    ("[]", "one JSON object"),
    ('"message"', "one JSON object"),
    ("{}", "must have one of the keys"),
    ('{"role":"user","content":"x"}', "must have one of the keys"),
    ('{"archive_name":"a"}', "archived_at is missing"),
    (
        '{"archive_name":"a","archived_at":"t","archived_at":"t"}',
        "archived_at must occur only once",
    ),
    ('{"compact":"s","title":null}', "title must be a string"),
    ('{"event":1,"ts":"t"}', "event must be"),
    ('{"event":"started","ts":"t"}', "event must be"),
    ('{"event":"done","event":"done"}', "event must occur only once"),
    ('{"event":"tool_start","calls":["i"],"ts":"t"}', "calls[0] must be an object"),
    (_result("1.0"), "duration_ms must be an integer"),
    (_result("1e2"), "duration_ms must be an integer"),
    (_result("-0"), "duration_ms must be an integer"),
    (_result("-1"), "duration_ms must be an integer"),
    (_result('"5"'), "duration_ms must be an integer"),
    (_result("true"), "duration_ms must be an integer"),
    (_result("18446744073709551616"), "duration_ms must be an integer"),
    (_done(USAGE[:-1] + ',"total_tokens":3}'), "usage.total_tokens must occur only once"),
    (_done(USAGE.replace("3", "4294967296")), "usage.total_tokens must be an integer"),
    (_done("[1,2,3]"), "usage must be an object"),
    ('{"message":["user"]}', "message must be an object"),
    ('{"message":{}}', "message.role is missing"),
    ('{"message":{"role":1}}', "message.role must be a string"),
    ('{"agent":null,"message":{"role":"user"}}', "agent must be a string"),
    (r'{"message":{"role":"user","rol\u0065":"user"}}', "message.role must occur only once"),
    ('{"message":{"role":"user","content":1,"content":1}}', "message.content must occur only once"),
    ('{"message":{"role":"user","name":1}}', "message.name must be a string, or null"),
    (_calls("{}"), "message.tool_calls must be an array"),
    (_calls(f"[{CALL},1]"), "message.tool_calls[1] must be an object"),
    (_calls('[{"id":"c","type":"function"}]'), "message.tool_calls[0].function is missing"),
    (_calls(f"[{CALL}]").replace('"function",', '{"function":null},'), '"function"'),
    (_calls(f'[{CALL[:-1]},"index":-0}}]'), "message.tool_calls[0].index must be an integer"),
    ('{"message":{"role":"user"}}x', "at byte 27"),
    ('{"message":{"role":"user"},"zz":1e400}', "at byte 32"),
    ('{"message":{"role":"user"},"zz":' + "[" * 127 + "]" * 127 + "}", "deep"),
]


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (kind, document)
        for kind, documents in (
            (Kind.COMPACTION, COMPACTIONS),
            (Kind.LEGACY_COMPACTION, LEGACY_COMPACTIONS),
            (Kind.EVENT, EVENTS),
            (Kind.ENTRY, ENTRIES),
        )
        for document in documents
    ],
)
def test_a_step_is_the_first_kind_that_fits(kind: Kind, document: str) -> None:
    data = f" {document}\n".encode()
    step = classify(data)
    assert step.kind is kind
    assert step.data == data
    assert step.value == json.loads(data)


@pytest.mark.parametrize(("document", "reason"), NO_STEPS)
def test_anything_else_is_not_a_step_and_the_error_says_why(document: str, reason: str) -> None:
    with pytest.raises(NotAStep) as refused:
        classify(document.encode())
    assert reason in refused.value.sentence


def test_a_compaction_names_its_archive_and_a_legacy_one_has_none() -> None:
    compaction = classify(COMPACTIONS[0].encode())
    legacy = classify(b'{"compact":"s","archive_name":"a"}')
    assert (compaction.archive, compaction.kind.is_compaction) == ("a", True)
    assert (legacy.archive, legacy.kind.is_compaction) == (None, True)
    assert not classify(ENTRIES[0].encode()).kind.is_compaction
    assert not classify(EVENTS[0].encode()).kind.is_compaction


_literals = st.sampled_from(
    [*("null", "true", "0", "-0", "7", "1.0", "-1", "4294967296", '"x"', '"\\""', '"function"')]
)
_keys = st.sampled_from(
    [
        *("message", "agent", "role", "content", "tool_calls", "name", "zz", "event", "calls"),
        *("id", "type", "function", "arguments", "index", "ts", "compact", "title", '"'),
        *("archive_name", "archived_at", "duration_ms", "call_id"),
    ]
)
_event_names = st.sampled_from(['"tool_start"', '"tool_result"', '"done"', '"user_steered"'])
_trees: st.SearchStrategy[Any] = st.recursive(
    _literals | _event_names,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(_keys, inner), max_size=5).map(tuple)
    ),
    max_leaves=12,
)


@st.composite
def _nearly_steps(draw: st.DrawFn) -> Any:
    """A document that fits a kind, with some members of its objects added, removed or duplicated."""
    documents = [*COMPACTIONS, *LEGACY_COMPACTIONS, *EVENTS, *ENTRIES]
    tree = _tree(json.loads(draw(st.sampled_from(documents)), object_pairs_hook=tuple))
    for _ in range(draw(st.integers(0, 2))):
        tree = _changed(draw, tree)
    return tree


def _tree(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple((key, _tree(item)) for key, item in value)
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return json.dumps(value)


def _changed(draw: st.DrawFn, tree: Any) -> Any:
    if isinstance(tree, tuple) and tree:
        at = draw(st.integers(0, len(tree) - 1))
        key, item = tree[at]
        change = draw(st.sampled_from(["inside", "inside", "double", "add", "take", "replace"]))
        members = {
            "inside": [(key, _changed(draw, item))],
            "double": [(key, item), (key, item)],
            "add": [(key, item), (draw(_keys), draw(_trees))],
            "take": [],
            "replace": [(key, draw(_trees))],
        }
        return (*tree[:at], *members[change], *tree[at + 1 :])
    return draw(_trees)


def _render(tree: Any, comma: str, colon: str, key_of: Any) -> str:
    if isinstance(tree, tuple):
        members = (f"{key_of(k)}{colon}{_render(v, comma, colon, key_of)}" for k, v in tree)
        return "{" + comma.join(members) + "}"
    if isinstance(tree, list):
        return "[" + comma.join(_render(item, comma, colon, key_of) for item in tree) + "]"
    return str(tree)


def _escaped(key: str) -> str:
    return '"' + "".join(f"\\u{ord(character):04x}" for character in key) + '"'


def _kind(document: str) -> Kind | None:
    try:
        return classify(document.encode()).kind
    except NotAStep:
        return None


@given(_nearly_steps())
def test_the_kind_does_not_depend_on_how_the_document_is_written(tree: Any) -> None:
    kind = _kind(_render(tree, ",", ":", json.dumps))
    assert _kind(_render(tree, " ,\n", "\t: ", json.dumps)) is kind
    assert _kind(_render(tree, ",", ":", _escaped)) is kind
