"""Slugs: session names, and how the names of agents and senders are turned into them.

Earlier versions of the daemon name a session after its agent and sender, with a number; later ones use
a ULID, which says nothing about either. A store may hold sessions of both forms.
"""

from __future__ import annotations

import re
import secrets
import string
import time

import regex

SEQ_MAX = 2**32 - 1
DEFAULT_AGENT = "crab"

_NOT_KEPT = regex.compile(
    r"[^\p{Alphabetic}\p{N}]+"
)  # all that Rust's char::is_alphanumeric refuses
_LOWER_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SEQ = re.compile(r"[1-9][0-9]{0,9}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


def sender_slug(name: str) -> str:
    """The slug of a name: its letters and numbers in any script, with one `-` for each run between.

    Only ASCII letters are lowercased. The slug may be empty.
    """
    return _NOT_KEPT.sub("-", name).strip("-").translate(_LOWER_ASCII)


def session_prefix(agent: str, created_by: str) -> str:
    """The common prefix of the slugs of this agent's and sender's sessions, up to the number."""
    return f"{sender_slug(agent)}_{sender_slug(created_by)}_"


def parse_session(slug: str) -> tuple[str, str, int] | None:
    """The agent slug, sender slug and number in a session's slug; None for any other name.

    Accepts exactly the names that the reference gives to sessions.
    """
    parts = slug.split("_")
    if len(parts) != 3:
        return None
    agent, sender, seq = parts
    if sender_slug(agent) != agent or sender_slug(sender) != sender or not _SEQ.fullmatch(seq):
        return None
    number = int(seq)
    return (agent, sender, number) if number <= SEQ_MAX else None


def sequence_number(text: str) -> int | None:
    """Parse the number at the end of a slug as Rust's `str::parse::<u32>` does; None if it fails."""
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return None
    significant = digits.lstrip("0")
    number = int(significant or 0) if len(significant) <= 10 else SEQ_MAX + 1
    return number if number <= SEQ_MAX else None


def is_ulid(slug: str) -> bool:
    """Whether a slug is a ULID, as later versions of the daemon give to sessions."""
    return _ULID.fullmatch(slug) is not None


def new_ulid() -> str:
    """A new ULID: 48 bits of time in milliseconds and 80 random bits, five bits per character."""
    number = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_ULID_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def is_session_name(slug: str) -> bool:
    """Whether a slug has one of the two forms of session names."""
    return named_after(slug) is not None


def named_after(slug: str) -> tuple[str, str] | None:
    """The agent and sender to put into the meta of a session with this name.

    A ULID names neither: the agent is then the daemon's default and the sender empty. None if the
    name is not a session's.
    """
    if is_ulid(slug):
        return DEFAULT_AGENT, ""
    parts = parse_session(slug)
    return parts and parts[:2]
