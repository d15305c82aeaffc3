"""Output of commands: coloured tables on a terminal, plain lines elsewhere.

Colours follow NO_COLOR, FORCE_COLOR and TERM. rich and orjson are loaded only when they are needed, so
that commands start fast without them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

PAGER_OPTIONS: Final = "FRX"
"""For less: exit if all fits on one screen, show colours, leave the text on the screen."""
BAR_CELLS: Final = 24
BAR_CELLS_LEAST: Final = 5
BAR_COLOUR: Final = "blue"
GAP_CELLS: Final = 2


class Column(NamedTuple):
    """A column of a table: its heading, its style, whether it holds numbers, whether it may wrap."""

    heading: str
    style: str = ""
    number: bool = False
    wraps: bool = False


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def console() -> Console:
    """A console on standard output; it uses colours if it may."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False, soft_wrap=False)


def print_json_lines(documents: Iterable[object]) -> None:
    """Print one JSON object per line; in names, bytes outside UTF-8 are escaped."""
    import orjson

    write = sys.stdout.buffer.write
    for document in documents:
        write(orjson.dumps(_escaped(document)) + b"\n")
    sys.stdout.buffer.flush()


def _escaped(value: object) -> object:
    """A JSON value with all its strings printable; the keys of objects are no names."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(inner) for inner in value]
    return value


def print_lines(lines: Iterable[str]) -> None:
    """Print one text per line, and flush."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    bars: Sequence[float] = (),
    footer: Sequence[str] = (),
    headed: bool = True,
) -> None:
    """Print a table on a terminal; elsewhere rows of cells separated by tabs, without a heading.

    `bars` are one share per row, from 0 to 1, and `footer` is a row below the others; both are shown
    on a terminal only. A table that continues another is not `headed`.
    """
    shown = [[cell(text) for text in row] for row in rows]
    if not is_terminal():
        for row in shown:
            print("\t".join(row))
        return
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    drawing = console()
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        show_header=headed,
        show_footer=bool(footer),
    )
    for index, column in enumerate(columns):
        table.add_column(
            column.heading,
            footer[index] if footer else "",
            style=column.style,
            footer_style="bold",
            justify="right" if column.number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    room = min(BAR_CELLS, drawing.width - _width([[c.heading for c in columns], footer, *shown]))
    with_bars = bool(bars) and room >= BAR_CELLS_LEAST
    if with_bars:
        table.add_column(width=room)
    for index, row in enumerate(shown):
        drawn = [Bar(1, 0, bars[index], color=BAR_COLOUR)] if with_bars else []
        table.add_row(*map(Text, row), *drawn)
    drawing.print(table)


def _width(rows: Iterable[Sequence[str]]) -> int:
    """The width of a table of these rows in cells, with a gap after each column."""
    from rich.cells import cell_len

    widest = [max(map(cell_len, column)) for column in zip_longest(*rows, fillvalue="")]
    return sum(widest) + GAP_CELLS * len(widest)


def cell(text: str) -> str:
    """`text` on one line, with control characters made visible."""
    from storage.render.pieces import visible

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
