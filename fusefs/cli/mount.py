"""`stepfs mount`: checked, then served here or in the background."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from fusefs.cli import preflight
from fusefs.cli.preflight import Places
from fusefs.config import MountOptions
from fusefs.daemon import background, logs
from fusefs.daemon.logs import LogSettings
from fusefs.exits import CommandError, Exit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mounting:
    """What `stepfs mount` was asked to do."""

    store: str
    mountpoint: str
    options: MountOptions = field(default_factory=MountOptions)
    foreground: bool = False
    log: LogSettings = field(default_factory=LogSettings)


def mount(wanted: Mounting) -> None:
    """Mount: in the foreground until it is unmounted, else until it is live.

    Raises `CommandError`, also for what went wrong in the background before the mount was live.
    """
    with ExitStack() as claim:
        places = claim.enter_context(
            preflight.checked(wanted.store, wanted.mountpoint, wanted.options)
        )
        if wanted.foreground:
            _serve(places, wanted, claim.close)
        else:
            background.start(lambda report: _serve(places, wanted, report.live))


def _serve(places: Places, wanted: Mounting, on_live: Callable[[], None]) -> None:
    """Serve in this process. The log also holds the error where stderr is not the log."""
    try:
        logs.configure(wanted.log, background=not wanted.foreground)
    except OSError as error:
        raise CommandError(Exit.USAGE, f"cannot write the log: {error}") from None
    try:
        _live(places, wanted, on_live)
    except CommandError as error:
        if not wanted.foreground or wanted.log.file is not None:
            log.error("%s", error.sentence)  # noqa: TRY400
        raise


def _live(places: Places, wanted: Mounting, on_live: Callable[[], None]) -> None:
    """Only here is loaded what needs libfuse, so that what is wrong before is told without it."""
    try:
        from fusefs.daemon.lifecycle import Life
        from fusefs.daemon.systemd import Manager
    except ImportError as error:
        raise CommandError(
            Exit.PERMISSION, f"{error}; install the package fuse3, then stepfs again"
        ) from None
    manager = Manager.taken_from(os.environ)
    if not wanted.foreground:
        manager = Manager()  # that of another service, whose script has run this command
    Life(places, wanted.options, manager, on_live).live()
