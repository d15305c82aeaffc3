"""The latest session is the one that a daemon of the store's version would continue."""

from __future__ import annotations

from typing import NoReturn

from hypothesis import given
from hypothesis import strategies as st

from storage.latest import Latest, links, session_of
from storage.session.meta import Meta

EARLY, LATE = "01HF7YAT00M89319BMDPBQG150", "01M08R03HTKZZ83REJ2F4CGXK6"
EARLY_DAY, LATE_DAY = "2026-06-04T09:00:00+00:00", "2026-06-05T09:00:00+00:00"


def about(agent: str, created_by: str, created_at: str = EARLY_DAY) -> Meta:
    return {"agent": agent, "created_by": created_by, "created_at": created_at}


def unread(_slug: str) -> NoReturn:
    raise AssertionError("no meta need be read")


def test_without_ulids_the_greatest_number_is_the_latest_and_no_meta_is_read() -> None:
    slugs = ["crab_tg-42_2", "crab_tg-42_10", "crab_tg-42_9", "crab_x_99", "odd"]
    assert links(slugs, unread) == {"crab_tg-42": "crab_tg-42_10", "crab_x": "crab_x_99"}
    assert session_of("Crab", "tg:42", slugs, unread) == "crab_tg-42_10"
    assert session_of("Crab", "tg:43", slugs, unread) is None


def test_with_a_ulid_the_newest_by_the_metas_is_the_latest_whatever_its_slug() -> None:
    metas = {
        LATE: about("crab", "tg:42"),
        EARLY: about("crab", "tg:42", LATE_DAY),
        "crab_tg-42_7": about("crab", "tg:42", "2026-06-04T23:00:00+00:00"),
    }
    assert links(metas, metas.get) == {"crab_tg-42": EARLY}
    assert session_of("crab", "tg:42", metas, metas.get) == EARLY
    metas["crab_tg-42_7"] = about("crab", "tg:42", "2026-07-01T00:00:00+00:00")
    assert links(metas, metas.get) == {"crab_tg-42": "crab_tg-42_7"}


def test_of_equal_times_the_greater_slug_is_the_latest() -> None:
    metas = {LATE: about("crab", "x"), EARLY: about("crab", "x")}
    assert links(metas, metas.get) == {"crab_x": LATE}


def test_times_are_compared_as_text() -> None:
    metas = {
        LATE: about("crab", "x", "2026-06-04T09:00:00+00:00"),
        EARLY: about("crab", "x", "2026-06-04T09:00:00.5+00:00"),
    }
    assert links(metas, metas.get) == {"crab_x": EARLY}


def test_other_pairs_go_by_their_numbers_beside_one_with_ulids() -> None:
    metas = {
        LATE: about("crab", "x"),
        "crab_y_2": about("crab", "y", LATE_DAY),
        "crab_y_10": about("crab", "y", EARLY_DAY),
    }
    assert links(metas, metas.get) == {"crab_x": LATE, "crab_y": "crab_y_10"}
    assert session_of("crab", "y", metas, metas.get) == "crab_y_10"


def test_pairs_are_told_apart_by_their_strings_and_the_newest_has_the_shared_name() -> None:
    metas = {
        LATE: about("crab", "tg:42"),
        EARLY: about("Crab", "tg-42", LATE_DAY),
        "crab_tg-42_1": about("CRAB", "tg 42", "2026-06-04T10:00:00+00:00"),
    }
    assert session_of("crab", "tg:42", metas, metas.get) == LATE
    assert session_of("Crab", "tg-42", metas, metas.get) == EARLY
    assert session_of("CRAB", "tg 42", metas, metas.get) == "crab_tg-42_1"
    assert links(metas, metas.get) == {"crab_tg-42": EARLY}


def test_a_broken_meta_is_never_the_latest_beside_a_sound_one() -> None:
    metas: dict[str, Meta | None] = {
        LATE: None,
        EARLY: about("crab", "x"),
        "crab_x_9": None,
        "crab_z_3": None,
    }
    assert links(metas, metas.get) == {"crab_x": EARLY, "crab_z": "crab_z_3"}
    assert session_of("crab", "x", metas, metas.get) == EARLY


SLUGS = st.sampled_from(
    [LATE, EARLY, "odd", "a_b", "crab_y_x", "crab_X_3"]
    + [f"{pair}_{number}" for pair in ("crab_x", "crab_x-y", "crab_") for number in (1, 2, 9, 10)]
)
TIMES = st.sampled_from([EARLY_DAY, LATE_DAY])


@given(st.lists(st.tuples(st.booleans(), SLUGS, TIMES), max_size=30))
def test_incremental_updates_give_the_same_links_as_a_full_scan(
    changes: list[tuple[bool, str, str]],
) -> None:
    metas: dict[str, Meta] = {}
    latest = Latest(metas.get)
    for comes, slug, created_at in changes:
        if comes:
            metas[slug] = about("crab", "x", created_at)
            latest.put(slug)
        elif metas.pop(slug, None) is not None:
            latest.discard(slug)
        assert latest.links(sorted(metas)) == links(metas, metas.get)
