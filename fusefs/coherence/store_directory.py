"""The store's directory may be removed underneath the mount, and made again under its path (G19).

A directory that is removed was empty, so nothing is left that could be mixed up with what is in the
new one: its sessions are gone, each as if it alone had been deleted (G20). What was tried at mount holds
for the same file system only, and what another user puts in place is not this store. Where both are the
same the mount goes on with the new directory, under the descriptor of the old.

No event tells of the removal of a directory that is held open, so it is looked at with each operation
that must be exact.
"""

from __future__ import annotations

import errno
import os

from fusefs.catalogue.catalogue import Catalogue
from fusefs.coherence.events import EventQueue
from fusefs.failures import KERNEL, Failures
from storage.errors import StoreError, printable
from storage.store import Store


class StoreDirectory:
    """Notices that the directory was removed, says so, and goes on with a new one. Loop-owned."""

    def __init__(
        self, store: Store, events: EventQueue, catalogue: Catalogue, failures: Failures
    ) -> None:
        self.replacements = 0
        """How often the mount has continued with a new directory."""
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
        """Know the directory as it is now; only of a near store its number of links tells."""
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

    def _say(self, what: StoreError) -> None:
        if what.sentence != self._said:
            self._said = what.sentence
            self._failures.record(None, None, "lookup", what, KERNEL)
