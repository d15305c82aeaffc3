"""`stepfs new`: create a session."""

from __future__ import annotations

import argparse
import errno
import os
from typing import Any, cast

import orjson

from fusefs.cli import places, terminal
from fusefs.cli.choice import count
from fusefs.cli.places import HIDDEN, META_SHOWN, Place
from fusefs.exits import CommandError, Exit
from storage.creation import create_next
from storage.errors import StoreError, printable
from storage.library import fork_session
from storage.session import meta, meta_update
from storage.store import Store

DESCRIPTION = """\
Create a session in a store or in a mount, and print its name: the next one of this agent and sender.
With --from, fork another session: copy its steps, all or up to the one given by --at."""

DEFAULT_AGENT = "crab"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: where, and the content of the meta."""
    parser.add_argument("path", metavar="PATH", nargs="?", help=places.PATH_HELP)
    parser.add_argument(
        "--agent", metavar="NAME", help=f"(default {DEFAULT_AGENT}, or the origin's)"
    )
    parser.add_argument(
        "--created-by",
        metavar="NAME",
        help="the sender (default cli:USER, with your user name, or the origin's)",
    )
    parser.add_argument("--from", metavar="SESSION", dest="origin", help="fork this session")
    parser.add_argument("--at", metavar="STEP", type=count, help="fork it at this step")
    parser.add_argument("--title", metavar="TEXT", help="its title")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(asked: argparse.Namespace) -> int:
    """Create the session and print its slug. Raises `CommandError`."""
    _check_texts(asked)
    place = places.find_root(asked.path)
    more = {"title": asked.title} if asked.title else {}
    made = _through_mount if place.is_mount else _in_store
    slug = made(place, _wanted(asked), more)
    if asked.json:
        terminal.print_json_lines([{"session": slug}])
    else:
        print(slug)
    return Exit.OK


def _check_texts(asked: argparse.Namespace) -> None:
    """Refuse what no meta can hold; a fork's names its origin."""
    given = {
        "--agent": asked.agent,
        "--created-by": asked.created_by,
        "--from": asked.origin,
        "--title": asked.title,
    }
    for option, text in given.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            sentence = f"{option} {printable(text)} is not UTF-8: a session's meta cannot hold it"
            raise CommandError(Exit.USAGE, sentence) from None


def _sender() -> str:
    import pwd

    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def _wanted(asked: argparse.Namespace) -> dict[str, str | int]:
    """The request as an object, as it is written to `.stepfs/create`."""
    agent, sender = asked.agent, asked.created_by
    if asked.origin is None:
        if asked.at is not None:
            raise CommandError(Exit.USAGE, "--at needs --from: it is a step of that session")
        agent, sender = agent or DEFAULT_AGENT, sender if sender is not None else _sender()
    keys = {"from": asked.origin, "at": asked.at, "agent": agent, "created_by": sender}
    return {key: value for key, value in keys.items() if value is not None}


def _in_store(place: Place, wanted: dict[str, str | int], more: dict[str, str]) -> str:
    store = Store(place.root)
    origin = wanted.pop("from", None)
    slug = (
        create_next(store, **cast("Any", wanted), sync=True)
        if origin is None
        else fork_session(store, str(origin), **cast("Any", wanted))
    )
    if more:
        with store.opened(slug) as directory:
            meta_update.update(directory, lambda now: meta.merged(now, more), sync=True)
    return slug


def _through_mount(place: Place, wanted: dict[str, str | int], more: dict[str, str]) -> str:
    asked = orjson.dumps(wanted)
    try:
        with open(os.path.join(place.root, HIDDEN, "create"), "r+b", buffering=0) as create:
            create.write(asked + b"\n")
            slug = create.read().decode().strip()
        if more:
            with open(os.path.join(place.root, slug, META_SHOWN), "wb", buffering=0) as about:
                about.write(orjson.dumps(more) + b"\n")
    except OSError as error:
        raise refused(place, error) from None
    return slug


def refused(place: Place, error: OSError) -> CommandError | StoreError:
    """The error for an errno from a mount, with the mount's own sentence if this user may read it."""
    from fusefs.cli.errors import last_sentence

    if error.errno == errno.EROFS:
        sentence = f"{printable(place.root)} is mounted read-only"
        return CommandError(Exit.PERMISSION, sentence)
    if error.errno == errno.EACCES:
        return CommandError(Exit.PERMISSION, f"you may not write to {printable(place.directory)}")
    said = last_sentence(place.root) or f"{printable(place.directory)}: {error.strerror}"
    return CommandError(Exit.FAILED, said)
