"""Slugs are those that the reference gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.formats.slug import SEQ_MAX, parse_session, sender_slug, session_prefix


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
def test_other_names_are_no_names_of_sessions(slug: str) -> None:
    assert parse_session(slug) is None
