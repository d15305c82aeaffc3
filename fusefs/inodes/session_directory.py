"""The directory of a session."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fusefs.inodes.attributes import LENT_SECONDS, Attributes
from fusefs.inodes.control_files import AppendFile, CompactFile, ControlFile, MetaFile
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.past import AtDirectory, EpochsDirectory, HiddenDirectory
from fusefs.inodes.services import Services
from fusefs.inodes.view_file import ViewFile
from fusefs.session.session import Session
from fusefs.views.formats import FORMATS, View
from storage.errors import StoreError
from storage.store import Status

if TYPE_CHECKING:
    from fusefs.inodes.root import Root

_VIEWS: Final = {format.name: View(format) for format in FORMATS}
_CONTROLS: Final[dict[str, type[ControlFile]]] = {
    "append": AppendFile,
    "compact": CompactFile,
    "meta.json": MetaFile,
}
_HIDDEN: Final[dict[str, type[HiddenDirectory]]] = {".epochs": EpochsDirectory, ".at": AtDirectory}
"""Found by name, and never listed, so that no recursive reader meets them (G29a)."""
FILES: Final = (*_VIEWS, *_CONTROLS)
_NO_COPIES: Final = (
    "no file can be made here: a session holds these and no others, so write lines to append"
)
KNOWN_SECONDS: Final = 0.05
"""On a far store, a session's status of this age is good enough for a lookup, whose result the kernel
itself caches for a second."""
Statuses = tuple[Status, Status]
"""The status of a session's directory and that of its meta."""


class SessionDirectory(Directory):
    """The directory of a session, kept as long as the kernel or an open file knows it.

    It owns all views of the session, including those in directories below it. The name of a view leads
    to a new inode once the old one's epoch was superseded (G13).
    """

    __slots__ = (
        "_identity",
        "_lent",
        "_looked_at",
        "_root",
        "_session",
        "_status",
        "children",
        "services",
        "views",
    )

    def __init__(self, services: Services, root: Root, slug: str) -> None:
        super().__init__(services.table, root, slug)
        self.services = services
        self.children: dict[str, Inode] = {}
        """Its files and directories, apart from views."""
        self.views: dict[View, ViewFile] = {}
        """The current inode of each view."""
        self._root = root
        self._session: Session | None = None
        self._identity: tuple[int, int] | None = None
        self._looked_at: tuple[float, Statuses] | None = None
        """When a far store was last queried, and the result."""
        self._status: tuple[int, Statuses] | None = None
        """The last result of `status`, and the session's count of changes at that time."""
        self._lent: dict[Inode, tuple[int, Attributes]] = {}
        """Attributes that the kernel caches until they are recalled, and the count of changes then."""

    @property
    def session(self) -> Session:
        """The session, created when it is first needed."""
        if self._session is None:
            self._session = Session(self.name, self._identity, self.services.means.texts)
            self._root.of[self._session] = self
        return self._session

    @property
    def gone(self) -> bool:
        """Whether the session was deleted, or another one has its name."""
        return self._session is not None and self._session.gone

    @property
    def is_open(self) -> bool:
        """Whether the session is open."""
        return self._session is not None and self._session.is_open

    @property
    def _remembers(self) -> bool:
        """Whether the session remembers steps that a daemon may displace."""
        return self._session is not None and len(self._session.recent) > 0

    @property
    def place(self) -> tuple[str | None, str | None]:
        return self.name, None

    @property
    def kept(self) -> bool:
        return bool(self.children or self.views) or self.is_open or self._remembers

    def seen(self, identity: tuple[int, int] | None) -> None:
        """The name was found in the store, with this identity, or only in a listing (None)."""
        if identity is not None:
            self._identity = identity
            if self._session is not None:
                self._session.identity = identity

    def is_session(self, identity: tuple[int, int]) -> bool:
        """Whether the directory with this identity is that of this session, as far as is known."""
        known = self._identity if self._session is None else self._session.identity
        return known in (None, identity) and not self.gone

    def bury(self) -> None:
        """The session is gone from the store: its name refers to another one, or to none."""
        session = self.session
        self._root.left(self)
        self.services.pool.bury(session)
        self.services.kernel.entry_changed(self._root.ino, self.name)
        self.tell()

    def tell(self) -> None:
        """Notify the followers of its views that these have grown or were replaced."""
        for file in list(self.views.values()):
            if file.epoch is not None:
                file.epoch.tell()

    @property
    def as_of(self) -> int | None:
        """The session's count of changes, to tell later whether a result is still current; None if
        changes are not reported."""
        session = self._session
        return session.changes if session is not None and session.is_told else None

    def lent(self, inode: Inode) -> Attributes | None:
        """The attributes that were lent to the kernel for an inode, if they are still current."""
        if not self._lent:
            return None
        as_of, attributes = self._lent.get(inode, (None, None))
        return attributes if as_of is not None and as_of == self.as_of else None

    def lend(self, inode: Inode, attributes: Attributes, as_of: int | None) -> Attributes:
        """Lend attributes to the kernel until they are recalled, if changes are reported.

        `as_of` is the count of changes before they were read: if it has changed, they may be outdated.
        """
        if as_of is not None and as_of == self.as_of:
            attributes.attr_timeout = LENT_SECONDS
            self._lent[inode] = as_of, attributes
        return attributes

    def recall(self) -> None:
        """The session has changed, or changes are no longer reported: make the kernel ask again."""
        lent, self._lent = self._lent, {}
        for inode in lent:
            self.services.kernel.attributes_changed(inode.ino)

    async def status(self, exact: bool = True) -> Statuses:
        """Stat the directory and its meta, and verify that it is still this session.

        Unless `exact`, the result may be `KNOWN_SECONDS` old on a far store, so that an open with its
        lookups queries the store once. Raises `StoreError`: ENOENT, or ESTALE, which makes the kernel
        look the name up again.
        """
        if (known := self._known_status(exact)) is not None:
            return known
        as_of = self.as_of
        work, store = self.services.work, self.services.store
        try:
            found = await work.small(self.name, store.stat_session, self.name)
        except StoreError as error:
            if error.errno == errno.ENOENT and not self.gone:
                self.bury()
            raise
        if not self.gone and not self.is_session((found[0].st_dev, found[0].st_ino)):
            self.bury()
        if self.gone:
            raise self.session.replaced()
        session = self._session
        if session is not None and self.services.events.root_changed_at is not None:
            session.verified = session.watch is not None
        self._status = None if as_of is None else (as_of, found)
        self.looked_at(found)
        return found

    def _known_status(self, exact: bool) -> Statuses | None:
        """The result of `status` if the store need not be queried, else None."""
        if not exact and self._looked_at is not None and not self.gone:
            when, known = self._looked_at
            if time.monotonic() - when < KNOWN_SECONDS:
                return known
        if self._status is not None and self._status[0] == self.as_of:
            return self._status[1]
        return None

    def looked_at(self, found: Statuses) -> None:
        """Record a status that was just read from the store."""
        self._looked_at = None if self.services.work.near else (time.monotonic(), found)

    async def verify(self, exact: bool = True) -> None:
        """As `status`, unless the session is known to be verified."""
        if self._session is None or not self._session.verified:
            await self.status(exact)

    async def attributes(self, exact: bool) -> Attributes:
        if (known := self.listed()) is not None:
            return known
        as_of = self.as_of
        found, _ = await self.status(exact=False)
        return self._lent_of(found, as_of)

    def listed(self) -> Attributes | None:
        if (lent := self.lent(self)) is not None:
            return lent
        # A file of the session has had the store queried, after the kernel had asked for the directory.
        known = self._known_status(exact=True)
        return None if known is None else self._lent_of(known[0], self.as_of)

    def _lent_of(self, found: Status, as_of: int | None) -> Attributes:
        rights = self.services.rules.directory(found)
        attributes = rights.attributes(self.ino, self.kind, 0, found.st_mtime_ns)
        return self.lend(self, attributes, as_of)

    async def lookup(self, name: str) -> Inode:
        if self.gone:
            # The kernel had cached its name; if another session has that by now, ESTALE makes it retry.
            await self.services.work.small(self.name, self.services.store.stat_session, self.name)
            raise self.session.replaced()
        return self.child(name) or self._hidden(name) or self.no_such_name(name)

    async def names(self, private: bool) -> Sequence[str]:
        if self._known_status(exact=False) is None:
            await self.services.work.small(self.name, self.services.store.stat_session, self.name)
        return FILES

    def child(self, name: str) -> Inode | None:
        view = _VIEWS.get(name)
        if view is not None:
            return self.view_file(view, self)
        known = self.children.get(name)
        if known is None and name in _CONTROLS:
            known = self.children[name] = _CONTROLS[name](self, name)
        return known

    def _hidden(self, name: str) -> Inode | None:
        known = self.children.get(name)
        if known is None and name in _HIDDEN:
            known = self.children[name] = _HIDDEN[name](self, self, name)
        return known

    def view_file(self, view: View, parent: Directory, kind: type[ViewFile] = ViewFile) -> ViewFile:
        """The current inode of a view that is a file of `parent`."""
        file = self.views.get(view)
        if file is None:
            file = self.views[view] = kind(self, parent, view)
        return file

    async def refusal(self, operation: str) -> StoreError:
        await self.status()
        if operation == "create":
            return StoreError(errno.EPERM, "no-new-files", _NO_COPIES)
        return await super().refusal(operation)

    def settle(self) -> None:
        """Give the names of views whose epochs were superseded to new inodes (G13)."""
        if self._session is None:
            return
        for view, epoch in list(self._session.epochs.items()):
            file = self.views.get(view)
            if file is None or file.epoch is epoch or file.epoch is None:
                continue
            successor = self.views[view] = type(file)(self, file.directory, view)
            successor.epoch = epoch
            self.services.kernel.entry_changed(file.directory.ino, file.name)
            file.epoch.tell()
            self.table.reap(file)  # the kernel sends no forget for an inode that it never knew

    def reap(self) -> None:
        """The session was closed: drop the inodes below it, and itself, that nobody refers to."""
        for inode in [*self.views.values(), *self.children.values(), self]:
            self.table.reap(inode)

    def forgotten(self) -> None:
        self._root.left(self)
        if self._session is not None:
            del self._root.of[self._session]
            self.services.pool.close(self._session)  # it may rest
