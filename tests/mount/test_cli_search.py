"""`stepfs search`: the same on a mount and on the bare store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.exits import Exit
from tests.support.commands import stepfs
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, compaction, entry
from tests.support.terminals import on_terminal, without_colours

LONG = "x" * 400 + "needle" + "y" * 400


@pytest.fixture(params=["store", "mount"])
def root(request: pytest.FixtureRequest, store: StoreOnDisk, mount: Callable[..., Mount]) -> Path:
    store.session("crab_tg-42_1", entry("the disk is full"), compaction("a"), entry("which\tdisk?"))
    store.session("scout_cron_1", entry(LONG), entry("a report on\ndisks"))
    return store.path if request.param == "store" else mount().path


def test_what_was_said_is_found_with_session_step_and_role(root: Path) -> None:
    answer = stepfs("search", "disk", root)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        "crab_tg-42_1\t1\tuser\tthe disk is full",
        "crab_tg-42_1\t3\tuser\twhich disk?",
        "scout_cron_1\t2\tuser\tdisks",
    ]
    assert stepfs("search", "disk", root / "scout_cron_1").stdout.count("\n") == 1


def test_nothing_found_is_told_by_the_exit_code(root: Path) -> None:
    answer = stepfs("search", "plate", root)
    assert (answer.returncode, answer.stdout, answer.stderr) == (Exit.NOTHING_FOUND, "", "")


def test_of_a_long_line_what_is_around_the_match_is_shown(root: Path) -> None:
    shown = stepfs("search", "needle", root).stdout
    assert "needle" in shown
    assert len(shown) < 250
    assert shown.count("…") == 2


def test_names_alone_or_json_for_programs(root: Path) -> None:
    assert stepfs("search", "-l", "disk", root).stdout == "crab_tg-42_1\nscout_cron_1\n"
    lines = stepfs("search", "--json", "-F", "-i", "WHICH\tDISK?", root).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "session": "crab_tg-42_1",
            "step": 3,
            "role": "user",
            "part": "text",
            "line": "which\tdisk?",
            "start": 0,
            "end": 11,
        }
    ]


def test_each_match_is_one_row_whatever_the_names_hold(store: StoreOnDisk) -> None:
    store.session(os.fsdecode(b"no\xff\n\x1b[1m_a_1"), entry("the disk", "us\ner"))
    row = "no\ufffd␊␛[1m_a_1\t1\tus␊er\tthe disk\n"
    assert stepfs("search", "disk", store.path).stdout == row
    assert stepfs("search", "-l", "disk", store.path).stdout == "no\ufffd␊␛[1m_a_1\n"
    shown = without_colours(on_terminal("search", "disk", store.path))
    assert shown == "no\ufffd␊␛[1m_a_1:1 us␊er: the disk\n"
    for options in ([], ["-l"]):
        answer = stepfs("search", "--json", *options, "disk", store.path)
        assert json.loads(answer.stdout)["session"] == "no\\xff\n\x1b[1m_a_1"


def test_a_pattern_that_is_none_is_explained(root: Path) -> None:
    answer = stepfs("search", "a(", root)
    assert answer.returncode == Exit.USAGE
    assert "a( is not a regular expression" in answer.stderr
    assert "-F takes it literally" in answer.stderr


def test_many_sessions_are_searched_in_their_order(store: StoreOnDisk) -> None:
    for number in range(300):
        store.session(f"crab_x_{number}", entry(f"message {number}"))
    lines = stepfs("search", "message", store.path).stdout.splitlines()
    assert [line.partition("\t")[0] for line in lines] == sorted(
        f"crab_x_{number}" for number in range(300)
    )


def test_a_terminal_shows_the_match_in_colours(root: Path) -> None:
    shown = on_terminal("search", "disk is", str(root))
    assert "\x1b[1;31mdisk is\x1b[0m" in shown
    assert "crab_tg-42_1:1 user: the disk is full" in without_colours(shown)
