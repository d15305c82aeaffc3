"""`stepfs mount`: check the request, then serve the mount here or in the background."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from fusefs import config as options
from fusefs.cli import preflight, stores
from fusefs.config import MountOptions
from fusefs.daemon import background, logs
from fusefs.daemon.logs import LogSettings
from fusefs.exits import CommandError, Exit
from fusefs.mounts import Places
from storage.errors import printable

log = logging.getLogger(__name__)

DESCRIPTION = """\
Show STORE at MOUNTPOINT, an empty directory outside the store. Returns when the mount is live; the
server continues in the background and logs to syslog. If a killed server has left a dead mount at
MOUNTPOINT, that is cleared first."""

OPTIONS = """\
options for -o (comma separated; if one is repeated, the last one counts):
  ro                     refuse every write (EROFS)
  allow_other            let other users in, as far as the store's own modes let them
  uid=USER, gid=GROUP    show this owner or group instead of the store's
  umask=MASK             clear these bits (octal) in the modes shown
  memory=PATH|none       the daemon's memory, for the text of archives: a memory.db, or an
                         exported tree, which takes summaries (default: memory.db beside the
                         store, or else the tree memory there)
  cache=SIZE             limit of the text kept in memory (default 64M)
  line_limit=SIZE        longest line that append takes (default 16M)
  pending=SIZE           limit of the unfinished lines of all open files (default 64M)
  deadline=SECONDS       time for a store on another host to answer a request (default 60)
  notify=redis://HOST    exchange hints with other hosts' mounts over this Redis, so that steps
                         are seen there within tens of milliseconds (needs stepfs[redis])
  sync=close|always|never  steps are on disk when close or fsync returns (the default), when
                         write returns, or whenever the kernel writes them
  nofail, x-..., noatime and other options of mount(8) are accepted and change nothing

signals: TERM, INT unmount; HUP re-examines the store; USR1 logs what the server is doing.

examples:
  stepfs mount ~/.crabtalk/sessions ~/sessions
  stepfs mount -o ro,allow_other /srv/sessions /mnt/sessions
  stepfs mount -f --log-level debug /tmp/store /tmp/sessions"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments: STORE, MOUNTPOINT, the options of mount(8), and where to log."""
    parser.epilog = OPTIONS
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground, and log to stderr"
    )
    parser.add_argument(
        "-o", "--options", metavar="OPT,...", action="append", default=[], help="as below"
    )
    parser.add_argument(
        "--log-level",
        choices=logs.LEVELS,
        default="info",
        help="the lowest level that is logged (default info)",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how (default text)"
    )
    parser.add_argument("--log-file", metavar="FILE", help="log to FILE instead")


def run(asked: argparse.Namespace) -> int:
    """Mount; returns when the mount is live or, in the foreground, has ended. Raises `CommandError`."""
    wanted = options.parse(asked.options)
    file = os.path.abspath(asked.log_file) if asked.log_file else None
    settings = LogSettings(asked.log_level, asked.log_format == "json", file)
    mount(Mounting(asked.store, asked.mountpoint, wanted, asked.foreground, settings))
    return Exit.OK


@dataclass(frozen=True, slots=True)
class Mounting:
    """A request to mount a store."""

    store: str
    mountpoint: str
    options: MountOptions = field(default_factory=MountOptions)
    foreground: bool = False
    log: LogSettings = field(default_factory=LogSettings)


def mount(wanted: Mounting) -> None:
    """Mount; returns when unmounted if in the foreground, else when the mount is live.

    Raises `CommandError`, also for errors in the background server before the mount is live.
    """
    with ExitStack() as claim:
        places = claim.enter_context(
            preflight.checked(wanted.store, wanted.mountpoint, wanted.options)
        )
        empty = not stores.holds_sessions(places.store)

        def live() -> None:
            claim.close()
            if empty:
                shown = printable(places.store)
                print(f"stepfs: the store {shown} holds no session yet", file=sys.stderr)

        if wanted.foreground:
            _serve(places, wanted, live)
        else:
            background.start(lambda report: _serve(places, wanted, report.live))
            live()


def _serve(places: Places, wanted: Mounting, on_live: Callable[[], None]) -> None:
    """Serve in this process. Errors are also logged, unless the log is stderr."""
    try:
        logs.configure(wanted.log, background=not wanted.foreground)
    except OSError as error:
        shown = printable(wanted.log.file or "")
        sentence = f"cannot write the log {shown}: {error.strerror}"
        raise CommandError(Exit.USAGE, sentence) from None
    try:
        _live(places, wanted, on_live)
    except CommandError as error:
        if not wanted.foreground or wanted.log.file is not None:
            log.error("%s", error.sentence)  # noqa: TRY400
        raise


def _live(places: Places, wanted: Mounting, on_live: Callable[[], None]) -> None:
    """Serve the mount. Modules that need libfuse are loaded only here, so that earlier errors are
    reported even without it."""
    try:
        from fusefs.daemon.lifecycle import Life
        from fusefs.daemon.systemd import Manager
    except ImportError as error:
        raise CommandError(
            Exit.PERMISSION, f"{error}; install the package fuse3, then stepfs again"
        ) from None
    manager = Manager.taken_from(os.environ)
    if not wanted.foreground:
        manager = (
            Manager()
        )  # systemd's variables belong to the service whose script ran this command
    Life(places, wanted.options, manager, on_live).live()
