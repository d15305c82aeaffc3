"""JSON is pretty-printed only as far as somebody will read it."""

from __future__ import annotations

import gc
import json
import time
import weakref

from storage.formats.kinds import classify
from storage.render import markdown
from storage.render.pretty import CHARACTERS_MAX, LEFT_OUT, PARTS_MAX, Room


def test_a_value_is_laid_out_whole_or_cut() -> None:
    value = {"a": [1, {"é": "x"}], "b": None}
    assert Room().pretty(value) == (json.dumps(value, ensure_ascii=False, indent=2), True)
    text, whole = Room().pretty([[]] * (1 << 20))
    assert (len(text), whole) == (CHARACTERS_MAX, False)
    assert text.startswith("[\n  [],\n  [],\n")


class Whole(list[object]):
    """A list that can be weakly referenced."""


def test_a_value_that_is_cut_is_freed_at_once_without_a_collector() -> None:
    """Workers disable automatic collection: a cycle would keep a long document until the next one."""
    gc.disable()
    try:
        value = Whole([[]] * (1 << 20))
        watched = weakref.ref(value)
        assert not Room().pretty(value)[1]
        del value
        assert watched() is None
    finally:
        gc.enable()


def test_an_entry_of_millions_of_values_takes_no_longer_than_it_is_long() -> None:
    deep = b"[" * 100 + b"]" * 100 + b","
    for content in (b"[" + b"[]," * 300_000 + b"1]", b"[" + deep * 4000 + b"1]"):
        step = classify(b'{"message":{"role":"user","content":' + content + b"}}")
        before = time.process_time()
        block = markdown.entry(step)
        assert time.process_time() - before < 2
        assert block.endswith(LEFT_OUT.encode() + b"\n\n")
        assert len(block) < PARTS_MAX * 100 + 2 * CHARACTERS_MAX


def test_of_very_many_calls_the_first_are_shown() -> None:
    call = '{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
    calls = ",".join([call] * 3000)
    step = classify(f'{{"message":{{"role":"assistant","tool_calls":[{calls}]}}}}'.encode())
    block = markdown.entry(step).decode()
    assert block.count("### Calls") == PARTS_MAX
    assert block.endswith(LEFT_OUT + "\n\n")
