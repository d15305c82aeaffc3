"""What commands print: tables with colours for people at a terminal, plain lines for everything else.

Colours follow NO_COLOR, FORCE_COLOR and TERM. The library that draws is loaded only when something
is drawn, so that commands which draw nothing start without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from storage.render.pieces import visible

if TYPE_CHECKING:
    from rich.console import Console

PAGER_OPTIONS: Final = "FRX"
"""For less: end when all fits on a screen, show colours, leave the text on the screen."""
BAR_CELLS: Final = 24


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, its style, and whether it holds numbers."""

    heading: str
    style: str = ""
    number: bool = False
    wraps: bool = False


def is_terminal() -> bool:
    """Whether people read what is printed."""
    return sys.stdout.isatty()


def console() -> Console:
    """What draws on standard output, in its colours or without."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False, soft_wrap=False)


def print_json_lines(documents: Iterable[object]) -> None:
    """An object a line."""
    write = sys.stdout.buffer.write
    for document in documents:
        write(orjson.dumps(document) + b"\n")
    sys.stdout.buffer.flush()


def print_lines(lines: Iterable[str]) -> None:
    """A text a line, at once."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table for a terminal; elsewhere the cells of a row with a tab between them, and no heading."""
    if not is_terminal():
        for row in rows:
            print("\t".join(cell(text) for text in row))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for column in columns:
        table.add_column(
            column.heading,
            style=column.style,
            justify="right" if column.number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell(text)) for text in row))
    console().print(table)


def bar(share: float) -> str:
    """A bar as long as `share` of its whole, from 0 to 1, to an eighth of a cell."""
    eighths = round(share * BAR_CELLS * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def cell(text: str) -> str:
    """A text on one line, whatever it holds."""
    return visible(text).replace("\n", "␊").replace("\t", " ")


@contextlib.contextmanager
def paged() -> Iterator[Console]:
    """A console whose output goes through $PAGER on a terminal, and straight out elsewhere."""
    drawing = console()
    if not is_terminal():
        yield drawing
        return
    os.environ.setdefault("LESS", PAGER_OPTIONS)
    with drawing.pager(styles=drawing.color_system is not None):
        yield drawing
