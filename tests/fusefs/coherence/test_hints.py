"""Which messages are valid hints, and that a URL is shown without its password."""

from __future__ import annotations

import pytest

from fusefs.coherence.hints import MESSAGE_BYTES, MESSAGE_SESSIONS, decode, encode, shown

SENDER = b"0123abcd"


def test_a_message_says_who_stored_in_which_sessions() -> None:
    slugs = ["crab_tg-42_1", "Ⅷ_x_2", "raw\udcff\n_1"]
    assert decode(encode(SENDER, slugs)) == (SENDER, slugs)


def test_a_full_message_of_the_longest_names_is_a_valid_hint() -> None:
    message = encode(SENDER, ["n" * 255] * MESSAGE_SESSIONS)
    assert len(message) <= MESSAGE_BYTES
    assert decode(message) is not None


@pytest.mark.guarantee("G28b")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        SENDER,
        SENDER + b"\0",
        b"short\0crab_tg-42_1",
        SENDER + b"\0a\0\0b",
        SENDER + b"\0a" * (MESSAGE_SESSIONS + 1),
        SENDER + b"\0" + b"a" * MESSAGE_BYTES,
        1,
        None,
    ],
)
def test_malformed_messages_are_not_hints(data: object) -> None:
    assert decode(data) is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:secret@db.example:6379/1", "redis://db.example:6379/1"),
        ("rediss://user:s%40cret@db.example", "rediss://db.example"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_password_is_not_shown(url: str, text: str) -> None:
    assert shown(url) == text
