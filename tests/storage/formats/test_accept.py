"""An appended line becomes a step that the reference would load, or is refused with a reason."""

from __future__ import annotations

import errno
import json

import pytest

from storage.errors import StoreError
from storage.formats.accept import archive_name, compaction, stored_form
from storage.formats.kinds import Kind, classify

EVENT = b'{"event":"user_steered","content":"stop","ts":"2026-04-28T00:00:00+00:00"}'


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"message":{"role":"user","content":"x"}}', Kind.ENTRY),
        (b' {"agent":"guest", "message": {"role":"assistant"}, "zz":1.50}\r', Kind.ENTRY),
        (b'{"role":"user","message":{"role":"tool"}}', Kind.ENTRY),
        (EVENT, Kind.EVENT),
        (EVENT[:-1] + b',"role":"user"}', Kind.EVENT),
        (EVENT[:-1] + b',"message":1}', Kind.EVENT),
    ],
)
def test_entries_and_events_are_stored_as_their_own_bytes(line: bytes, kind: Kind) -> None:
    step = stored_form(line)
    assert (step.kind, step.data) == (kind, line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"role":"user","content":"x"}',
        b'  {"content":1.50,"role":"user"}\t',
        b'{"role":"tool","tool_call_id":"c","name":"bash","agent":1,"zz":[]}',
        b'{"role":"user","content":' + b"[" * 125 + b"]" * 125 + b"}",
    ],
)
def test_a_bare_message_is_wrapped_as_an_entry(line: bytes) -> None:
    step = stored_form(line)
    assert step.kind is Kind.ENTRY
    assert step.data == b'{"message":' + line + b"}"
    assert step.value == json.loads(step.data) == {"message": json.loads(line)}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"", "empty-line", "the line is empty"),
        (b" \t\r", "empty-line", "the line is empty"),
        (b'{"message":{"role":"user"}', "not-json", "at byte 26"),
        (b'{"role":"user"} {"role":"user"}', "not-json", "at byte 16"),
        (b'\xef\xbb\xbf{"role":"user"}', "not-json", "byte order mark"),
        (b'{"role":"\xff"}', "not-utf8", "not UTF-8 at byte 9"),
        (b"[" * 128 + b"]" * 128, "too-deep", "at byte 127"),
        (b'{"archive_name":"a","archived_at":"t"}', "compaction", "to compact"),
        (b'{"compact":"summary"}', "compaction", "to compact"),
        (
            b'{"message":{"role":"user"},"archive_name":"a","archived_at":"t"}',
            "compaction",
            "to compact",
        ),
        (b"[]", "not-a-step", "one JSON object"),
        (b'["g",{"role":"user"}]', "not-a-step", "one JSON object"),
        (b"null", "not-a-step", "one JSON object"),
        (b"{}", "not-a-step", "must have one of the keys"),
        (b'{"content":"x"}', "not-a-step", "must have one of the keys"),
        (b'{"message":["user"]}', "not-a-step", "message must be an object"),
        (b'{"message":{"role":"user","role":"user"}}', "not-a-step", "only once"),
        (b'{"role":"user","role":"user"}', "not-a-step", "message.role must occur only once"),
        (b'{"role":1}', "not-a-step", "message.role must be a string"),
        (b'{"role":"user","compact":1}', "not-a-step", "compact must be a string"),
        (b'{"role":"user","event":"done"}', "not-a-step", "is missing"),
        (EVENT.replace(b'"stop"', b"null"), "not-a-step", "content must be a string"),
        (
            b'{"role":"user","content":' + b"[" * 126 + b"]" * 126 + b"}",
            "not-a-step",
            "nested more than 127 deep",
        ),
    ],
)
def test_anything_else_is_refused_with_a_reason(line: bytes, code: str, words: str) -> None:
    with pytest.raises(StoreError) as refused:
        stored_form(line)
    assert (refused.value.errno, refused.value.code) == (errno.EINVAL, code)
    assert words in refused.value.sentence


def test_a_compaction_has_the_bytes_that_the_daemon_writes() -> None:
    archived_at = "2026-11-22T21:14:13.109491572+00:00"
    data = compaction("crab-session-1", archived_at)
    assert data == (
        b'{"archive_name":"crab-session-1","archived_at":"2026-11-22T21:14:13.109491572+00:00"}'
    )
    assert classify(compaction('q"\\é', archived_at)).archive == 'q"\\é'


@pytest.mark.parametrize("name", ["a", " a b ", "../x", '"', "é" * 127, "x" * 255, "日本\u200b🦀"])
def test_an_archive_may_have_any_printable_name(name: str) -> None:
    assert archive_name(name.encode()) == name


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "empty-line"),
        (b"x" * 256, "name-too-long"),
        ("é".encode() * 128, "name-too-long"),
        (b"a\xff", "not-utf8"),
        (b"a\0", "control-character"),
        (b"a\r", "control-character"),
        (b"\ta", "control-character"),
        (b"a\x7f", "control-character"),
        ("a\x85".encode(), "control-character"),
    ],
)
def test_other_archive_names_are_refused(line: bytes, code: str) -> None:
    with pytest.raises(StoreError) as refused:
        archive_name(line)
    assert (refused.value.errno, refused.value.code) == (errno.EINVAL, code)
