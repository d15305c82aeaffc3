"""Other hosts act between any two system calls of an open: it shows what was there, and nothing else.

`tests.support.opens` has the story and the check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fusefs.session import refresh
from fusefs.session.session import Session
from fusefs.views.formats import FORMATS, HISTORY, View
from storage.session import stamps
from tests.support.model import VIEWS
from tests.support.opens import DOES, Act, Round, Story, play
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

STORIES, SOAK_STORIES = 250, 10_000
BASE = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
SHOWN = [View(format_) for format_ in FORMATS if format_.name in VIEWS]
CALLS = 40
"""Most opens of these short sessions take fewer system calls."""
ACTS = 4
"""With more acts in one open, five readings may be in vain, and then G13d promises less."""

acts = st.builds(Act, st.sampled_from(DOES), st.integers(0, 4))
rounds = st.builds(
    Round,
    view=st.sampled_from(SHOWN),
    before=st.lists(acts, max_size=2).map(tuple),
    during=st.lists(st.tuples(st.integers(1, CALLS), acts), max_size=ACTS).map(tuple),
    own=st.booleans(),
    stat=st.booleans(),
)
stories = st.builds(
    Story,
    steps=st.integers(0, 6),
    rounds=st.lists(rounds, min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 1 << 16),
)


def new_session(tmp_path_factory: pytest.TempPathFactory, story: Story) -> SessionOnDisk:
    store = StoreOnDisk(tmp_path_factory.mktemp("far") / "store")
    return store.session("a_b_1", *(entry(f"{number}") for number in range(story.steps)))


@pytest.mark.guarantee("G12a", "G12c", "G13a", "G13c", "G13d")
@settings(BASE, max_examples=STORIES)
@given(stories)
def test_an_open_shows_what_was_there_whatever_other_hosts_do_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, story: Story
) -> None:
    play(story, new_session(tmp_path_factory, story))


@pytest.mark.guarantee("G13d")
def test_three_changes_do_not_use_up_the_patience_of_a_reader(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    view = View(HISTORY)
    changes = ((14, Act("removes", 0)), (32, Act("adds", 0)), (32, Act("edits", 1)))
    seen = Round(view, before=(), during=(), own=False, stat=False)
    changed = Round(view, before=(), during=changes, own=True, stat=False)
    story = Story(steps=2, rounds=(seen, changed), seed=0)
    play(story, new_session(tmp_path_factory, story))


@pytest.mark.soak
@settings(BASE, max_examples=SOAK_STORIES)
@given(stories)
def test_ten_thousand_stories_of_opens_show_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, story: Story
) -> None:
    play(story, new_session(tmp_path_factory, story))


MISTAKES: dict[str, Callable[[], Any]] = {
    "nothing is listed again after reading": lambda: patch.object(refresh, "_still_shows", yes),
    "changes while steps are read go unnoticed": lambda: patch.object(
        Session, "touches", lambda *_: False
    ),
    "edits in place go unnoticed": lambda: patch.object(stamps.Stamps, "changed", replaced),
}


def replaced(now: stamps.Stamps, since: stamps.Stamps) -> set[str]:
    """The names that were added, removed or replaced, but not those whose contents have changed."""
    return {name for name, _ in now.listed.items() ^ since.listed.items()}


async def yes(*_args: Any) -> bool:
    """What a check says that checks nothing."""
    return True


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_deliberate_mistake_is_found(
    tmp_path_factory: pytest.TempPathFactory, mistake: str
) -> None:
    """The test above is able to fail: each of these mistakes makes it fail."""

    @settings(BASE, max_examples=4 * STORIES, phases=[Phase.generate], derandomize=True)
    @given(stories)
    def run(story: Story) -> None:
        play(story, new_session(tmp_path_factory, story))

    with MISTAKES[mistake](), pytest.raises(AssertionError, match="not in"):
        run()
