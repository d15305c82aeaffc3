"""An object that arrives in pieces is recognized once complete, in time linear in its length."""

from __future__ import annotations

import errno
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import StoreError
from storage.formats.unfinished import UnfinishedObject

SPACE = st.text(" \t\r\n", max_size=3)
OBJECTS = st.dictionaries(
    st.text('a"\\{}[]', max_size=4),
    st.recursive(
        st.none() | st.integers() | st.text('"\\{}[]é', max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=8,
    ),
    max_size=4,
)


@given(OBJECTS, SPACE, SPACE, st.data())
def test_an_object_is_complete_with_its_last_brace_however_it_is_cut(
    value: dict[str, Any], before: str, after: str, data: st.DataObject
) -> None:
    core = json.dumps(value).encode()
    text, end = before.encode() + core + after.encode(), len(before) + len(core)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    unfinished = UnfinishedObject()
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found = unfinished.take(text[start:stop])
        if stop < end:
            assert found is None
        else:
            assert found == core
            break


@pytest.mark.parametrize(
    "text", [b"[", b' "x"', b"nul", b"\xef\xbb\xbf{", b"\0", b"{}x", b"{} {}", b'{"a":"}"}}']
)
def test_text_that_cannot_become_an_object_is_refused_at_once(text: bytes) -> None:
    with pytest.raises(StoreError) as refused:
        UnfinishedObject().take(text)
    assert refused.value.errno == errno.EINVAL


def test_a_mebibyte_in_pieces_costs_little_more_than_at_once() -> None:
    text = b'{"a":"' + rb"}\"\\" * (200 << 10) + b'","b":[' + b"[]," * (100 << 10)
    unfinished = UnfinishedObject()
    before = time.process_time()
    for at in range(0, len(text), 256):
        assert unfinished.take(text[at : at + 256]) is None
    assert time.process_time() - before < 2
    assert unfinished.take(b"1]}") == text + b"1]}"
