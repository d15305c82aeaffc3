"""`stepfs usage`: count the tokens that the runs of agents used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache, partial
from typing import Final

from fusefs.cli import choice, places, status, terminal
from fusefs.cli.places import Place
from fusefs.cli.sources import Source, Summary, source_of, told_if_unreadable
from fusefs.cli.spread import spread
from fusefs.cli.terminal import Column
from fusefs.cli.times import TIME_HELP, moment
from fusefs.exits import CommandError, Exit
from storage.errors import StoreError
from storage.fork import ORIGIN_KEY
from storage.times import nanoseconds
from storage.usage import Run, Tokens, run_of

DESCRIPTION = """\
Count the tokens that runs in a store or a mount used, by session, model or day, as the daemon recorded
them at the end of each run, including runs before a compaction. Prints a table on a terminal, else one
line per row, separated by tabs. Cached and written are the parts of the input that were read from, and
stored in, the provider's cache; reasoning is a part of the output. Steps that a fork has copied count
for its origin only."""

SESSION, MODEL, DAY = KEYS = ("session", "model", "day")
COLUMNS: Final = (
    Column("runs", number=True),
    Column("input", number=True),
    Column("cached", number=True),
    Column("written", number=True),
    Column("output", number=True),
    Column("reasoning", number=True),
    Column("total", "green", number=True),
)
UNKNOWN: Final = "-"
"""The day of an event whose time cannot be parsed."""
BILLION: Final = 1_000_000_000

Key = tuple[str, ...]
Sums = dict[Key, Tokens]


@dataclass(frozen=True, slots=True)
class _Query:
    """Which runs are summed, by the given options, and by which keys."""

    asked: argparse.Namespace
    keys: Sequence[str]

    def takes(self, run: Run, forked: int | None) -> bool:
        """Whether a run counts; `forked` is when its session was forked (nanoseconds since 1970), or
        None."""
        asked, ended = self.asked, run.ended
        if asked.model is not None and not choice.fits(asked.model, run.model):
            return False
        if ended is None:  # in a fork it may be a copy, which is its origin's
            return forked is None and asked.since is None and asked.until is None
        return (
            (forked is None or ended >= forked)
            and (asked.since is None or ended >= asked.since * BILLION)
            and (asked.until is None or ended <= asked.until * BILLION)
        )

    def key(self, slug: str, run: Run) -> Key:
        """The key under which a run is summed."""
        values = {SESSION: slug, MODEL: run.model, DAY: _day(run.ended)}
        return tuple(values[key] for key in self.keys)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: which runs, and how they are grouped."""
    parser.add_argument("path", metavar="PATH", nargs="?", help=places.PATH_HELP)
    parser.add_argument(
        "--by",
        choices=KEYS,
        action="append",
        help="group by this (default session); repeat it to group by combinations",
    )
    choice.arguments(parser)
    parser.add_argument(
        "--model", metavar="PATTERN", help="only models that match, as in the shell"
    )
    parser.add_argument("--since", metavar="TIME", type=moment, help=f"ended since: {TIME_HELP}")
    parser.add_argument("--until", metavar="TIME", type=moment, help="ended by then")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per line, as results come in"
    )


def run(asked: argparse.Namespace) -> int:
    """Print the sums. Raises `CommandError`."""
    place = _nearest(places.find(asked.path))
    query = _Query(asked, tuple(dict.fromkeys(asked.by or (SESSION,))))
    with told_if_unreadable(place):
        slugs = [place.session] if place.session else sorted(source_of(place).slugs())
        found = spread(partial(_summed, place, query), slugs)
        if asked.json:
            for sums in found if SESSION in query.keys else (_together(found),):
                terminal.print_json_lines(_documents(sums, query.keys))
        else:
            _print(_together(found), query.keys)
    return Exit.OK


def _nearest(place: Place) -> Place:
    """The store of a mount if it can be read, since that is faster; else the place itself.

    Only root and the user who mounted may read the status that names the store: the mount also shows
    others steps whose own mode denies them access (G21).
    """
    if not place.is_mount:
        return place
    try:
        store = Place(str(status.read(place.root)["store"]), place.session, is_mount=False)
        if source_of(store).summary(place.session) if place.session else source_of(store).slugs():
            return store
    except (CommandError, OSError, StoreError):
        pass
    return place


def _summed(place: Place, query: _Query, slugs: Sequence[str]) -> Sums:
    """The sums of some sessions, except those deleted in the meantime or unreadable for this user."""
    source = _source(place)
    sums: Sums = {}
    for slug in slugs:
        try:
            session = source.summary(slug)
            if choice.is_chosen(session, query.asked):
                _add(sums, _of_session(source, session, query))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            if place.session is not None:
                raise
        except StoreError as error:
            if error.code != "no-session":
                raise
    return sums


@cache
def _source(place: Place) -> Source:
    return source_of(place)


def _of_session(source: Source, session: Summary, query: _Query) -> Sums:
    forked = nanoseconds(session.text("created_at")) if ORIGIN_KEY in session.meta else None
    sums: Sums = {}
    for data in source.steps(session.slug):
        done = run_of(data)
        if done is not None and query.takes(done, forked):
            _add(sums, {query.key(session.slug, done): done.tokens})
    return sums


def _add(sums: Sums, more: Sums) -> None:
    for key, tokens in more.items():
        sums.setdefault(key, Tokens()).add(tokens)


def _together(found: Iterable[Sums]) -> Sums:
    sums: Sums = {}
    for some in found:
        _add(sums, some)
    return sums


def _day(ended: int | None) -> str:
    """The local date of a time in nanoseconds since 1970."""
    if ended is None:
        return UNKNOWN
    try:
        return datetime.fromtimestamp(ended // BILLION).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def _documents(sums: Sums, keys: Sequence[str]) -> Iterator[dict[str, object]]:
    rows = _sorted(sums, keys)
    if SESSION in keys:
        at = keys.index(SESSION)
        rows.sort(key=lambda row: row[0][at])
    for key, tokens in rows:
        by: dict[str, str | None] = dict(zip(keys, key, strict=True))
        if by.get(DAY) == UNKNOWN:
            by[DAY] = None
        yield {**by, **asdict(tokens), "total_tokens": tokens.total_tokens}


def _sorted(sums: Sums, keys: Sequence[str]) -> list[tuple[Key, Tokens]]:
    """Rows sorted by day if that is the first key, else by most tokens first."""
    by_key = sorted(sums.items(), key=lambda item: item[0])
    if keys[0] == DAY:
        return by_key
    return sorted(by_key, key=lambda item: -item[1].total_tokens)


def _print(sums: Sums, keys: Sequence[str]) -> None:
    rows = _sorted(sums, keys)
    if not rows and terminal.is_terminal():
        print("stepfs: no finished runs were found", file=sys.stderr)
        return
    columns = [Column(key, "cyan", wraps=key != DAY) for key in keys]
    number = _short if terminal.is_terminal() else str
    most = max((tokens.total_tokens for _, tokens in rows), default=0) or 1
    whole = Tokens()
    for _, tokens in rows:
        whole.add(tokens)
    terminal.print_table(
        (*columns, *COLUMNS),
        ((*key, *map(number, _cells(tokens))) for key, tokens in rows),
        bars=[tokens.total_tokens / most for _, tokens in rows],
        footer=("all", *[""] * (len(keys) - 1), *map(number, _cells(whole))),
    )


def _cells(tokens: Tokens) -> tuple[int, ...]:
    return (
        tokens.runs,
        tokens.prompt_tokens,
        tokens.cache_read_tokens,
        tokens.cache_write_tokens,
        tokens.completion_tokens,
        tokens.reasoning_tokens,
        tokens.total_tokens,
    )


def _short(count: int) -> str:
    """A count for people: three significant digits and a unit."""
    if count < 1000:
        return str(count)
    value = float(count)
    for unit in "kMGT":
        value /= 1000
        if value < 999.5 or unit == "T":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}{unit}"
