"""The past of a session: `.epochs/N` and `.at/STEP`, `.at/TIME` (G29, G30).

The kernel must not cache these names: any change to a compaction may change what they refer to, and this
way they are exact without an invalidation of each. `RecentPast` decides which of them stay known.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusefs.failures import Caller
from fusefs.handles.base import OpenFile
from fusefs.inodes.attributes import Attributes, Rights
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.view_file import ViewFile
from fusefs.session.refresh import count_epochs
from fusefs.session.session import Session
from fusefs.views.cuts import AtStep, AtTime, Cut, InEpoch
from fusefs.views.formats import PAST_FORMATS, View
from storage.errors import StoreError
from storage.session.steps import NUMBER_MAX
from storage.times import nanoseconds

if TYPE_CHECKING:
    from fusefs.inodes.session_directory import SessionDirectory

_FORMATS = {format.name: format for format in PAST_FORMATS}


class HiddenDirectory(Directory):
    """A directory of the past, with the session's rights except for writing."""

    __slots__ = ("children", "container", "owner")

    def __init__(
        self, owner: SessionDirectory, container: SessionDirectory | HiddenDirectory, name: str
    ) -> None:
        super().__init__(owner.table, container, name)
        self.owner = owner
        """The session's directory."""
        self.container = container
        self.children: dict[str, Inode] = {}
        """Its known inodes by name, except views."""

    @property
    def place(self) -> tuple[str | None, str | None]:
        return self.owner.name, self.name

    @property
    def kept(self) -> bool:
        return bool(self.children)

    async def attributes(self, exact: bool) -> Attributes:
        found, _ = await self.owner.status()
        rights = self.owner.services.rules.directory(found)
        readable = Rights(rights.uid, rights.gid, rights.bits & 0o555)
        told = readable.attributes(self.ino, self.kind, 0, found.st_mtime_ns)
        told.entry_timeout = 0
        return told

    async def lookup(self, name: str) -> Inode:
        await self.owner.verify()
        return await self.found(name) or self.no_such_name(name)

    @abstractmethod
    async def found(self, name: str) -> Inode | None:
        """The inode of a name; None if there is no such name. Raises `StoreError`."""

    async def names(self, private: bool) -> Sequence[str]:
        return ()

    def child(self, name: str) -> Inode | None:
        return self.children.get(name)

    def forgotten(self) -> None:
        if self.container.children.get(self.name) is self:
            del self.container.children[self.name]


class EpochsDirectory(HiddenDirectory):
    """`.epochs`: a numbered directory for each history that the session has had."""

    __slots__ = ()

    async def found(self, name: str) -> Inode | None:
        number = _number(name)
        if not number:
            return None
        if number > await self.count(exact=False) and number > await self.count(exact=True):
            return None
        return self.child(name)

    async def names(self, private: bool) -> Sequence[str]:
        await self.owner.verify()
        return [str(number) for number in range(1, await self.count(exact=True) + 1)]

    def child(self, name: str) -> Inode | None:
        known = self.children.get(name)
        if known is None:
            cut = InEpoch(int(name))
            known = self.children[name] = PastDirectory(self.owner, self, name, cut)
        self.owner.services.recent_past.entered(known)
        return known

    async def count(self, exact: bool) -> int:
        """The number of epochs, as current as `exact` asks for. Raises `StoreError`."""
        services = self.owner.services
        async with services.pool.lease(self.owner.session) as session:
            return await count_epochs(services.means, session, exact)


class AtDirectory(HiddenDirectory):
    """`.at`: the session at any step or time, which are too many to be listed."""

    __slots__ = ()

    async def found(self, name: str) -> Inode | None:
        known = self.children.get(name)
        if known is None and (cut := _cut(name)) is not None:
            known = self.children[name] = PastDirectory(self.owner, self, name, cut)
        if known is not None:
            self.owner.services.recent_past.entered(known)
        return known


class PastDirectory(HiddenDirectory):
    """The session as if it had only the steps within a cut."""

    __slots__ = ("_container", "_cut")

    def __init__(
        self, owner: SessionDirectory, container: HiddenDirectory, name: str, cut: Cut
    ) -> None:
        super().__init__(owner, container, name)
        self._container = container
        self._cut = cut

    @property
    def kept(self) -> bool:
        views = (self.owner.views.get(View(format, self._cut)) for format in PAST_FORMATS)
        return any(file is not None and file.directory is self for file in views)

    async def found(self, name: str) -> Inode | None:
        if await self._container.found(self.name) is not self:  # an epoch that no longer exists
            return None
        return self.child(name)

    async def names(self, private: bool) -> Sequence[str]:
        return tuple(_FORMATS)

    def child(self, name: str) -> Inode | None:
        format = _FORMATS.get(name)
        if format is None:
            return None
        return self.owner.view_file(View(format, self._cut), self, PastFile)

    def forgotten(self) -> None:
        self.owner.services.recent_past.drop(self)
        super().forgotten()


class PastFile(ViewFile):
    """One inode of a view of the past."""

    __slots__ = ()

    @property
    def place(self) -> tuple[str | None, str | None]:
        return self.session_directory.name, f"{self.directory.name}/{self.name}"

    @property
    def kept(self) -> bool:
        if self.epoch is not None and self.epoch.pinned:
            return True
        present = self.session_directory.views.get(self.view) is self
        return present and self in self.session_directory.services.recent_past

    async def attributes(self, exact: bool) -> Attributes:
        try:
            told = await super().attributes(exact)
        finally:
            self._used()
        told.entry_timeout = 0
        return told

    def listed(self) -> None:
        """A caller that needs more than its name looks it up."""

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        opened = await super().open(flags, caller)
        self._used()
        return opened

    def not_writable(self) -> StoreError:
        return StoreError(errno.EROFS, "the-past", "the past of a session cannot be changed")

    async def publish(self, session: Session) -> None:
        if self.epoch is not None and self.epoch.pinned:  # else the kernel has cached nothing of it
            await super().publish(session)

    def forgotten(self) -> None:
        self.session_directory.services.recent_past.drop(self)
        super().forgotten()

    def _follows_steps_alone(self) -> bool:
        return False  # attributes are lent only for inodes that are kept

    def _used(self) -> None:
        if self.epoch is not None:
            self.session_directory.services.recent_past.used(self, self.epoch.lines)


def _number(name: str) -> int | None:
    """The number in a name, written without leading zeros; None if it is not one."""
    if not (name.isascii() and name.isdecimal()) or name != str(number := int(name)):
        return None
    return number if number <= NUMBER_MAX else None


def _cut(name: str) -> Cut | None:
    number = _number(name)
    if number is not None:
        return AtStep(number)
    time_ns = nanoseconds(name)
    return None if time_ns is None else AtTime(name, time_ns)
