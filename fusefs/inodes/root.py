"""The mountpoint: the sessions of the store, and `.stepfs`."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import partial

from fusefs.catalogue.catalogue import Catalogue
from fusefs.failures import Caller
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.services import Services
from fusefs.inodes.session_directory import SessionDirectory
from fusefs.permissions import may_change
from fusefs.session.removals import Removals
from fusefs.session.session import Session
from storage.creation import create_named
from storage.deletion import hide
from storage.errors import StoreError, printable


class Root(Directory):
    """The mountpoint."""

    __slots__ = ("_catalogue", "_removals", "_services", "_sessions", "fixed", "of")
    permanent = True

    def __init__(self, services: Services, removals: Removals, catalogue: Catalogue) -> None:
        super().__init__(services.table, None, "")
        self._services = services
        self._removals = removals
        self._catalogue = catalogue
        self._sessions: dict[str, SessionDirectory] = {}
        self.of: dict[Session, SessionDirectory] = {}
        """The known session directories, including deleted ones."""
        self.fixed: dict[str, Directory] = {}
        """Entries other than sessions."""

    @property
    def place(self) -> tuple[str | None, str | None]:
        return None, None

    async def attributes(self, exact: bool) -> Attributes:
        found = await self._services.root_status()
        rights = self._services.rules.directory(found)
        return rights.attributes(self.ino, self.kind, 0, found.st_mtime_ns)

    async def lookup(self, name: str) -> Inode:
        fixed = self.fixed.get(name)
        if fixed is not None:
            return fixed
        known = self._sessions.get(name)
        if known is not None and known.lent(known) is not None:
            return known
        found = await self._services.work.small(name, self._services.store.stat_session, name)
        identity = (found[0].st_dev, found[0].st_ino)
        known = self._sessions.get(name)
        if known is not None and not known.is_session(identity):
            known.bury()
        session = self._session(name, identity)
        session.looked_at(found)
        return session

    async def names(self, private: bool) -> Sequence[str]:
        if self._catalogue.is_followed:
            return [*self.fixed, *await self._catalogue.names()]
        return [*self.fixed, *await self._services.work.long(None, self._services.store.names)]

    def child(self, name: str) -> Inode:
        return self.fixed.get(name) or self._session(name, None)

    def known(self, slug: str) -> SessionDirectory | None:
        """The directory of a session, if the kernel knows it."""
        return self._sessions.get(slug)

    def left(self, directory: SessionDirectory) -> None:
        """Forget a directory that has lost its name."""
        if self._sessions.get(directory.name) is directory:
            del self._sessions[directory.name]

    async def mkdir(self, name: str, caller: Caller) -> None:
        """Create a session (G11). Raises `StoreError`."""
        services = self._services
        make = partial(create_named, services.store, name, sync=services.stores.durable)
        await services.work.long(name, make)
        services.events.stored(name)

    async def rmdir(self, name: str, caller: Caller) -> None:
        """Delete a session with all its files, which are removed later (G11). Raises `StoreError`."""
        if name in self.fixed:
            return await super().rmdir(name, caller)
        services = self._services
        found, _ = await services.work.small(name, services.store.stat_session, name)
        if not may_change(found, caller):
            sentence = f"the session {printable(name)} is not yours to delete"
            raise StoreError(errno.EACCES, "not-yours", sentence)
        deletion = partial(hide, services.store, name, sync=services.stores.durable)
        self._removals.add(await services.work.long(name, deletion))
        services.events.drain()
        services.events.stored(name)
        directory = self._sessions.get(name)
        if directory is not None:
            directory.bury()
        return None

    def _session(self, name: str, identity: tuple[int, int] | None) -> SessionDirectory:
        known = self._sessions.get(name)
        if known is None:
            known = self._sessions[name] = SessionDirectory(self._services, self, name)
        known.seen(identity)
        return known
