"""Slugs: the names of sessions, and what of a person's or agent's name goes into them."""

from __future__ import annotations

import re
import string

import regex

SEQ_MAX = 2**32 - 1

_NOT_KEPT = regex.compile(r"[^\p{Alphabetic}\p{N}]+")  # what Rust's char::is_alphanumeric is not
_LOWER_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SEQ = re.compile(r"[1-9][0-9]{0,9}")


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
