"""The superblock: the parts of one mounted store, how they are wired, and their life until the unmount.

Each background task is restarted if it fails. Its pending work is state outside the task, so a restart
loses nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.coherence.events import EventQueue
from fusefs.coherence.hints import Hints
from fusefs.coherence.publisher import Publisher
from fusefs.coherence.recovery import Recovery
from fusefs.coherence.store_directory import StoreDirectory
from fusefs.config import MountOptions, Sync
from fusefs.dotdir.directories import DOT_DIRECTORY, DotDirectory
from fusefs.dotdir.status import Status
from fusefs.failures import KERNEL, Failures
from fusefs.handles.control import Stores
from fusefs.handles.pending import PendingBudget
from fusefs.inodes.attributes import Rules
from fusefs.inodes.open_files import OpenFiles
from fusefs.inodes.recent_past import RecentPast
from fusefs.inodes.root import Root
from fusefs.inodes.services import Services
from fusefs.inodes.table import Table
from fusefs.kernel import Kernel
from fusefs.operations import Operations
from fusefs.session.means import Means
from fusefs.session.meta_counter import MetaCounter
from fusefs.session.pool import Pool
from fusefs.session.removals import Removals
from fusefs.session.restorer import Restorer
from fusefs.session.step_texts import StepTexts
from fusefs.session.writer import Writer
from fusefs.views.text_cache import TextCache
from fusefs.work import Work
from storage.archives import Memory
from storage.capabilities import probe
from storage.documents.pool import Documents
from storage.errors import StoreError, printable
from storage.store import Store

SILENCE_SECONDS: Final = 0.6
"""An ending mount gives up on a far store that has not answered for this long."""
LEAST_SILENCE_SECONDS: Final = 0.4
"""At most this much silence from before the end began counts towards `SILENCE_SECONDS`."""


log: Final = logging.getLogger(__name__)


class Superblock:
    """The parts of one mount. Loop-owned.

    Operations use the public ones; the private ones are only kept alive here.
    """

    def __init__(self, store: Store, options: MountOptions, kernel: Kernel) -> None:
        """Raises `StoreError` if the store is not writable or the kernel gives no inotify queue."""
        self.store = store
        self.options = options
        self.failures = Failures()
        self.operations = Operations()
        self.table = Table()
        self.capabilities = probe(store.fd, write=not options.read_only)
        if not options.read_only:
            self.capabilities.require_writable(printable(store.path))
        self.work = Work(self.capabilities.near, options.deadline)
        hints = None if options.notify is None else Hints(options.notify)
        self.events = EventQueue(store, self.work.near, hints)
        self._archives = _memory(store, options)
        self._documents = Documents()
        self._texts = StepTexts()
        means = Means(
            self.work,
            TextCache(options.cache),
            self._archives,
            self.events,
            self._documents,
            self._texts,
        )
        self.pool = Pool(store, means)
        self._writer = Writer(means, options.sync)
        self._counter = MetaCounter(self.pool, self.work, self.failures)
        self._removals = Removals(store, self.work)
        self._catalogue = Catalogue(store, self.work)
        self.directory = StoreDirectory(store, self.events, self._catalogue, self.failures)
        self.rules = Rules(options, (os.geteuid(), os.getegid()))
        self.files = OpenFiles(self.table, self.failures)
        services = self._services(means, kernel)
        root = Root(services, self._removals, self._catalogue)
        self.status = Status(
            store.path,
            options,
            means.cache,
            self.pool,
            self.events,
            self.failures,
            self.operations,
            self.capabilities,
            self.work,
            self.directory,
            inodes=self.table,
            open_files=self.files,
        )
        root.fixed[DOT_DIRECTORY] = DotDirectory(services, root, self._catalogue, self.status)
        self.publisher = Publisher(self.events, root, self.pool, means, kernel, self.failures)
        restorer = Restorer(means, self._writer, durable=options.sync is not Sync.NEVER)
        self._recovery = Recovery(self.events, self.pool, self._writer, restorer, self.failures)

    def _services(self, means: Means, kernel: Kernel) -> Services:
        durable = self.options.sync is not Sync.NEVER
        stores = Stores(
            self.pool,
            self.work,
            self.events,
            self._writer,
            self._counter,
            self.failures,
            self.options.line_limit,
            durable,
            self._documents,
            PendingBudget(self.options.pending),
            self._archives,
        )
        return Services(
            self.store,
            self.work,
            self.table,
            self.pool,
            means,
            stores,
            self.events,
            self.rules,
            kernel,
            self.failures,
            os.fstat(self.store.fd),
            RecentPast(kernel),
        )

    async def run(self) -> None:
        """Run the background work (watching, publishing, counting, removing) until cancelled."""
        async with trio.open_nursery() as nursery:
            for work in (
                self.publisher.run,
                self.directory.run,
                self._recovery.run,
                self._counter.run,
                self._removals.run,
                self.failures.run,
            ):
                nursery.start_soon(_unending, work)

    async def finish(self) -> None:
        """Before the end: release open files, write and sync what is pending (G9, G17).

        Does not wait for a far store that no longer answers (G27).
        """
        if self.work.near:
            await self._finish()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_on_silence, nursery.cancel_scope)
            await self._finish()
            nursery.cancel_scope.cancel()

    async def _give_up_on_silence(self, scope: trio.CancelScope) -> None:
        while True:
            silent = min(self.work.silent_seconds, LEAST_SILENCE_SECONDS)
            with trio.move_on_after(SILENCE_SECONDS - silent) as waiting:
                await self.work.small(self, os.fstatvfs, self.store.fd)
            if waiting.cancelled_caught:
                log.warning("the store does not answer: pending counts and syncs are given up")
                scope.cancel()
                return
            await trio.sleep(SILENCE_SECONDS / 4)

    async def _finish(self) -> None:
        await self.files.release_all()
        await self._recovery.finish()
        await self._counter.finish()
        for session in self.pool:
            try:
                await self._writer.sync(session)
            except StoreError as error:
                self.failures.record(session.slug, "append", "sync", error, KERNEL)
        self.failures.sum_up()

    def close(self) -> None:
        """Close everything, without waiting."""
        self._documents.close()
        self.pool.close_all()
        self.events.close()
        self._catalogue.close()
        self._archives.close()
        self._texts.close()
        self.store.close()

    def reload(self) -> None:
        """Re-examine the whole store and the daemon's memory."""
        self.events.missed()


async def _unending(work: Callable[[], Awaitable[Any]]) -> None:
    """Run `work`, restarting it after any exception: only an unmount ends the mount (G19)."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work failed and is restarted")
            await trio.sleep(1)


def _memory(store: Store, options: MountOptions) -> Memory:
    if options.memory is None:
        return Memory.beside(store.path)
    return Memory(None if options.memory == "none" else options.memory)
