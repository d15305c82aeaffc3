"""The command line `stepfs`: the table of commands, and how one is run.

A command is a module of this package with `DESCRIPTION`, `arguments(parser)`, which defines its
arguments, and `run(asked)`, which does the work and returns the exit code. Only the requested command's
module is loaded, so that every command starts as fast as it can.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn, Protocol, cast

from fusefs.exits import CommandError, Exit, end_in_order, guarded
from storage.errors import printable

DESCRIPTION = """\
Show a store of agent chat sessions as a file system.

A store is a directory with one directory per session and one file per step. Mounted, every
session has a history.jsonl, replayed from the last compaction, and control files: a line written
to append becomes a step of the session, a name written to compact ends its history."""

EXAMPLES = """\
a first look:
  stepfs demo /tmp/store                      write a sample store
  mkdir /tmp/sessions
  stepfs mount /tmp/store /tmp/sessions       mount it, in the background
  ls /tmp/sessions                            one directory per session
  cd /tmp/sessions/crab_tg-42_1
  cat history.jsonl                           what was said since the last compaction
  echo '{"role":"user","content":"hello"}' > append
  tail -n 1 history.jsonl                     there it is, and in the store as a step file
  echo 'end-of-day' > compact                 the history now begins anew
  cd; stepfs umount /tmp/sessions

without a mount, or with one:
  stepfs ls /tmp/store                        the sessions, the last changed first
  stepfs show /tmp/store/crab_tg-42_1         a conversation, to read

MOUNTPOINT/.stepfs/README explains every file of the mount.

exit codes:
  0  done
  1  the command line is wrong
  2  the store is missing, not a directory or cannot be read
  3  the mountpoint is missing, not empty, already mounted, or in the store
  4  no /dev/fuse, no fusermount3, or no permission
  5  it failed otherwise
  6  not a stepfs mount, or not a session
  7  check found something wrong
  8  check repaired all that it found
  9  search found nothing"""

COMMANDS: dict[str, tuple[str, str]] = {
    "mount": ("mount", "show a store at a mountpoint"),
    "umount": ("unmount", "unmount a store"),
    "status": ("status", "show the state of a mount, or list all mounts"),
    "ls": ("listing", "list the sessions of a store"),
    "show": ("show", "read a session's history on the terminal"),
    "search": ("search", "search all messages for a pattern"),
    "usage": ("usage", "count the tokens that runs used"),
    "new": ("new", "create a session"),
    "append": ("append", "append messages to a session"),
    "follow": ("follow", "print new entries as they are stored"),
    "errors": ("errors", "show what a mount has refused, and why"),
    "check": ("check", "find and repair faults in a store"),
    "demo": ("demo", "write a sample store"),
}
"""Each command's module in this package, and what it does in a few words."""

_NO_OPTION: Final = "\0"
"""Put before each word behind a `--`: no word given holds it, and with it none looks like an option."""


class Command(Protocol):
    """The interface of a command's module."""

    DESCRIPTION: str

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, asked: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and takes options between arguments, up to a `--`."""

    def __init__(self, **described: Any) -> None:
        super().__init__(**described)
        self.register("type", None, lambda word: word.removeprefix(_NO_OPTION))

    def parsed(self, words: Sequence[str]) -> argparse.Namespace:
        """As `parse_intermixed_args`, which parses twice and may have lost a `--` the second time."""
        end = words.index("--") + 1 if "--" in words else len(words)
        behind = [_NO_OPTION + word for word in words[end:]]
        return self.parse_intermixed_args([*words[:end], *behind])

    def error(self, message: str) -> NoReturn:
        message = message.replace(_NO_OPTION, "")
        hint = _option_meant(message) if self.prog == "stepfs mount" else None
        raise CommandError(Exit.USAGE, f"{message}; {hint or f'see {self.prog} --help'}")


def _option_meant(message: str) -> str | None:
    """A hint if an option of the mount was written as one of the command, such as `--ro`."""
    from fusefs.config import SWITCHES, VALUED

    _, unknown, words = message.partition("unrecognized arguments: ")
    word = words.partition(" ")[0].lstrip("-")
    if unknown and word.partition("=")[0] in {*SWITCHES, *VALUED}:
        return f"it is an option of the mount: -o {word}"
    return None


def parser(complete: bool = True) -> Parser:
    """The parser of the whole command line, as man pages and shell completions need it.

    Unless `complete`, it knows the commands but not their arguments.
    """
    whole = Parser(
        prog="stepfs",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (_, short) in COMMANDS.items():
        if complete:
            module = _module(name)
            module.arguments(commands.add_parser(name, help=short, **_described(module)))
        else:
            commands.add_parser(name, help=short)
    return whole


def _command_parser(name: str) -> Parser:
    module = _module(name)
    made = Parser(prog=f"stepfs {name}", **_described(module))
    module.arguments(made)
    return made


def _described(module: Command) -> dict[str, Any]:
    return {
        "description": module.DESCRIPTION,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def _module(name: str) -> Command:
    return cast(Command, import_module(f"fusefs.cli.{COMMANDS[name][0]}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `stepfs` with `arguments` (without the program's name; default `sys.argv`).

    Returns the exit code. Errors are printed to standard error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if _is_from_mount_fuse(given):
        from fusefs.cli import mount_helper

        return mount_helper.main(given)
    return guarded("stepfs", lambda: _run(given))


def _is_from_mount_fuse(given: Sequence[str]) -> bool:
    """mount.fuse(8) runs `stepfs STORE MOUNTPOINT -o OPTIONS`."""
    return len(given) == 4 and given[2] == "-o" and given[0] not in COMMANDS


def _run(given: list[str]) -> int:
    _check_command(given)
    if given and given[0] in COMMANDS:
        asked = _command_parser(given[0]).parsed(given[1:])
        if (
            given[0] != "mount"
        ):  # mount installs its own handlers, and has nothing to clean up before
            end_in_order()
        return _module(given[0]).run(asked)
    asked = parser(complete=False).parse_args(given)
    if asked.version:
        from fusefs.version import version

        print(f"stepfs {version()}")
        return Exit.OK
    raise CommandError(Exit.USAGE, "no command was given; see stepfs --help")


def _check_command(given: list[str]) -> None:
    if not given or given[0].startswith("-") or given[0] in COMMANDS:
        return
    import difflib

    near = difflib.get_close_matches(given[0], COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    raise CommandError(Exit.USAGE, f"unknown command {printable(given[0])}; {hint}")
