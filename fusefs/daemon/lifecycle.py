"""The life of a mount in the process that serves it: start, reload, stop, unmount (G18)."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from fusefs.config import MountOptions
from fusefs.daemon.allocation import return_large_blocks
from fusefs.daemon.garbage import collect_in_parts
from fusefs.daemon.signals import Signals
from fusefs.daemon.systemd import Manager, ping, show_status
from fusefs.exits import CommandError, Exit
from fusefs.failures import NOTICE
from fusefs.fuse.server import Server
from fusefs.mounts import Places
from storage.errors import StoreError, printable

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
MAX_DESCRIPTORS = 65536
MAX_COMPLAINT = 2000
DENIED = (errno.EPERM, errno.EACCES)


class Life:
    """One mount from start to end, and its reactions to signals."""

    def __init__(
        self,
        places: Places,
        options: MountOptions,
        manager: Manager,
        on_live: Callable[[], None],
    ) -> None:
        self._places = places
        self._options = options
        self._manager = manager
        self._on_live = on_live
        self._signals = Signals(self._obey)
        self._stops = 0
        self._hurry = trio.CancelScope()

    def live(self) -> None:
        """Open, mount, serve, unmount; raises `CommandError`."""
        self._signals.install()
        os.chdir("/")
        _raise_descriptor_limit()
        self._server = _opened(self._places, self._options)
        return_large_blocks()
        collect_in_parts()
        _mount(self._server, self._live)
        try:
            trio.run(self._serve)
        except Exception as error:
            cause = _alone(error)
            log.debug("what ended the mount", exc_info=cause)
            raise CommandError(
                Exit.FAILED, f"the mount ended: {type(cause).__name__}: {cause}"
            ) from None
        finally:
            self._manager.stopping()
            self._server.close()
        log.info("unmounted %s", printable(self._places.mountpoint))

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._signals.attach()
            nursery.start_soon(ping, self._manager)
            try:
                if not self._stops:
                    with self._hurry:
                        await self._server.serve()
            finally:
                self._signals.detach()
                nursery.cancel_scope.cancel()

    def _live(self) -> None:
        log.info(
            "%s is mounted at %s", *map(printable, (self._places.store, self._places.mountpoint))
        )
        self._manager.ready(self._server.status_line())
        self._nursery.start_soon(show_status, self._manager, self._server.status_line)
        self._on_live()

    def _obey(self, number: int) -> None:
        """Handle a signal, on the loop. An error is logged, and never ends the mount."""
        try:
            if number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGUSR1:
                for line in self._server.dump().splitlines():
                    log.log(NOTICE, "%s", line)
            else:
                self._stop()
        except Exception:
            log.exception("signal %s could not be handled", signal.Signals(number).name)

    def _reload(self) -> None:
        self._manager.reloading()
        try:
            self._server.reload()
        finally:
            self._manager.ready(self._server.status_line())

    def _stop(self) -> None:
        """Stop gracefully, within `GRACE_SECONDS`; if called again, at once."""
        self._stops += 1
        if self._stops > 1:
            self._hurry.cancel()
            return
        self._manager.stopping()
        self._hurry.deadline = trio.current_time() + GRACE_SECONDS
        self._server.stop()


def _alone(error: Exception) -> Exception:
    """The only error in the groups that nurseries have wrapped it in."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_DESCRIPTORS) if hard != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _opened(places: Places, options: MountOptions) -> Server:
    try:
        return Server(places.store, places.mountpoint, options)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None


def _mount(server: Server, on_live: Callable[[], None]) -> None:
    with _complaints() as complaints:
        try:
            server.mount(on_live)
        except StoreError as error:
            sentence = ": ".join([error.sentence, *complaints()[-1:]])
            denied = error.errno in DENIED or sentence.endswith(tuple(map(os.strerror, DENIED)))
            raise CommandError(Exit.PERMISSION if denied else Exit.FAILED, sentence) from None


@contextmanager
def _complaints() -> Iterator[Callable[[], list[str]]]:
    """Capture what libfuse and fusermount3 print to stderr, so that an error stays one line."""
    shown = os.dup(2)
    gathered = os.memfd_create("stderr", os.MFD_CLOEXEC)
    os.dup2(gathered, 2)

    def lines() -> list[str]:
        return os.pread(gathered, MAX_COMPLAINT, 0).decode("utf-8", "replace").splitlines()

    try:
        yield lines
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(gathered)
