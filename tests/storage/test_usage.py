"""What a `done` event says about a run, in the counting of each dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage.usage import Tokens, run_of
from tests.support.stores import compaction, entry, event

LATE = "2026-06-02T10:00:00.5+00:00"


def done(**usage: Any) -> bytes:
    return json.dumps(
        {
            "event": "done",
            "model": "m-1",
            "iterations": 2,
            "stop_reason": "stop",
            "usage": usage,
            "ts": LATE,
        }
    ).encode()


def counted(**usage: Any) -> Tokens:
    found = run_of(done(**usage))
    assert found is not None
    return found.tokens


WHOLES = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}
PARTS = {"input_tokens": 7, "output_tokens": 20}


def test_the_first_dialect_reports_totals_and_how_much_of_them_was_cached_or_reasoning() -> None:
    assert counted(**WHOLES) == Tokens(1, prompt_tokens=100, completion_tokens=30)
    told = counted(
        **WHOLES,
        prompt_cache_hit_tokens=80,
        prompt_cache_miss_tokens=20,
        completion_tokens_details={"reasoning_tokens": 12},
    )
    assert told == Tokens(1, 100, cache_read_tokens=80, completion_tokens=30, reasoning_tokens=12)
    nulls = {"prompt_cache_hit_tokens": None, "completion_tokens_details": None}
    assert counted(**WHOLES, **nulls) == counted(**WHOLES)
    assert (
        counted(**WHOLES, completion_tokens_details={"reasoning_tokens": None}).total_tokens == 130
    )


def test_the_later_dialect_reports_parts_that_add_up() -> None:
    told = counted(
        **PARTS,
        cache_read_tokens=90,
        cache_write_tokens=3,
        reasoning_tokens=10,
        server_tool_calls={"web_search": 2},
    )
    assert told == Tokens(1, 100, 90, 3, 30, 10, {"web_search": 2})
    assert told.total_tokens == 130
    assert counted(**PARTS) == Tokens(1, prompt_tokens=7, completion_tokens=20)


def test_usage_that_fits_the_first_dialect_is_counted_as_such_whatever_else_it_holds() -> None:
    assert counted(**WHOLES, input_tokens="many", output_tokens=5) == counted(**WHOLES)
    assert counted(**PARTS, prompt_tokens="many") == counted(**PARTS)


def test_model_and_time_are_reported_but_not_an_invalid_time() -> None:
    found = run_of(done(**PARTS))
    assert found is not None
    assert (found.model, found.ended) == ("m-1", 1780394400_500_000_000)
    odd = run_of(done(**PARTS).replace(LATE.encode(), b"yesterday"))
    assert odd is not None
    assert odd.ended is None


def test_names_may_be_escaped() -> None:
    assert run_of(done(**PARTS).replace(b'"done"', b'"d\\u006fne"')) == run_of(done(**PARTS))


@pytest.mark.parametrize(
    "data",
    [
        entry('he is "done"'),
        event("done"),
        compaction("done"),
        b'{"event":"done"}',
        done(prompt_tokens=1),
        done(**{**PARTS, "cache_read_tokens": None}),
        done(**{**PARTS, "output_tokens": 1.0}),
        done(**{**PARTS, "output_tokens": 2**32}),
        b'["done"]',
        b'torn "done"',
        b"",
    ],
)
def test_nothing_else_is_a_run(data: bytes) -> None:
    assert run_of(data) is None


def test_sums_add_every_count_and_the_calls_of_each_tool() -> None:
    sums = Tokens(1, 100, 90, 3, 30, 10, {"web_search": 2})
    sums.add(Tokens(2, 1, 2, 3, 4, 5, {"web_search": 1, "fetch": 7}))
    assert sums == Tokens(3, 101, 92, 6, 34, 15, {"web_search": 3, "fetch": 7})
