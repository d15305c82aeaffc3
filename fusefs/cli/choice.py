"""Options that select sessions by their metas, and limit how many results are shown."""

from __future__ import annotations

import argparse
import fnmatch

from fusefs.cli.sources import Summary


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options that select sessions."""
    parser.add_argument("--agent", metavar="NAME", help="only sessions of this agent")
    parser.add_argument("--created-by", metavar="NAME", help="only sessions of this sender")
    parser.add_argument(
        "--match",
        metavar="PATTERN",
        help="only sessions whose name or title matches, as in the shell (*deploy*)",
    )


def is_chosen(session: Summary, asked: argparse.Namespace) -> bool:
    """Whether the options select this session."""
    return (
        (asked.agent is None or session.text("agent").lower() == asked.agent.lower())
        and (asked.created_by is None or session.text("created_by") == asked.created_by)
        and (asked.match is None or fits(asked.match, session.slug, session.text("title")))
    )


def count(text: str) -> int:
    """Parse a count, for argparse; raises `argparse.ArgumentTypeError`."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: give a whole number from 0")
    return int(text)


def fits(pattern: str, *texts: str) -> bool:
    """Whether one of the texts matches a shell pattern, ignoring case."""
    return any(fnmatch.fnmatchcase(text.lower(), pattern.lower()) for text in texts)
