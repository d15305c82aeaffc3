"""`stepfs show`: a session's history, to read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

from fusefs.cli import places, terminal
from fusefs.cli.sources import source_of, told_if_unreadable
from fusefs.exits import Exit

DESCRIPTION = """\
Read a session's history since the last compaction, in a mount or in a store: on a terminal drawn
and paged with $PAGER, elsewhere as the Markdown of history.md."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The session, and the form."""
    parser.add_argument("session", metavar="SESSION", help="its directory in a mount or a store")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, not drawn")
    parser.add_argument("--json", action="store_true", help="the lines of history.jsonl")


def run(asked: argparse.Namespace) -> int:
    """Show it."""
    place = places.find_session(asked.session)
    slug = place.session or ""
    with told_if_unreadable(place):
        source = source_of(place)
        if asked.json:
            return _written(source.history_lines(slug))
        pieces = source.history_markdown(slug)
        if asked.markdown or not terminal.is_terminal():
            return _written(piece.encode() for piece in pieces)
        _draw(pieces)
    return Exit.OK


def _written(pieces: Iterable[bytes]) -> int:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return Exit.OK


def _draw(pieces: Iterator[str]) -> None:
    from fusefs.cli.drawing import drawn

    with terminal.paged() as console:
        for piece in pieces:
            console.print(drawn(piece))
