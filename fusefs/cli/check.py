"""`stepfs check`: what is wrong in a store."""

from __future__ import annotations

import argparse
import sys

from fusefs.cli import stores
from fusefs.cli.progress import Progress
from fusefs.exits import CommandError, Exit
from storage.check import check, peer
from storage.errors import StoreError

DESCRIPTION = """\
Report for every session of STORE what is no step, left over, missing or of the wrong type. With
--repair what is wrong is moved to STORE/.stepfs-lost and a broken meta is rebuilt; nothing is
deleted. Works mounted or not.

With --peer DIR, another client's mount of the same store, it is tried instead what the shared file
system does between two hosts: whether links and locks exclude each other, and what is seen late."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """STORE, and whether to mend it."""
    parser.add_argument("store", metavar="STORE")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--repair", action="store_true", help="move aside what is wrong")
    does.add_argument(
        "--peer", metavar="DIR", help="try STORE against another client's mount of it"
    )


def run(asked: argparse.Namespace) -> int:
    """Print a line for each finding; the exit code tells whether there were faults."""
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
