"""Slugs equal those of the reference."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.formats.slug import (
    SEQ_MAX,
    is_session_name,
    is_ulid,
    named_after,
    new_ulid,
    parse_session,
    sender_slug,
    sequence_number,
    session_prefix,
)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Crab", "crab"),
        ("tg:42", "tg-42"),
        ("  a -- b_", "a-b"),
        ("É Ⅷ X²", "É-Ⅷ-x²"),
        ("日本 語", "日本-語"),
        ("a/../b", "a-b"),
        ("🦀", ""),
        ("", ""),
        ("हिन्दी", "हिन-दी"),  # vowel signs are alphabetic, the virama is not
        ("cafe\u0301", "cafe"),
        ("Ⓐ①½", "Ⓐ①½"),
        ("a\u0345", "a\u0345"),
        ("a\0b\udcff", "a-b"),
    ],
)
def test_letters_and_numbers_of_all_scripts_are_kept(name: str, slug: str) -> None:
    assert sender_slug(name) == slug


@given(st.text(max_size=30))
def test_the_slug_of_a_slug_is_itself_and_stays_one_component(name: str) -> None:
    slug = sender_slug(name)
    assert sender_slug(slug) == slug
    assert not set("/._\0") & set(slug)


def test_the_prefix_joins_the_slugs_of_agent_and_sender() -> None:
    assert session_prefix("Crab", "tg:42") == "crab_tg-42_"
    assert session_prefix("", "🦀") == "__"


@pytest.mark.parametrize(
    ("slug", "parts"),
    [
        ("crab_tg-42_1", ("crab", "tg-42", 1)),
        ("__7", ("", "", 7)),
        ("É_日本_4294967295", ("É", "日本", SEQ_MAX)),
    ],
)
def test_a_session_is_named_after_agent_sender_and_number(
    slug: str, parts: tuple[str, str, int]
) -> None:
    assert parse_session(slug) == parts


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "crab",
        "crab_1",
        "crab_user_",
        "crab_user_0",
        "crab_user_01",
        "crab_user_+1",
        "crab_user_1 ",
        "crab_user_1\n",
        "crab_user_١",
        "crab_user_4294967296",
        "crab_user_x_1",
        "Crab_user_1",
        "crab-_user_1",
        "crab_a--b_1",
        "../x_user_1",
        "crab_us.er_1",
        "crab_\udcff_1",
    ],
)
def test_other_names_are_not_session_names(slug: str) -> None:
    assert parse_session(slug) is None


@given(st.integers(0, SEQ_MAX), st.sampled_from(["", "+", "0", "+000"]))
def test_every_spelling_of_a_number_counts(number: int, before: str) -> None:
    assert sequence_number(f"{before}{number}") == number


@pytest.mark.parametrize(
    "text",
    ["", "+", "-0", "-1", "1_0", " 1", "1 ", "٣", "²", "4294967296", "++1", "0x1", "1" * 5000],
)
def test_text_that_is_not_a_number_does_not_count(text: str) -> None:
    assert sequence_number(text) is None


ULID = "01M08R03HTKZZ83REJ2F4CGXK6"


def test_a_ulid_is_26_letters_of_which_the_first_is_at_most_7() -> None:
    for slug in (ULID, "7" + "Z" * 25, "0" * 26):
        assert is_ulid(slug)
    for slug in (ULID.lower(), ULID[:-1], ULID + "0", "8" + "Z" * 25, f"{ULID}\n", ""):
        assert not is_ulid(slug)
    for letter in "ILOUu-_²":
        assert not is_ulid(ULID[:-1] + letter)


def test_ulids_are_new_each_time_and_sorted_by_the_time() -> None:
    before = new_ulid()
    time.sleep(0.002)
    after = {new_ulid() for _ in range(1000)}
    assert len(after) == 1000
    assert all(map(is_ulid, after))
    assert all(before < slug for slug in after)


@pytest.mark.parametrize(
    ("slug", "about"),
    [
        ("crab_tg-42_7", ("crab", "tg-42")),
        (ULID, ("crab", "")),
        (ULID.lower(), None),
        ("8" + ULID[1:], None),
        ("notes", None),
    ],
)
def test_a_session_takes_agent_and_sender_from_its_name(
    slug: str, about: tuple[str, str] | None
) -> None:
    assert named_after(slug) == about
    assert is_session_name(slug) == (about is not None)
