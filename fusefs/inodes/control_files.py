"""The writable files of a session: `append`, `compact` and `meta.json`."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING

from fusefs.failures import Caller
from fusefs.handles.base import OpenFile, OpenText
from fusefs.handles.compact import OpenCompact
from fusefs.handles.control import OpenAppend
from fusefs.handles.document import SMALL_BYTES, CountedText, OpenMeta
from fusefs.inodes.attributes import TIMEOUT_SECONDS, Attributes, Rights
from fusefs.inodes.inode import Inode
from fusefs.session.refresh import archive
from fusefs.session.session import Session
from storage.errors import from_os_error, printable
from storage.formats import jsontext
from storage.session import meta
from storage.store import AnyStatus

if TYPE_CHECKING:
    from fusefs.inodes.session_directory import SessionDirectory


class ControlFile(Inode):
    """A writable file of a session. It reads as its text when it was opened."""

    __slots__ = ("directory",)
    may_be_set = True
    timeout_seconds = 0.0
    """How long the kernel may cache its attributes if they are not lent."""
    sizeless = False
    """Whether it always reads as empty."""

    def __init__(self, directory: SessionDirectory, name: str) -> None:
        super().__init__(directory.table, directory, name)
        self.directory = directory

    @property
    def place(self) -> tuple[str | None, str | None]:
        return self.directory.name, self.name

    @property
    def kept(self) -> bool:
        return self.directory.children.get(self.name) is self and self.directory.is_open

    async def attributes(self, exact: bool) -> Attributes:
        if (lent := self.directory.lent(self)) is not None:
            return lent
        services = self.directory.services
        if self.directory.gone:
            return Rights(0, 0, 0).attributes(self.ino, self.kind, 0, services.began_ns)
        as_of = self.directory.as_of
        directory, about = await self.directory.status(exact)
        size = 0
        if exact:
            async with services.pool.lease(self.directory.session) as session:
                size = len(await self.text(session))
        rights, changed_ns = self.rights(directory, about), self.changed_ns(directory, about)
        found = rights.attributes(self.ino, self.kind, size, changed_ns, self.timeout_seconds)
        return self.directory.lend(self, found, as_of) if exact or self.sizeless else found

    def listed(self) -> Attributes | None:
        return self.directory.lent(self)

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        await self._verify()
        async with self.directory.services.pool.lease(self.directory.session) as session:
            text = await self.text(session)
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return self.readable(caller, text)
            return self.writable(session, caller, text)

    async def _verify(self) -> None:
        """Check that the session still has its name. Raises `StoreError`."""
        await self.directory.verify()

    def forgotten(self) -> None:
        if self.directory.children.get(self.name) is self:
            del self.directory.children[self.name]

    def rights(self, directory: AnyStatus, about: AnyStatus) -> Rights:
        """Who may read and write it, from the session's directory and its meta."""
        return self.directory.services.rules.control(directory, about)

    def changed_ns(self, directory: AnyStatus, about: AnyStatus) -> int:
        """The mtime of its text."""
        return directory.st_mtime_ns

    @abstractmethod
    async def text(self, session: Session) -> bytes:
        """Its present text. Raises `StoreError`."""

    def readable(self, caller: Caller, text: bytes) -> OpenFile:
        """An open file that reads as `text`. Raises `StoreError`."""
        return OpenText(text)

    @abstractmethod
    def writable(self, session: Session, caller: Caller, text: bytes) -> OpenFile:
        """An open file that can be written; it reads as `text`."""


class AppendFile(ControlFile):
    """`append`: lines become steps; it reads as empty."""

    __slots__ = ()
    timeout_seconds = TIMEOUT_SECONDS
    sizeless = True

    async def attributes(self, exact: bool) -> Attributes:
        return await super().attributes(exact=False)  # its size does not need an open session

    async def _verify(self) -> None:
        await self.directory.verify(exact=False)  # storing a step checks again

    def rights(self, directory: AnyStatus, about: AnyStatus) -> Rights:
        return self.directory.services.rules.append(directory)

    async def text(self, session: Session) -> bytes:
        return b""

    def writable(self, session: Session, caller: Caller, text: bytes) -> OpenFile:
        return OpenAppend(self.directory.services.stores, session, caller, text)


class CompactFile(ControlFile):
    """`compact`: a line is an archive's name; it reads as the present archive's name."""

    __slots__ = ()

    async def text(self, session: Session) -> bytes:
        name = await archive(self.directory.services.means, session)
        return b"" if name is None else name.encode() + b"\n"

    def writable(self, session: Session, caller: Caller, text: bytes) -> OpenFile:
        return OpenCompact(self.directory.services.stores, session, caller, text)


class MetaFile(ControlFile):
    """`meta.json`: reads as the meta; an object written to it is merged into the meta."""

    __slots__ = ()

    def changed_ns(self, directory: AnyStatus, about: AnyStatus) -> int:
        return about.st_mtime_ns

    async def text(self, session: Session) -> bytes:
        work = self.directory.services.work
        try:
            data, _ = await work.small(session.slug, meta.read, session.fd)
        except OSError as error:
            raise from_os_error(error, f"read the meta of {printable(session.slug)}") from error
        return (
            _shown(data)
            if len(data) <= SMALL_BYTES
            else await work.long(session.slug, _shown, data)
        )

    def readable(self, caller: Caller, text: bytes) -> OpenFile:
        return CountedText(self.directory.services.stores.pending, caller, text)

    def writable(self, session: Session, caller: Caller, text: bytes) -> OpenFile:
        return OpenMeta(self.directory.services.stores, session, caller, text)


def _shown(data: bytes) -> bytes:
    """A meta as it is shown: on one line, or unchanged if it is not JSON."""
    try:
        jsontext.parse(data)
    except jsontext.NotJSON:
        return data
    return jsontext.one_line(data) + b"\n"
