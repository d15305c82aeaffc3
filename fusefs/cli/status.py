"""`stepfs status`: the state of a mount, or a list of all mounts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

import orjson

from fusefs import mounts as mountinfo
from fusefs.cli import terminal
from fusefs.cli.terminal import Column
from fusefs.exits import CommandError, Exit
from fusefs.mounts import Health
from storage.errors import printable

DESCRIPTION = """\
Show the state of the mount at MOUNTPOINT: uptime, caches, counters, operations in flight. Without
MOUNTPOINT, list all stepfs mounts that are visible here, one per line: mountpoint, store, and whether
the server answers."""

COLUMNS: Final = (
    Column("mountpoint", "cyan", wraps=True),
    Column("store", wraps=True),
    Column("state", "green"),
)

INDENT = "  "


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: MOUNTPOINT, and the output format."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="(default: list all)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document; without MOUNTPOINT, one object per line",
    )


def run(asked: argparse.Namespace) -> int:
    """Print the state of a mount, or a list of all mounts. Raises `CommandError`."""
    if asked.mountpoint is None:
        _print_mounts(as_json=asked.json)
        return Exit.OK
    print(command(asked.mountpoint, as_json=asked.json))
    return Exit.OK


def command(path: str, *, as_json: bool) -> str:
    """The status of the mount at `path` as text to print; raises `CommandError`."""
    status = read(mountinfo.stepfs_mountpoint(path))
    if as_json:
        return orjson.dumps(status, option=orjson.OPT_INDENT_2).decode()
    return "\n".join(_lines(status, ""))


def _print_mounts(*, as_json: bool) -> None:
    found = [
        (mount.mountpoint, mount.store, mountinfo.health(mount.mountpoint))
        for mount in mountinfo.mounts()
        if mount.is_stepfs
    ]
    if as_json:
        terminal.print_json_lines(
            {"mountpoint": printable(place), "store": printable(store), "state": health.value}
            for place, store, health in found
        )
        return
    terminal.print_table(COLUMNS, ((place, store, health.value) for place, store, health in found))
    for place, _, health in found:
        if health is Health.DEAD:
            print(f"stepfs: {mountinfo.died(place)}", file=sys.stderr)


def read(mountpoint: str) -> dict[str, object]:
    """`.stepfs/status.json` of the mount at the absolute `mountpoint`; raises `CommandError`."""
    shown = printable(mountpoint)
    health = mountinfo.health(mountpoint)
    if health is Health.DEAD:
        raise CommandError(Exit.NOT_STEPFS, mountinfo.died(mountpoint))
    if health is Health.HUNG:
        raise CommandError(Exit.FAILED, f"the server of {shown} does not answer")
    try:
        with open(os.path.join(mountpoint, ".stepfs", "status.json"), "rb") as file:
            status = orjson.loads(file.read())
    except PermissionError:
        raise CommandError(
            Exit.PERMISSION, f"the status of {shown} is for the user who mounted it"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise CommandError(Exit.FAILED, f"the status of {shown} cannot be read: {error}") from None
    return status if isinstance(status, dict) else {}


def _lines(members: Mapping[str, object], indent: str) -> Iterator[str]:
    width = max(
        (len(_label(name)) for name, value in members.items() if _is_short(value)), default=0
    )
    for name, value in members.items():
        label = _label(name)
        if isinstance(value, Mapping):
            yield f"{indent}{label}:"
            yield from _lines(value, indent + INDENT)
        elif isinstance(value, list) and value:
            yield f"{indent}{label}:"
            yield from (f"{indent}{INDENT}{_item(item)}" for item in value)
        else:
            yield f"{indent}{label + ':':<{width + 1}} {_value(name, value)}"


def _is_short(value: object) -> bool:
    return not isinstance(value, Mapping) and not (isinstance(value, list) and value)


def _label(name: str) -> str:
    return name.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")


def _item(item: object) -> str:
    if isinstance(item, Mapping):
        return ", ".join(f"{_label(name)} {_value(name, value)}" for name, value in item.items())
    return str(item)


def _value(name: str, value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith("seconds"):
        return str(timedelta(seconds=round(value))) if value >= 60 else f"{value:.3g} s"
    if isinstance(value, int) and name.endswith("bytes"):
        return f"{value / 2**20:.1f} MiB"
    return f"{value:,}" if isinstance(value, int) and name != "pid" else str(value)
