"""The files of `.stepfs`, one small class each."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from typing import Final

import orjson

from fusefs.catalogue.catalogue import Catalogue
from fusefs.catalogue.lines import Text
from fusefs.dotdir.guide import GUIDE
from fusefs.dotdir.skill import SKILL
from fusefs.dotdir.status import Status
from fusefs.failures import Caller, Failures
from fusefs.handles.base import OpenFile, OpenText
from fusefs.handles.create import OpenCreate
from fusefs.inodes.attributes import Attributes, Rights
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.services import Services
from storage.errors import StoreError

FOLLOWED_BYTES: Final = 4 << 20
"""Bytes of `errors.jsonl` kept for an open file that reads on."""
STATUS_BYTES: Final = 8192
"""`status.json` is padded to this size, so that an archiver sees no file change while it reads."""


class DotFile(Inode):
    """A file that the mount makes."""

    __slots__ = ("services",)
    permanent = True
    private = False
    """It tells of all sessions, and is the mounting user's alone (G21)."""

    def __init__(self, services: Services, parent: Directory, name: str) -> None:
        super().__init__(services.table, parent, name)
        self.services = services

    async def attributes(self, exact: bool) -> Attributes:
        rights = self.rights()
        size = await self.size() if exact else 0
        return rights.attributes(self.ino, self.kind, size, self.services.began_ns, timeout=0)

    def rights(self) -> Rights:
        """Owner, group and permission bits."""
        if self.private:
            return self.services.rules.private()
        return self.services.rules.public(self.services.known_root(), directory=False)

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            sentence = "the file is read-only"
            raise StoreError(errno.EACCES, "read-only-file", sentence)
        return await self.opened()

    @abstractmethod
    async def size(self) -> int:
        """The size in bytes that stat is told. Raises `StoreError`."""

    @abstractmethod
    async def opened(self) -> OpenFile:
        """The file, as of its open. Raises `StoreError`."""


class TextFile(DotFile):
    """One whose text is made at once."""

    __slots__ = ()

    async def size(self) -> int:
        return len(await self.text())

    async def opened(self) -> OpenFile:
        return OpenText(await self.text())

    @abstractmethod
    async def text(self) -> bytes:
        """Its present text. Raises `StoreError`."""


class ReadmeFile(TextFile):
    """`README`: the tree, explained."""

    __slots__ = ()

    async def text(self) -> bytes:
        return GUIDE


class SkillFile(TextFile):
    """`SKILL.md`: the tree, explained to agents."""

    __slots__ = ()

    async def text(self) -> bytes:
        return SKILL


class SessionsFile(DotFile):
    """`sessions.jsonl`: a line per session."""

    __slots__ = ("_catalogue",)
    private = True

    def __init__(
        self, services: Services, parent: Directory, name: str, catalogue: Catalogue
    ) -> None:
        super().__init__(services, parent, name)
        self._catalogue = catalogue

    async def size(self) -> int:
        return len(await self._catalogue.text())

    async def opened(self) -> OpenFile:
        return OpenPieces(await self._catalogue.text())


class StatusFile(TextFile):
    """`status.json`: how the mount is."""

    __slots__ = ("_status",)
    private = True

    def __init__(self, services: Services, parent: Directory, name: str, status: Status) -> None:
        super().__init__(services, parent, name)
        self._status = status

    async def size(self) -> int:
        return STATUS_BYTES

    async def text(self) -> bytes:
        text = orjson.dumps(self._status.document(), option=orjson.OPT_INDENT_2)
        return text[: STATUS_BYTES - 1].ljust(STATUS_BYTES - 1) + b"\n"


class ErrorsFile(TextFile):
    """`errors.jsonl`: what was refused or failed lately."""

    __slots__ = ()
    private = True

    async def text(self) -> bytes:
        return self.services.failures.text()

    async def opened(self) -> OpenFile:
        return OpenErrors(self.services.failures)


class CreateFile(TextFile):
    """`create`: makes sessions; a fresh open reads as nothing."""

    __slots__ = ()
    may_be_set = True

    def rights(self) -> Rights:
        return self.services.rules.append(self.services.known_root())

    async def text(self) -> bytes:
        return b""

    async def open(self, flags: int, caller: Caller) -> OpenFile:
        return OpenCreate(self.services.stores, self.services.store, caller)


class OpenPieces(OpenFile):
    """`sessions.jsonl`, as of its open: in the pieces that the catalogue keeps, so none is copied."""

    def __init__(self, text: Text) -> None:
        self._text = text

    async def read(self, offset: int, size: int) -> bytes:
        return self._text.read(offset, size)


class OpenErrors(OpenFile):
    """`errors.jsonl`: as of its open, and what came after for who reads on."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._text = failures.text()
        self._begins = 0
        """The offset of the text that is kept."""
        self._made = failures.lines_made

    async def read(self, offset: int, size: int) -> bytes:
        if offset + size > self._begins + len(self._text):
            self._text += self._failures.since(self._made)
            self._made = self._failures.lines_made
            over = max(0, len(self._text) - FOLLOWED_BYTES)
            self._text, self._begins = self._text[over:], self._begins + over
        if offset < self._begins:
            sentence = (
                "these lines are no longer kept, as many failures followed: open the file again"
            )
            raise StoreError(errno.EIO, "let-go", sentence)
        start = offset - self._begins
        return self._text[start : start + size]
