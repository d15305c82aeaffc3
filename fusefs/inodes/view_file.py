"""The file of a view."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from fusefs.failures import Caller
from fusefs.handles.base import OpenFile
from fusefs.handles.view import OpenView
from fusefs.inodes.attributes import Attributes, Rights
from fusefs.inodes.inode import Directory, Inode
from fusefs.session.held_text import pin
from fusefs.session.refresh import present, refresh
from fusefs.session.session import Session
from fusefs.views.epoch import Epoch, State
from fusefs.views.formats import View
from storage.errors import StoreError

if TYPE_CHECKING:
    from fusefs.inodes.session_directory import SessionDirectory

NEVER: Final = -1


class ViewFile(Inode):
    """One inode of a view: shows one epoch, which it gets when it is first stat'ed or opened."""

    __slots__ = ("directory", "epoch", "rights", "session_directory", "told", "view")

    def __init__(self, owner: SessionDirectory, directory: Directory, view: View) -> None:
        super().__init__(owner.table, directory, view.format.name)
        self.session_directory = owner
        self.directory = directory
        """The directory that holds its name."""
        self.view = view
        self.epoch: Epoch | None = None
        self.told = NEVER
        """The size that the kernel knows; `NEVER` if it knows none."""
        self.rights = Rights(0, 0, 0)
        """The owner and permissions last given to the kernel."""

    @property
    def place(self) -> tuple[str | None, str | None]:
        return self.session_directory.name, self.name

    @property
    def superseded(self) -> bool:
        """Whether its name leads to a newer inode."""
        epoch = self.epoch
        return self.session_directory.gone or (epoch is not None and epoch.superseded)

    @property
    def kept(self) -> bool:
        if self.epoch is not None and self.epoch.pinned:
            return True
        present = self.session_directory.views.get(self.view) is self
        # The name keeps its inode number as long as its epoch is known (G13).
        return present and self.session_directory.is_open

    @property
    def successor(self) -> Inode:
        if not self.superseded:
            return self
        self.session_directory.settle()
        return self.session_directory.views.get(self.view, self)

    @property
    def _session(self) -> Session:
        return self.session_directory.session

    def listed(self) -> Attributes | None:
        lent = self.session_directory.lent(self)
        if lent is not None or self.told == NEVER:
            return lent
        return Attributes(self.ino, self.kind | 0o400, 0, 0, self.told, attr_timeout=0)

    async def attributes(self, exact: bool) -> Attributes:
        """As `Inode.attributes`; unless `exact`, a view that was not built yet has size 0."""
        if (lent := self.session_directory.lent(self)) is not None:
            return lent
        if self.session_directory.gone:
            return self._last_known()
        if self.epoch is None or not self.epoch.pinned:
            return await self._present(exact)
        with self.session_directory.services.work.patience():
            return await self._present(exact)
        return self._last_known()  # an open file of a store that does not answer

    async def _present(self, exact: bool) -> Attributes:
        services = self.session_directory.services
        as_of = self.session_directory.as_of
        try:
            await self._look_at_rights(exact)
        except StoreError:
            if self.epoch is not None and self.epoch.pinned:
                return self._last_known()  # fstat of an open file
            raise
        if not exact and (self.epoch is None or not self.epoch.built):
            return self.rights.attributes(self.ino, self.kind, max(self.told, 0), 0, timeout=0)
        if not self.superseded:
            async with services.pool.lease(self._session) as session:
                if as_of is None and session.is_told:  # the session was only just opened
                    as_of = self.session_directory.as_of
                    await self._look_at_rights()
                if self.epoch is None:
                    self.epoch = present(services.means, session, self.view)
                try:
                    await refresh(services.means, session, self.view, exact=False)
                except StoreError as error:
                    if self.epoch.pinned and (session.gone or error.code == "no-such-epoch"):
                        return self._last_known()  # fstat of an open file
                    raise
                self.session_directory.settle()
                await self.grow()
                if self._follows_steps_alone():
                    return self.session_directory.lend(self, self._last_known(), as_of)
        return self._last_known()

    async def _look_at_rights(self, exact: bool = True) -> None:
        _, meta = await self.session_directory.status(exact)
        self.rights = self.session_directory.services.rules.view(meta)

    def _follows_steps_alone(self) -> bool:
        """Whether it is up to date, and only changes in the session's directory can change that: no
        event reports a change of an archive's text."""
        epoch = self.epoch
        assert epoch is not None
        lead = epoch.view.format.lead is not None and epoch.boundary.archive is not None
        return epoch.state is State.CURRENT and self.told == epoch.size and not lead

    async def grow(self) -> None:
        """Tell the kernel how far the file has grown, and only then report that as its size.

        The kernel discards the result of a stat if a change was reported to it meanwhile, and then reads
        only up to the old size. So no stat may report a size that the kernel does not know.
        """
        assert self.epoch is not None
        size = self.epoch.size
        if NEVER < self.told < size:
            await self.session_directory.services.kernel.grown(self.ino, size)
        self.told = max(self.told, size)

    async def publish(self, session: Session) -> None:
        """Bring its epoch and its size in the kernel up to date, and notify followers (G12, G14)."""
        epoch = self.epoch
        if epoch is None or epoch.state is State.EMPTY:
            return
        await refresh(self.session_directory.services.means, session, self.view, exact=False)
        self.session_directory.settle()
        if self.told > NEVER and not self.superseded:
            await self.grow()
        epoch.tell()

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        """An open file that shows every step that is in the store now (G12)."""
        services = self.session_directory.services
        await self.session_directory.verify()
        # For O_TRUNC the kernel would drop the pages of processes that have mapped the file.
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise self.not_writable()
        async with services.pool.lease(self._session) as session:
            second = services.stale_opens.is_second(caller, session, self.view)
            if self.epoch is None or not self.epoch.superseded:
                self.epoch = present(services.means, session, self.view)
            opened = OpenView(services.pool, services.means, session, self.epoch)
            try:
                await self._bring_up_to_date(session, self.epoch, second)
            except BaseException as error:
                await opened.release()
                if isinstance(error, StoreError) and error.errno == errno.ESTALE:
                    services.stale_opens.answered(caller, session, self.view)
                raise
            opened.begin()
            return opened

    def not_writable(self) -> StoreError:
        """The error for an open for writing."""
        sentence = "the file is read-only: write to append or compact"
        return StoreError(errno.EACCES, "read-only-file", sentence)

    async def _bring_up_to_date(self, session: Session, epoch: Epoch, second: bool) -> None:
        means = self.session_directory.services.means
        while True:
            await refresh(means, session, self.view)
            self.session_directory.settle()
            if epoch.superseded and not second:
                raise _stale()
            try:
                await pin(means, session, epoch)
            except StoreError as error:
                if error.code != "changed-underneath":
                    raise
                if epoch.superseded:
                    raise _stale() from None
            else:
                await self.grow()
                return

    def forgotten(self) -> None:
        directory = self.session_directory
        if self.epoch is not None:
            session = self._session
            directory.services.means.cache.drop(self.epoch)
            if session.epochs.get(self.view) is self.epoch:
                session.drop(self.view)
        if directory.views.get(self.view) is self:
            del directory.views[self.view]

    def _last_known(self) -> Attributes:
        if self.epoch is None:
            began = self.session_directory.services.began_ns
            return self.rights.attributes(self.ino, self.kind, 0, began)
        session = self._session
        # What was superseded before anybody learned its size does not grow any more.
        unseen = self.superseded and self.told == NEVER
        size, mtime_ns = self.epoch.size if unseen else max(self.told, 0), self.epoch.mtime_ns
        found = self.rights.attributes(self.ino, stat.S_IFREG, size, mtime_ns)
        if session.is_open and session.watch is None:
            # Without events these may be a second old already: the kernel must not cache them (G12).
            found.attr_timeout = 0
        return found


def _stale() -> StoreError:
    return StoreError(errno.ESTALE, "superseded", "the name refers to another file now")
