"""Which sessions a command is about, by what their metas say, and how much of it is wanted."""

from __future__ import annotations

import argparse
import fnmatch

from fusefs.cli.sources import Summary


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose sessions."""
    parser.add_argument("--agent", metavar="NAME", help="of this agent alone")
    parser.add_argument("--created-by", metavar="NAME", help="begun by this sender alone")
    parser.add_argument(
        "--match", metavar="PATTERN", help="whose name or title fits, as in the shell (*deploy*)"
    )


def is_chosen(session: Summary, asked: argparse.Namespace) -> bool:
    """Whether the options choose it."""
    return (
        (asked.agent is None or session.text("agent").lower() == asked.agent.lower())
        and (asked.created_by is None or session.text("created_by") == asked.created_by)
        and (asked.match is None or fits(asked.match, session.slug, session.text("title")))
    )


def count(text: str) -> int:
    """How many. Raises `argparse.ArgumentTypeError`, as argparse wants of a type."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no count: give a whole number from 0")
    return int(text)


def fits(pattern: str, *texts: str) -> bool:
    """Whether one of the texts fits a pattern of the shell, in small or capital letters."""
    return any(fnmatch.fnmatchcase(text.lower(), pattern.lower()) for text in texts)
