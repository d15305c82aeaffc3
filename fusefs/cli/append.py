"""`stepfs append`: messages for a session, as text or as JSON."""

from __future__ import annotations

import argparse
import os
import sys

import orjson

from fusefs.cli import places, terminal
from fusefs.cli.new import refused
from fusefs.cli.places import Place
from fusefs.exits import CommandError, Exit
from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.jsontext import NotJSON, parse

DESCRIPTION = """\
Append to a session, in a mount or in a store. Each TEXT is a message, or a JSON object as the
control file append takes it: a message, an entry or an event. Without TEXT standard input is read:
JSON objects, one per line, or else one message with all of it.

On the store of a running daemon append through a mount: the daemon may write a step of its own
over one stored without, and only a mount notices and stores it again."""

ROLES = ("system", "user", "assistant", "tool")
STEP_KEYS = frozenset({"role", "message", "event"})


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: the session, the texts, and the role."""
    parser.add_argument("session", metavar="SESSION", help="its directory in a mount or a store")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a message, or a JSON object")
    parser.add_argument(
        "--role",
        choices=ROLES,
        help="who speaks (default user); TEXT is then a message even if it is JSON",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON what was stored")


def run(asked: argparse.Namespace) -> int:
    """Append the messages in order; the first that is refused ends the command with an error.

    Raises `CommandError`.
    """
    place = places.find_session(asked.session)
    lines = _lines(asked.texts, asked.role)
    if place.is_mount:
        _through_mount(place, lines)
    else:
        _in_store(place, lines)
    if asked.json:
        terminal.print_json_lines([{"session": place.session, "stored": len(lines)}])
    return Exit.OK


def _lines(texts: list[str], role: str | None) -> list[bytes]:
    if texts:
        if not all(map(str.strip, texts)):
            raise CommandError(Exit.USAGE, "a text is empty: nothing was appended")
        return [_line(text, role) for text in texts]
    if sys.stdin.isatty():
        print("stepfs: write the message, and end it with Ctrl-D", file=sys.stderr)
    given = sys.stdin.buffer.read()
    lines = [line for line in given.splitlines() if line.strip()]
    if role is None and lines and all(map(_is_step, lines)):
        return lines
    try:
        text = given.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise CommandError(Exit.USAGE, "standard input is not UTF-8 text") from None
    if not text.strip():
        raise CommandError(Exit.USAGE, "there is no text: give it as TEXT or on standard input")
    return [_message(text, role)]


def _line(text: str, role: str | None) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise CommandError(Exit.USAGE, "the text is not UTF-8") from None
    if role is None and _is_step(data):
        return data.replace(b"\n", b" ").replace(b"\r", b" ")
    return _message(text, role)


def _is_step(data: bytes) -> bool:
    try:
        value = parse(data)
    except NotJSON:
        return False
    return isinstance(value, dict) and not STEP_KEYS.isdisjoint(value)


def _message(text: str, role: str | None) -> bytes:
    return orjson.dumps({"role": role or "user", "content": text})


def _through_mount(place: Place, lines: list[bytes]) -> None:
    rest = memoryview(b"".join(line + b"\n" for line in lines))
    try:
        fd = os.open(os.path.join(place.directory, "append"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
    except OSError as error:
        raise refused(place, error) from None


def _in_store(place: Place, lines: list[bytes]) -> None:
    from storage.append import append
    from storage.store import Store

    store = Store(place.root)
    try:
        append(store, place.session or "", [stored_form(line) for line in lines])
    except StoreError as error:
        raise CommandError(Exit.FAILED, error.sentence) from None
    finally:
        store.close()
