"""`stepfs check`: find and repair faults in a store."""

from __future__ import annotations

import argparse
import sys

from fusefs.cli import stores
from fusefs.cli.progress import Progress
from fusefs.exits import CommandError, Exit
from storage.check import check, peer
from storage.errors import StoreError

DESCRIPTION = """\
Report everything in the sessions of STORE that is not a step, left over, missing or of the wrong
type. With --repair, faulty files are moved to STORE/.stepfs-lost and broken metas are rebuilt;
nothing is deleted. Works whether STORE is mounted or not.

With --peer DIR, another client's mount of the same store, test the shared file system instead:
whether links and locks exclude each other between two hosts, and how late changes are seen."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: STORE, and what to do with it."""
    parser.add_argument("store", metavar="STORE")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--repair", action="store_true", help="move faulty files aside")
    does.add_argument(
        "--peer", metavar="DIR", help="test STORE against another client's mount of it"
    )


def run(asked: argparse.Namespace) -> int:
    """Print a line per finding; the exit code says whether there were faults. Raises `CommandError`."""
    if asked.peer is not None:
        return _against_peer(asked.store, asked.peer)
    store = stores.checked(asked.store)
    try:
        with Progress(sys.stderr) as progress:
            report = check.check(store, asked.repair, progress)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    print(check.main_report(report))
    return report.exit_code


def _against_peer(store: str, other: str) -> int:
    try:
        answers = peer.compare(store, other)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    for answer in answers:
        print(("FAULT: " if answer.fault else "") + answer.sentence)
    return Exit.CHECK_FOUND if any(answer.fault for answer in answers) else Exit.OK
