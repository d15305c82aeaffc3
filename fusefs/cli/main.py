"""The command line `stepfs`."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from fusefs import config as options
from fusefs.daemon.logs import LEVELS, LogSettings
from fusefs.exits import CommandError, Exit, guarded
from storage.errors import StoreError, printable

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
  jq -r .message.content history.jsonl        what was said since the last compaction
  echo '{"role":"user","content":"hello"}' > append
  tail -n 1 history.jsonl                     there it is, and in the store as a step file
  echo 'end-of-day' > compact                 the history now begins anew
  cd; stepfs umount /tmp/sessions

MOUNTPOINT/.stepfs/README explains every file of the mount.

exit codes:
  0  done
  1  the command line is wrong
  2  the store is missing, not a directory or cannot be read
  3  the mountpoint is missing, not empty, already mounted, or in the store
  4  no /dev/fuse, no fusermount3, or no permission
  5  it failed otherwise
  6  not a stepfs mount
  7  check found something wrong
  8  check repaired all that it found"""

MOUNT = """\
Show STORE at MOUNTPOINT, an empty directory outside of the store. Returns when the mount is live;
the server then goes on in the background and logs to syslog. What a server that was killed has
left at MOUNTPOINT is cleared first."""

OPTIONS = """\
options for -o (comma separated; the last of a repeated one counts):
  ro                     refuse every write (EROFS)
  allow_other            let other users in, as far as the store's own modes let them
  uid=USER, gid=GROUP    show this owner or group instead of the store's
  umask=MASK             take these bits (octal) from the modes shown
  memory=PATH|none       the daemon's memory, for the text of archives; a memory.db or an
                         exported tree (default: memory.db beside the store, if it is there)
  cache=SIZE             bound of the text kept in memory (default 64M)
  line_limit=SIZE        longest line taken by append (default 16M)
  sync=close|always|never  on disk when close or fsync returns (the default), when write
                         returns, or when the kernel likes
  nofail, x-..., noatime and other options of mount(8) are accepted and change nothing

signals: TERM, INT end the mount in order; HUP reloads; USR1 logs what the server is doing.

examples:
  stepfs mount ~/.crabtalk/sessions ~/sessions
  stepfs mount -o ro,allow_other /srv/sessions /mnt/sessions
  stepfs mount -f --log-level debug /tmp/store /tmp/sessions"""

UMOUNT = """\
Unmount MOUNTPOINT and wait until its server has finished its work. A mount in use is refused, with
who uses it; --lazy takes it out of sight at once and ends the server when the last user leaves."""

STATUS = """\
What the mount at MOUNTPOINT tells of itself: uptime, caches, counters, operations in flight."""

CHECK = """\
Report for every session of STORE what is no step, left over, missing or of the wrong type. With
--repair what is wrong is moved to STORE/.stepfs-lost and a broken meta is rebuilt; nothing is
deleted. Works mounted or not."""

FOLLOW = """\
Print every step of a session once, as it comes, and go on across compactions. PATH is a session's
directory in a mount, or its history.jsonl. Ends with Ctrl-C."""

DEMO = """\
Write a sample store of a dozen sessions to DIR, to try things on."""


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(Exit.USAGE, f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """The whole command line, as man pages and shell completions need it."""
    whole = Parser(
        prog="stepfs",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    _mount_parser(_command(commands, "mount", "show a store at a mountpoint", MOUNT))
    umount = _command(commands, "umount", "take a mount away", UMOUNT)
    umount.add_argument("mountpoint", metavar="MOUNTPOINT")
    umount.add_argument("-l", "--lazy", action="store_true", help="though it is in use")
    status = _command(commands, "status", "what a mount tells of itself", STATUS)
    status.add_argument("mountpoint", metavar="MOUNTPOINT")
    status.add_argument("--json", action="store_true", help="as one JSON document")
    check = _command(commands, "check", "look for what is wrong in a store", CHECK)
    check.add_argument("store", metavar="STORE")
    check.add_argument("--repair", action="store_true", help="move aside what is wrong")
    follow = _command(commands, "follow", "print the steps of a session as they come", FOLLOW)
    follow.add_argument("path", metavar="PATH")
    follow.add_argument("--from-start", action="store_true", help="print the history first")
    demo = _command(commands, "demo", "write a sample store", DEMO)
    demo.add_argument("directory", metavar="DIR")
    return whole


def _command(
    commands: argparse._SubParsersAction[Parser], name: str, short: str, text: str
) -> Parser:
    return commands.add_parser(
        name,
        help=short,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _mount_parser(mount: Parser) -> None:
    mount.epilog = OPTIONS
    mount.add_argument("store", metavar="STORE")
    mount.add_argument("mountpoint", metavar="MOUNTPOINT")
    mount.add_argument("-f", "--foreground", action="store_true", help="stay, and log to stderr")
    mount.add_argument(
        "-o", "--options", metavar="OPT,...", action="append", default=[], help="as below"
    )
    mount.add_argument(
        "--log-level",
        choices=LEVELS,
        default="info",
        help="the least that is logged (default info)",
    )
    mount.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how (default text)"
    )
    mount.add_argument("--log-file", metavar="FILE", help="log to FILE instead")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `stepfs` with `arguments` (without the program's name); returns the exit code."""
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
    asked = parser().parse_args(given)
    if asked.version:
        from fusefs.version import version

        print(f"stepfs {version()}")
        return Exit.OK
    if asked.command is None:
        raise CommandError(Exit.USAGE, "no command was given; see stepfs --help")
    return COMMANDS[asked.command](asked)


def _check_command(given: list[str]) -> None:
    if not given or given[0].startswith("-") or given[0] in COMMANDS:
        return
    near = difflib.get_close_matches(given[0], COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    raise CommandError(Exit.USAGE, f"unknown command {printable(given[0])}; {hint}")


def _mount(asked: argparse.Namespace) -> int:
    wanted = options.parse(asked.options)
    from fusefs.cli.mount import Mounting, mount

    file = os.path.abspath(asked.log_file) if asked.log_file else None
    settings = LogSettings(asked.log_level, asked.log_format == "json", file)
    mount(Mounting(asked.store, asked.mountpoint, wanted, asked.foreground, settings))
    return Exit.OK


def _umount(asked: argparse.Namespace) -> int:
    from fusefs.cli import unmount

    unmount.command(asked.mountpoint, lazy=asked.lazy)
    return Exit.OK


def _status(asked: argparse.Namespace) -> int:
    from fusefs.cli import status

    print(status.command(asked.mountpoint, as_json=asked.json))
    return Exit.OK


def _check(asked: argparse.Namespace) -> int:
    from fusefs.cli.progress import Progress
    from storage.check import check

    try:
        with Progress(sys.stderr) as progress:
            report = check.check(asked.store, asked.repair, progress)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    print(check.main_report(report))
    return report.exit_code


def _follow(asked: argparse.Namespace) -> int:
    from fusefs.cli import follow

    return follow.follow(asked.path, asked.from_start, sys.stdout.buffer, sys.stderr)


def _demo(asked: argparse.Namespace) -> int:
    from storage.demo import demo

    try:
        slugs = demo.write(asked.directory)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None
    directory = printable(asked.directory)
    print(f"{len(slugs)} sessions are in {directory}; now: stepfs mount {directory} MOUNTPOINT")
    return Exit.OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "mount": _mount,
    "umount": _umount,
    "status": _status,
    "check": _check,
    "follow": _follow,
    "demo": _demo,
}
