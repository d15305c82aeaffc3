"""`stepfs demo`: write a sample store."""

from __future__ import annotations

import argparse

from fusefs.exits import CommandError, Exit, command_line
from storage.demo import demo
from storage.errors import StoreError, printable

DESCRIPTION = """\
Write a sample store of a dozen sessions to DIR, to try things on."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the only argument, DIR."""
    parser.add_argument("directory", metavar="DIR")


def run(asked: argparse.Namespace) -> int:
    """Write the sample store, and say what to do next. Raises `CommandError`."""
    try:
        slugs = demo.write(asked.directory)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    following = command_line("mount", asked.directory, "MOUNTPOINT")
    print(f"{len(slugs)} sessions are in {printable(asked.directory)}; now: {following}")
    print("One step is torn, as by a power cut: stepfs check shows what it says of that.")
    return Exit.OK
