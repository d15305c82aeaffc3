"""`stepfs check`: what is wrong in a store."""

from __future__ import annotations

import argparse
import sys

from fusefs.cli.progress import Progress
from fusefs.exits import CommandError, Exit
from storage.check import check
from storage.errors import StoreError

DESCRIPTION = """\
Report for every session of STORE what is no step, left over, missing or of the wrong type. With
--repair what is wrong is moved to STORE/.stepfs-lost and a broken meta is rebuilt; nothing is
deleted. Works mounted or not."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """STORE, and whether to mend it."""
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--repair", action="store_true", help="move aside what is wrong")


def run(asked: argparse.Namespace) -> int:
    """Print a line for each finding; the exit code tells whether there were faults."""
    try:
        with Progress(sys.stderr) as progress:
            report = check.check(asked.store, asked.repair, progress)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    print(check.main_report(report))
    return report.exit_code
