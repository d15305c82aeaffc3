"""Slugs: the names of sessions, and what of a person's or agent's name goes into them.

Earlier versions of the daemon name a session after its agent and sender, with a number; later ones give
it a ULID, which tells nothing of the two. A store may hold sessions of both.
"""

from __future__ import annotations

import re
import secrets
import string
import time

import regex

SEQ_MAX = 2**32 - 1
DEFAULT_AGENT = "crab"

_NOT_KEPT = regex.compile(r"[^\p{Alphabetic}\p{N}]+")  # what Rust's char::is_alphanumeric is not
_LOWER_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SEQ = re.compile(r"[1-9][0-9]{0,9}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


def sender_slug(name: str) -> str:
    """The slug of a name: letters and numbers of all scripts, everything between them one `-`.

    Only ASCII letters are lowered. It may be empty.
    """
    return _NOT_KEPT.sub("-", name).strip("-").translate(_LOWER_ASCII)


def session_prefix(agent: str, created_by: str) -> str:
    """What the slugs of the sessions of this agent and sender begin with, up to the number."""
    return f"{sender_slug(agent)}_{sender_slug(created_by)}_"


def parse_session(slug: str) -> tuple[str, str, int] | None:
    """The agent slug, sender slug and number of a session; None for names of another form.

    The form is exactly that of the names which the reference gives to sessions.
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
    """The number that `text`, the end of a slug, is; None if it is none (Rust's `str::parse::<u32>`)."""
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return None
    significant = digits.lstrip("0")
    number = int(significant or 0) if len(significant) <= 10 else SEQ_MAX + 1
    return number if number <= SEQ_MAX else None


def is_ulid(slug: str) -> bool:
    """Whether a slug has the form of those that later versions of the daemon give to sessions."""
    return _ULID.fullmatch(slug) is not None


def new_ulid() -> str:
    """A new ULID: 48 bits of the time in milliseconds, 80 random ones, five in each letter."""
    number = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_ULID_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def is_session_name(slug: str) -> bool:
    """Whether a slug has one of the two forms of the names of sessions."""
    return named_after(slug) is not None


def named_after(slug: str) -> tuple[str, str] | None:
    """The agent and sender that the meta of a session made under that name is given.

    A ULID tells neither: the agent is the daemon's default, the sender empty. None for a name of no
    session's form.
    """
    if is_ulid(slug):
        return DEFAULT_AGENT, ""
    parts = parse_session(slug)
    return parts and parts[:2]
