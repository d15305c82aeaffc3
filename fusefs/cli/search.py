"""`stepfs search`: search all messages in a store for a pattern."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from fusefs.cli import places, terminal
from fusefs.cli.places import Place
from fusefs.cli.spread import spread
from fusefs.cli.times import TIME_HELP, moment
from fusefs.exits import CommandError, Exit
from storage.errors import printable
from storage.posix import open_directory, opened_directory
from storage.search.look import search_sessions, sessions
from storage.search.query import Query, needed

if TYPE_CHECKING:
    from rich.text import Text

    from storage.search.texts import Hit

DESCRIPTION = """\
Search all messages in a store, or in the store of a mount, including those before a compaction, for
a regular expression. Prints session, step, role and the line, separated by tabs, or in colours on a
terminal. Arguments and results of tools are only searched with --tools: they may hold credentials.
Exits with 9 if nothing was found."""

SNIPPET_CHARACTERS: Final = 160


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: the pattern, where to search, and what."""
    parser.add_argument("pattern", metavar="PATTERN", help="a Python regular expression")
    parser.add_argument("path", metavar="PATH", nargs="?", help=places.PATH_HELP)
    parser.add_argument("-F", "--fixed", action="store_true", help="take PATTERN literally")
    parser.add_argument("-i", "--ignore-case", action="store_true", help="ignore case")
    parser.add_argument("-l", "--sessions", action="store_true", help="only the sessions' names")
    parser.add_argument("--role", metavar="ROLE", help="said by user, assistant, system or tool")
    parser.add_argument("--agent", metavar="NAME", help="in sessions of this agent, or by it")
    parser.add_argument("--since", metavar="TIME", type=moment, help=f"stored since: {TIME_HELP}")
    parser.add_argument("--until", metavar="TIME", type=moment, help="stored by then")
    parser.add_argument("--tools", action="store_true", help="also arguments and results of tools")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(asked: argparse.Namespace) -> int:
    """Print matches as they are found. Raises `CommandError` at the end if something was unreadable."""
    place = places.find(asked.path)
    root = _store_of(place)
    printed, unread = 0, list[OSError]()
    for hits, failed in spread(partial(_search, root, _query(asked)), _slugs(root, place.session)):
        _print(hits, asked)
        printed += len(hits)
        unread += failed
    if unread:
        raise CommandError(Exit.FAILED, _not_searched(unread))
    return Exit.OK if printed else Exit.NOTHING_FOUND


def _not_searched(unread: Sequence[OSError]) -> str:
    first = f"{printable(unread[0].filename)} could not be searched: {unread[0].strerror}"
    return first if len(unread) == 1 else f"{first}; nor could {len(unread) - 1} others"


def _query(asked: argparse.Namespace) -> Query:
    pattern = re.escape(asked.pattern) if asked.fixed else asked.pattern
    try:
        with warnings.catch_warnings(action="ignore"):
            compiled = re.compile(pattern, re.IGNORECASE if asked.ignore_case else 0)
    except re.error as error:
        hint = "" if asked.fixed else "; -F takes it literally"
        sentence = f"{printable(asked.pattern)} is not a regular expression: {error}{hint}"
        raise CommandError(Exit.USAGE, sentence) from None
    return Query(
        compiled,
        needed(
            asked.pattern,
            fixed=asked.fixed,
            ignore_case=asked.ignore_case,
            tools=asked.tools,
        ),
        ignore_case=asked.ignore_case,
        role=asked.role,
        agent=asked.agent,
        since=asked.since,
        until=asked.until,
        tools=asked.tools,
    )


def _store_of(place: Place) -> str:
    """The path of the store, which is read directly even if a mount is given: that is faster."""
    if not place.is_mount:
        return place.root
    root = places.store_of(place)
    try:
        os.close(open_directory(root))
    except OSError as error:
        sentence = f"the store {printable(root)} cannot be read: {error.strerror}"
        hint = f"the mount can be searched: grep -r PATTERN {printable(place.root)}"
        raise CommandError(Exit.STORE, f"{sentence}; {hint}") from None
    return root


def _slugs(root: str, session: str | None) -> list[str]:
    """The given session, or everything in the store that may be one."""
    if session is not None:
        return [session]
    with opened_directory(root) as store:
        return sessions(store)


def _search(root: str, query: Query, slugs: Sequence[str]) -> tuple[list[Hit], list[OSError]]:
    unread: list[OSError] = []
    with opened_directory(root) as store:
        return list(search_sessions(store, slugs, query, unread)), unread


def _print(hits: Sequence[Hit], asked: argparse.Namespace) -> None:
    if asked.sessions:
        slugs = dict.fromkeys(hit.session for hit in hits)
        if asked.json:
            terminal.print_json_lines({"session": slug} for slug in slugs)
        else:
            terminal.print_lines(map(terminal.cell, slugs))
    elif asked.json:
        from dataclasses import asdict

        terminal.print_json_lines(map(asdict, hits))
    elif terminal.is_terminal():
        console = terminal.console()
        for hit in hits:
            console.print(_coloured(hit), soft_wrap=True)
    else:
        terminal.print_lines(map(_row, hits))


def _row(hit: Hit) -> str:
    where = terminal.cell(hit.session), str(hit.step), terminal.cell(hit.role)
    return "\t".join((*where, _snippet(hit)[0]))


def _snippet(hit: Hit) -> tuple[str, int, int]:
    """The line, cut around the match if it is long; and where the match begins and ends in that."""
    first = max(0, min(hit.start - SNIPPET_CHARACTERS // 3, len(hit.line) - SNIPPET_CHARACTERS))
    last = min(len(hit.line), max(first + SNIPPET_CHARACTERS, hit.start + SNIPPET_CHARACTERS // 2))
    before, after = "…" * (first > 0), "…" * (last < len(hit.line))
    text = before + terminal.cell(hit.line[first:last]) + after
    moved = len(before) - first
    return text, hit.start + moved, min(hit.end, last) + moved


def _coloured(hit: Hit) -> Text:
    from rich.text import Text

    snippet, start, end = _snippet(hit)
    shown = Text(snippet)
    shown.stylize("bold red", start, end)
    where = Text.assemble(
        (terminal.cell(hit.session), "cyan"),
        (f":{hit.step} ", "green"),
        (f"{terminal.cell(hit.role)}: ", "bold"),
    )
    return where + shown
