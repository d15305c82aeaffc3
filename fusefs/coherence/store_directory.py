"""Handles the removal of the store's directory underneath the mount, its re-creation and renaming (G19).

Only an empty directory can be removed, so its sessions are gone as if each had been deleted (G20), and
nothing remains that could be confused with the contents of a new directory. The capabilities probed at
mount hold only for the same file system, and what another user puts there is not this store. If file
system and owner are the same, the mount continues with the new directory, under the old descriptor.

No event reports the removal of a directory that is held open, so every operation that must be exact
checks for it. That it was renamed an event does report: it is still served, as nothing is wrong with it,
but who put a backup in its place must hear that the mount does not show that.
"""

from __future__ import annotations

import errno
import os

import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.coherence.events import EventQueue
from fusefs.failures import KERNEL, Failures
from storage.errors import StoreError, printable
from storage.store import Store


class StoreDirectory:
    """Notices that the directory was removed or renamed, and continues with a new one. Loop-owned."""

    def __init__(
        self, store: Store, events: EventQueue, catalogue: Catalogue, failures: Failures
    ) -> None:
        self.replacements = 0
        """How often the mount has continued with a new directory."""
        self.moved = False
        """Whether the directory is no longer at its path."""
        self._store = store
        self._events = events
        self._catalogue = catalogue
        self._failures = failures
        self._said = ""
        """The last report in errors.jsonl about the missing directory."""

    @property
    def removed(self) -> bool:
        """Whether the directory was removed and not replaced."""
        return bool(self._said)

    def look(self) -> None:
        """Check for a removal or a replacement; only on a near store, where the link count shows it."""
        if not self._events.near or os.fstat(self._store.fd).st_nlink:
            return
        store = f"the store's directory {printable(self._store.path)} was removed"
        try:
            self._store.reopen()
        except StoreError as error:
            shown = "this mount shows nothing until it is made again"
            if error.errno != errno.ENOENT:
                shown = f"{error.sentence}: unmount, and mount what is there by now"
            self._say(StoreError(errno.ESTALE, "store-removed", f"{store}: {shown}"))
            return
        self.replacements += 1
        self._events.root_replaced(self._store)
        self._catalogue.missed()
        new = f"{store} and made again: this mount shows the new one"
        self._say(StoreError(errno.ESTALE, "store-replaced", new))
        self._said = ""

    async def run(self) -> None:
        """Report when the directory is no longer at the path that was mounted, until cancelled."""
        while True:
            await self._events.take_root_gone()
            # In a thread, since that path may by now lead to anything, even into this mount.
            self.moved = not await trio.to_thread.run_sync(
                self._is_at_its_path, abandon_on_cancel=True
            )
            if self.moved:
                sentence = (
                    f"the store's directory is no longer at {printable(self._store.path)}: this mount"
                    " shows it all the same; unmount, and mount what is at that path by now"
                )
                what = StoreError(errno.ESTALE, "store-moved", sentence)
                self._failures.record(None, None, "lookup", what, KERNEL)

    def _is_at_its_path(self) -> bool:
        """Whether it is there, or was removed, of which `look` tells."""
        held = os.fstat(self._store.fd)
        try:
            return not held.st_nlink or os.path.samestat(os.stat(self._store.path), held)
        except OSError:
            return False

    def _say(self, what: StoreError) -> None:
        if what.sentence != self._said:
            self._said = what.sentence
            self._failures.record(None, None, "lookup", what, KERNEL)
