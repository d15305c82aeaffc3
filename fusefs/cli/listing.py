"""`stepfs ls`: list the sessions of a store or a mount."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, Final

from fusefs.cli import choice, places, terminal
from fusefs.cli.sources import Summary, source_of, told_if_unreadable
from fusefs.cli.terminal import Column
from fusefs.cli.times import TIME_HELP, local, moment
from fusefs.exits import Exit

DESCRIPTION = """\
List the sessions of a store or of a mount, last changed first: name, agent, sender, messages since
the last compaction as the daemon counts them, last change, title. Prints a table on a terminal, else
one line per session, separated by tabs."""

COLUMNS: Final = (
    Column("session", "cyan"),
    Column("agent"),
    Column("from"),
    Column("messages", number=True),
    Column("changed", "green"),
    Column("title", wraps=True),
)
SORTED: Final[dict[str, tuple[Callable[[Summary], Any], bool]]] = {
    "changed": (lambda session: session.changed, True),
    "created": (lambda session: session.text("created_at"), True),
    "session": (lambda session: session.slug, False),
    "agent": (lambda session: session.text("agent"), False),
    "title": (lambda session: session.text("title").lower(), False),
    "messages": (lambda session: session.messages, True),
}
"""Sort orders: the key, and whether the greatest comes first."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: which sessions, and in which order."""
    parser.add_argument("path", metavar="PATH", nargs="?", help=places.PATH_HELP)
    choice.arguments(parser)
    parser.add_argument("--since", metavar="TIME", type=moment, help=f"changed since: {TIME_HELP}")
    parser.add_argument("--until", metavar="TIME", type=moment, help="changed by then")
    parser.add_argument("--sort", choices=SORTED, default="changed", help="(default changed)")
    parser.add_argument("-r", "--reverse", action="store_true", help="reverse the order")
    parser.add_argument("-n", "--first", metavar="N", type=choice.count, help="at most N sessions")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(asked: argparse.Namespace) -> int:
    """Print the selected sessions. Raises `CommandError`."""
    place = places.find(asked.path)
    with told_if_unreadable(place):
        source = source_of(place)
        found = [source.summary(place.session)] if place.session else source.summaries()
        wanted = (session for session in found if _is_wanted(session, asked))
        sessions = _sorted(wanted, asked.sort, asked.reverse)[: asked.first]
    if asked.json:
        terminal.print_json_lines(session.document() for session in sessions)
    else:
        terminal.print_table(COLUMNS, map(_row, sessions))
    return Exit.OK


def _is_wanted(session: Summary, asked: argparse.Namespace) -> bool:
    return (
        choice.is_chosen(session, asked)
        and (asked.since is None or session.changed >= asked.since)
        and (asked.until is None or session.changed <= asked.until)
    )


def _sorted(sessions: Iterable[Summary], order: str, reverse: bool) -> list[Summary]:
    key, greatest_first = SORTED[order]
    by_name = sorted(sessions, key=lambda session: session.slug)
    return sorted(by_name, key=key, reverse=greatest_first != reverse)


def _row(session: Summary) -> tuple[str, ...]:
    return (
        session.slug,
        session.text("agent"),
        session.text("created_by"),
        str(session.messages),
        local(session.changed),
        session.text("title"),
    )
