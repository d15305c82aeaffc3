"""Programs, outside writers and accidents in every order: the guarantees must hold in each of them.

`tests.support.stage` makes the order, `tests.support.interleaving` has the story and the checks. A story
that fails is printed with its trace and the call that replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fusefs.session.recent_steps import RecentSteps
from fusefs.session.session import Session
from fusefs.views.epoch import PrefixCheck
from tests.support.interleaving import Story, play, replay
from tests.support.model import HISTORY, LOG, VIEWS

SCHEDULES = 250
SOAK_SCHEDULES = 10_000
BASE = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
LOOKS = [f"{word} {view}" for word in ("look", "hold", "stat") for view in VIEWS]
CALLS = ["append", "append", "append", "append 3", "compact", "meta", *LOOKS]
OPTIONS = ["sync=never", "sync=close", "sync=always", "sync=never,cache=1K"]


def some(words: Sequence[str], most: int) -> st.SearchStrategy[tuple[str, ...]]:
    """Up to `most` of these words, and usually more than Hypothesis would choose."""
    lengths = st.sampled_from([most, most - 1, most // 2, 0])
    return lengths.flatmap(
        lambda count: st.lists(st.sampled_from(words), min_size=count, max_size=count).map(tuple)
    )


def stories(
    outside: Sequence[str],
    daemon: Sequence[str] = (),
    *,
    calls: Sequence[str] = CALLS,
    acts: int = 3,
    steps: int = 3,
) -> st.SearchStrategy[Story]:
    """Stories with up to `acts` acts of outside writers, and with a daemon that counts in memory."""
    return st.builds(
        Story,
        programs=st.lists(some(calls, 5), min_size=2, max_size=3).map(tuple),
        daemon=some(daemon, 6) if daemon else st.just(()),
        outside=some(outside, acts),
        accidents=some(["overflow", "let go", "full"], 2),
        steps=st.integers(0, steps),
        options=st.sampled_from(OPTIONS),
        wait=st.booleans(),
        pass_steps=st.sampled_from([2048, 4, 2]),
        threads=st.booleans(),
        schedule=st.binary(min_size=100, max_size=400),
    )


@pytest.mark.guarantee("G5a", "G12a", "G12c", "G13a", "G13c", "G13d", "G15b")
@settings(BASE, max_examples=SCHEDULES)
@given(stories(["adds", "compacts"]))
def test_the_guarantees_hold_in_every_order(story: Story) -> None:
    play(story)


@pytest.mark.soak
@settings(BASE, max_examples=SOAK_SCHEDULES)
@given(stories(["adds", "compacts"]))
def test_the_guarantees_hold_in_ten_thousand_orders(story: Story) -> None:
    play(story)


SAID = ["says", "says", "says", "rests", "compacts"]


@pytest.mark.guarantee("G16a", "G16b", "G16d", "G16f")
@settings(BASE, max_examples=SCHEDULES)
@given(stories(["moves away"], SAID))
def test_nothing_is_lost_beside_a_daemon_in_any_order(story: Story) -> None:
    play(story)


@pytest.mark.soak
@settings(BASE, max_examples=SOAK_SCHEDULES)
@given(stories(["moves away"], SAID))
def test_nothing_is_lost_beside_a_daemon_in_ten_thousand_orders(story: Story) -> None:
    play(story)


CHANGING = ["adds", "adds", "compacts", "uncompacts", "edits", "removes", "hides", "brings back"]


@pytest.mark.guarantee("G12a", "G13a", "G13c")
@settings(BASE, max_examples=SCHEDULES)
@given(stories(CHANGING, calls=[*LOOKS, "append"], acts=6, steps=9))
def test_views_show_what_was_there_while_steps_come_and_go_in_any_order(story: Story) -> None:
    play(story)


@pytest.mark.soak
@settings(BASE, max_examples=SOAK_SCHEDULES)
@given(stories(CHANGING, calls=[*LOOKS, "append"], acts=6, steps=9))
def test_views_show_what_was_there_while_steps_come_and_go_in_ten_thousand_orders(
    story: Story,
) -> None:
    play(story)


STORY = Story(
    programs=(("append", f"look {HISTORY}", "append 3"), (f"hold {LOG}", "compact", f"stat {LOG}")),
    outside=("adds", "compacts"),
    accidents=("overflow", "let go"),
    schedule=bytes(range(0, 250, 7)) * 5,
)


def test_the_same_schedule_gives_the_same_run() -> None:
    first = replay(STORY)
    assert len(first) > 50
    assert replay(STORY) == first


def test_another_schedule_gives_another_run() -> None:
    assert replay(replace(STORY, schedule=STORY.schedule[::-1])) != replay(STORY)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "changes during a pass go unnoticed": (
        lambda: patch.object(Session, "touches", lambda *_: False),
        r"\.jsonl (shows|never had)",
    ),
    "nobody checks what a prefix is": (
        lambda: patch.object(PrefixCheck, "passed", True),
        r"\.jsonl changed while it was open|an inode shrank",
    ),
    "a daemon's rename is forgotten": (
        lambda: patch.object(RecentSteps, "moved_over", lambda *_: None),
        "lost",
    ),
    "an event from before a claim counts": (
        lambda: patch.object(RecentSteps, "created", lambda *_: None),
        "lost|out of order",
    ),
    "lost events are forgotten": (
        lambda: patch.object(Session, "missed", lambda _: None),
        r"\.jsonl (shows|never had)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_deliberate_mistake_is_found(mistake: str) -> None:
    """The test above is able to fail: each of these mistakes makes it fail."""

    @settings(BASE, max_examples=SCHEDULES * 4, phases=[Phase.generate], derandomize=True)
    @given(stories(["adds", "compacts", "moves away", "edits", "removes"], SAID))
    def run(story: Story) -> None:
        play(story)

    broken, complaint = MISTAKES[mistake]
    with broken(), pytest.raises(AssertionError, match=complaint):
        run()
