"""The meta: valid contents, and merge patches."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given

from storage.session import meta
from tests.support.metas import FULL, REQUIRED, compact, objects, rfc7396
from tests.support.sessions import refused

# Valid contents


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        REQUIRED,
        {**FULL, "summary": "s", "message_count": 2**64 - 1, "unknown": [None, {}]},
        {**FULL, "summary": None},
    ],
)
def test_what_the_daemon_reads_is_a_meta(value: dict[str, Any]) -> None:
    assert meta.parsed(compact(value)) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"x"',
        b"null",
        b"{",
        *(compact({k: v for k, v in FULL.items() if k != key}) for key in meta.REQUIRED),
        *(compact({**FULL, key: None}) for key in FULL),
        *(compact({**FULL, key: 5}) for key in FULL if key != "message_count"),
        *(compact({**FULL, "message_count": n}) for n in (-1, 2**64, 1.0, "1", True)),
        compact(FULL).replace(b":0}", b":-0}"),
        compact(FULL).replace(b":0}", b":1e2}"),
        compact({**FULL, "summary": 1}),
        compact(FULL)[:-1] + b',"agent":"again"}',
        compact(FULL) + b"{}",
        compact(FULL).replace(b"Crab", b"\xff"),
        compact(FULL).replace(b"Crab", rb"\ud800"),
        b"\xef\xbb\xbf" + compact(FULL),
    ],
)
def test_what_the_daemon_would_not_read_is_not_a_meta(data: bytes) -> None:
    refused(errno.EINVAL, meta.parsed, data)


def test_a_new_meta_is_what_the_daemon_writes() -> None:
    assert meta.fresh("C", 'b"', "T") == (
        b'{"agent":"C","created_by":"b\\"","created_at":"T","title":"","updated_at":"T",'
        b'"message_count":0}'
    )


# Merge patches


@given(objects, objects)
def test_a_patch_is_applied_as_the_rfc_says(unknown: dict[str, Any], patch: dict[str, Any]) -> None:
    target = {**FULL, **unknown}
    before = compact(target)
    assert meta.merged(target, patch) == rfc7396(target, patch)
    assert compact(target) == before


def test_null_deletes_an_optional_key() -> None:
    value = {**FULL, "summary": "s", "x": {"y": 1, "z": 2}}
    patch = {"summary": None, "title": None, "x": {"y": None}, "absent": None}
    expected = {k: v for k, v in FULL.items() if k != "title"} | {"x": {"z": 2}}
    assert meta.merged(value, patch) == expected


@pytest.mark.parametrize(
    "patch",
    [
        {"created_at": "2027-01-01T00:00:00+00:00"},
        *({key: None} for key in meta.REQUIRED),
        *({key: 1} for key in FULL if key != "message_count"),
        {"agent": {}},
        {"message_count": "1"},
        {"message_count": -1},
        {"summary": []},
    ],
)
def test_a_patch_that_would_break_the_meta_is_refused(patch: dict[str, Any]) -> None:
    refused(errno.EINVAL, meta.merged, FULL, patch)


def test_the_same_created_at_may_be_written_again() -> None:
    assert meta.merged(FULL, FULL) == FULL


# The text of a patch


@pytest.mark.parametrize(
    "text",
    [
        b"{]",
        b'{"a"}',
        b"{a:1}",
        b'{"a":1e400}',
        b'{"a":1.7976931348623158e308}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\n"}',
        b'{"a":' + b"[" * 127 + b"]" * 127 + b"}",
    ],
)
def test_a_patch_that_is_not_a_json_object_is_refused(text: bytes) -> None:
    refused(errno.EINVAL, meta.patch, text)
