"""`stepfs show`: read a session's history."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from fusefs.cli import places, terminal
from fusefs.cli.sources import Summary, source_of, told_if_unreadable
from fusefs.exits import Exit

DESCRIPTION = """\
Show a session's history since the last compaction, in a mount or in a store. On a terminal it is
rendered and paged with $PAGER, below the session's title and the time of its last change; elsewhere
it is the Markdown of history.md."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: the session, and the output format."""
    parser.add_argument("session", metavar="SESSION", help="its directory in a mount or a store")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, not rendered")
    parser.add_argument("--json", action="store_true", help="print the lines of history.jsonl")


def run(asked: argparse.Namespace) -> int:
    """Show the history. Raises `CommandError`."""
    place = places.find_session(asked.session)
    slug = place.session or ""
    with told_if_unreadable(place):
        source = source_of(place)
        if asked.json:
            return _written(source.history_lines(slug))
        pieces = source.history_markdown(slug)
        if asked.markdown or not terminal.is_terminal():
            return _written(piece.encode() for piece in pieces)
        _draw(source.summary(slug), pieces)
    return Exit.OK


def _written(pieces: Iterable[bytes]) -> int:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return Exit.OK


def _draw(session: Summary, pieces: Iterator[str]) -> None:
    from fusefs.cli.drawing import drawn

    with terminal.paged() as console:
        console.print("\n".join(_about(session)), style="bold", soft_wrap=True)
        for piece in pieces:
            console.print(drawn(piece))


def _about(session: Summary) -> Iterator[str]:
    """The title and the last change, which history.md leaves out because they may change (G13)."""
    if title := session.text("title"):
        yield terminal.cell(title)
    changed = datetime.fromtimestamp(session.changed, UTC)
    yield f"Last changed {changed:%Y-%m-%d %H:%M:%S}."
