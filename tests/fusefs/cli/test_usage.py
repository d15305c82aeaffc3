"""`stepfs usage`: the same on a mount and on the bare store; expected sums are calculated by hand."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusefs.exits import Exit
from tests.support.commands import SECONDS, STEPFS, environment, run, stepfs
from tests.support.mounted import Mount
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, compaction, entry
from tests.support.terminals import on_terminal, without_colours


def done(model: str, ts: str, **usage: Any) -> bytes:
    document = {
        "event": "done",
        "model": model,
        "iterations": 1,
        "stop_reason": "stop",
        "usage": usage,
        "ts": ts,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def wholes(model: str, ts: str, sent: int, came: int, cached: int | None = None) -> bytes:
    """A run as recorded in the first dialect."""
    return done(
        model,
        ts,
        prompt_tokens=sent,
        completion_tokens=came,
        total_tokens=sent + came,
        prompt_cache_hit_tokens=cached,
    )


def parts(model: str, ts: str, *counts: int, **tools: int) -> bytes:
    """A run as recorded in the later dialect."""
    names = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
    )
    usage: dict[str, Any] = dict(zip(names, counts, strict=True))
    return done(model, ts, **usage, **({"server_tool_calls": tools} if tools else {}))


def about(session: SessionOnDisk, **keys: Any) -> None:
    (session.path / "meta").write_text(json.dumps({**META, **keys}))


@pytest.fixture(params=["store", "mount"])
def root(request: pytest.FixtureRequest, store: StoreOnDisk, mount: Callable[..., Mount]) -> Path:
    crab = store.session(
        "crab_tg-42_1",
        entry('it is "done"'),
        wholes("old-1", "2026-04-28T10:00:00+00:00", 1000, 100, 600),
        compaction("monday"),
        wholes("old-1", "2026-04-29T10:00:00+00:00", 2000, 10),
        b'torn {"event":"done"',
        parts("new-2", "2026-04-29T11:00:00+00:00", 1, 20, 300, 4000, 50000, web_search=3),
    )
    scout = store.session(
        "scout_cron_1",
        parts("new-2", "2026-04-28T23:59:59.999999999+00:00", 7, 0, 0, 8, 0, web_search=1),
        parts("new-2", "at some time", 1, 0, 0, 1, 0),
    )
    about(crab, title="Full disk")
    about(scout, agent="Scout", created_by="cron")
    store.session("crab_tg-42_2", entry("nothing yet"))
    return store.path if request.param == "store" else mount().path


def rows(*arguments: str | Path) -> list[str]:
    answer = run([*STEPFS, "usage", *map(str, arguments)], TZ="UTC")
    assert (answer.returncode, answer.stderr) == (0, "")
    return [line.replace("\t", " ") for line in answer.stdout.splitlines()]


def test_tokens_are_summed_by_session_the_greatest_first(root: Path) -> None:
    # crab: input 1000 + 2000 + (1 + 20 + 300), output 100 + 10 + (4000 + 50000)
    assert rows(root) == [
        "crab_tg-42_1 3 3321 620 300 54110 50000 57431",
        "scout_cron_1 2 8 0 0 9 0 17",
    ]


def test_tokens_are_summed_by_model(root: Path) -> None:
    # new-2: input 321 + 7 + 1, output 54000 + 8 + 1
    assert rows(root, "--by", "model") == [
        "new-2 3 329 20 300 54009 50000 54338",
        "old-1 2 3000 600 0 110 0 3110",
    ]


def test_tokens_are_summed_by_day_in_the_order_of_days(root: Path) -> None:
    assert rows(root, "--by", "day") == [
        "- 1 1 0 0 1 0 2",
        "2026-04-28 2 1007 600 0 108 0 1115",
        "2026-04-29 2 2321 20 300 54010 50000 56331",
    ]


def test_days_are_those_of_the_time_zone(root: Path) -> None:
    answer = run([*STEPFS, "usage", "--by", "day", str(root)], TZ="Asia/Tokyo")
    # 23:59:59 in UTC is the next morning there.
    assert [line.split("\t")[:2] for line in answer.stdout.splitlines()] == [
        ["-", "1"],
        ["2026-04-28", "1"],
        ["2026-04-29", "3"],
    ]


def test_keys_combine(root: Path) -> None:
    assert rows(root, "--by", "day", "--by", "model", "--since", "2026-04-28T00:00Z") == [
        "2026-04-28 new-2 1 7 0 0 8 0 15",
        "2026-04-28 old-1 1 1000 600 0 100 0 1100",
        "2026-04-29 new-2 1 321 20 300 54000 50000 54321",
        "2026-04-29 old-1 1 2000 0 0 10 0 2010",
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--model", "OLD-*"], ["crab_tg-42_1 2 3000 600 0 110 0 3110"]),
        (["--agent", "scout"], ["scout_cron_1 2 8 0 0 9 0 17"]),
        (["--created-by", "cron"], ["scout_cron_1 2 8 0 0 9 0 17"]),
        (["--match", "*disk"], ["crab_tg-42_1 3 3321 620 300 54110 50000 57431"]),
        (
            ["--since", "2026-04-28T10:00:00Z", "--until", "2026-04-29T10:00:00Z"],
            ["crab_tg-42_1 2 3000 600 0 110 0 3110", "scout_cron_1 1 7 0 0 8 0 15"],
        ),
        (["--agent", "nobody"], []),
    ],
)
def test_filters_choose_sessions_models_and_times(
    root: Path, filters: list[str], expected: list[str]
) -> None:
    assert rows(root, *filters) == expected


def test_a_session_or_a_file_in_it_is_summed_by_itself(root: Path) -> None:
    expected = ["scout_cron_1 2 8 0 0 9 0 17"]
    assert rows(root / "scout_cron_1") == expected
    (name,) = {"meta", "meta.json"} & set(os.listdir(root / "scout_cron_1"))
    assert rows(root / "scout_cron_1" / name) == expected


def test_json_has_an_object_a_line_with_all_counts(root: Path) -> None:
    lines = rows("--json", "--by", "day", "--by", "session", root / "scout_cron_1")
    assert [json.loads(line) for line in lines] == [
        {
            "day": None,
            "session": "scout_cron_1",
            "runs": 1,
            "prompt_tokens": 1,
            "cache_read_tokens": 0,
            "cache_write_tokens": 0,
            "completion_tokens": 1,
            "reasoning_tokens": 0,
            "server_tool_calls": {},
            "total_tokens": 2,
        },
        {
            "day": "2026-04-28",
            "session": "scout_cron_1",
            "runs": 1,
            "prompt_tokens": 7,
            "cache_read_tokens": 0,
            "cache_write_tokens": 0,
            "completion_tokens": 8,
            "reasoning_tokens": 0,
            "server_tool_calls": {"web_search": 1},
            "total_tokens": 15,
        },
    ]
    (model,) = (
        json.loads(line) for line in rows("--json", "--by", "model", "--model", "new*", root)
    )
    assert (model["total_tokens"], model["server_tool_calls"]) == (54338, {"web_search": 4})


def test_json_by_session_comes_as_each_session_is_known(store: StoreOnDisk) -> None:
    store.session("a_x_1", wholes("m", "2026-04-28T10:00:00+00:00", 1, 1))
    long = store.session("b_x_1").path / "step-000001"
    with long.open("wb") as file:
        file.truncate(60 << 20)
    for number in range(2, 40):
        os.link(long, store.session(f"b_x_{number}").path / "step-000001")
    command = [*STEPFS, "usage", "--json", str(store.path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["session"] == "a_x_1"
        assert process.poll() is None
        process.kill()
        process.wait(SECONDS)


def test_runs_copied_by_a_fork_are_counted_only_with_their_origin(root: Path) -> None:
    before = rows(root)
    fork = stepfs("new", "--from", "crab_tg-42_1", root).stdout.strip()
    assert rows(root) == before
    later = wholes("m", "2126-01-01T00:00:00+00:00", 5, 5).decode()
    assert stepfs("append", root / fork, later).returncode == 0
    assert sorted(rows(root)) == sorted([*before, f"{fork} 1 5 0 0 5 0 10"])


def test_a_copied_run_of_an_unknown_time_is_counted_only_with_its_origin(root: Path) -> None:
    undated = wholes("m", "yesterday", 5, 5).decode()
    assert stepfs("append", root / "crab_tg-42_1", undated).returncode == 0
    before = rows(root)
    stepfs("new", "--from", "crab_tg-42_1", root)
    assert rows(root) == before


def test_a_mount_is_enough_where_its_store_is_out_of_reach(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("a_x_1", wholes("m", "2026-04-28T10:00:00+00:00", 7, 2), entry("hi"))
    at = mount()
    at.expected.append("is no longer at")
    place = at.path
    expected = ["a_x_1 1 7 0 0 2 0 9"]
    assert rows(place) == rows(place / session.slug) == expected
    hidden = store.path.rename(store.path.with_name("elsewhere"))
    try:
        assert rows(place) == rows(place / session.slug) == expected
        store.path.mkdir()  # a different store has taken the path that the mount reports
        assert rows(place) == rows(place / session.slug) == expected
        store.path.rmdir()
    finally:
        hidden.rename(store.path)


def test_many_sessions_are_all_counted(store: StoreOnDisk) -> None:
    for number in range(300):
        store.session(f"crab_x_{number}", wholes("m", "2026-04-28T10:00:00+00:00", number, 1))
    assert rows(store.path, "--by", "model") == [f"m 300 {299 * 150} 0 0 300 0 {299 * 150 + 300}"]
    assert len(rows(store.path)) == 300
    named = [json.loads(line)["session"] for line in rows(store.path, "--json")]
    assert named == sorted(named)


def test_a_terminal_shows_bars_and_a_row_for_all(root: Path) -> None:
    shown = on_terminal("usage", root)
    assert "\x1b[36mcrab_tg-42_1" in shown
    lines = without_colours(shown).splitlines()
    heading, crab, scout, everything = (line.split() for line in lines)
    assert heading == [
        "session",
        "runs",
        "input",
        "cached",
        "written",
        "output",
        "reasoning",
        "total",
    ]
    assert crab == [
        *["crab_tg-42_1", "3", "3.32k", "620", "300", "54.1k", "50.0k", "57.4k"],
        "█" * 24,
    ]
    assert scout == ["scout_cron_1", "2", "8", "0", "0", "9", "0", "17"]
    assert everything == ["all", "5", "3.33k", "620", "300", "54.1k", "50.0k", "57.4k"]
    assert "\x1b[" not in on_terminal("usage", root, NO_COLOR="1", TERM="dumb")


def test_on_a_terminal_an_empty_result_is_stated(root: Path) -> None:
    assert on_terminal("usage", root / "crab_tg-42_2") == "stepfs: no finished runs were found\r\n"


def test_impossible_requests_are_explained(root: Path) -> None:
    for arguments, code, sentence in (
        ([root / "no_such_1"], None, "no_such_1"),
        (["/nowhere/at/all"], Exit.STORE, "does not exist"),
        ([root, "--by", "week"], Exit.USAGE, "invalid choice: 'week'"),
        ([root, "--since", "soon"], Exit.USAGE, "'soon' is not a time"),
    ):
        answer = stepfs("usage", *arguments)
        assert answer.returncode == code if code else answer.returncode
        assert answer.stdout == ""
        assert answer.stderr.count("\n") == 1
        assert sentence in answer.stderr
