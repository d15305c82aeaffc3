"""`.stepfs` and the directories in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.dotdir.files import (
    CreateFile,
    DotFile,
    ErrorsFile,
    ReadmeFile,
    SessionsFile,
    SkillFile,
    StatusFile,
)
from fusefs.dotdir.status import Status
from fusefs.dotdir.step_ranges import runs_told
from fusefs.handles.view import POLLABLE
from fusefs.inodes.attributes import Attributes, Rights
from fusefs.inodes.inode import Directory, Inode
from fusefs.inodes.services import Services
from fusefs.inodes.view_file import ViewFile

DOT_DIRECTORY: Final = ".stepfs"
SETTLING_SECONDS: Final = 2.0


class OwnDirectory(Directory):
    """A directory that the mount makes."""

    __slots__ = ("services",)
    permanent = True

    def __init__(self, services: Services, parent: Directory, name: str) -> None:
        super().__init__(services.table, parent, name)
        self.services = services

    async def attributes(self, exact: bool) -> Attributes:
        return self.rights().attributes(self.ino, self.kind, 0, self.services.began_ns)

    def rights(self) -> Rights:
        """Owner, group and permission bits."""
        return self.services.rules.public(self.services.known_root(), directory=True)


class DotDirectory(OwnDirectory):
    """`.stepfs`: what the mount tells of itself and of all sessions."""

    __slots__ = ("_hidden", "_listed")

    def __init__(
        self, services: Services, parent: Directory, catalogue: Catalogue, status: Status
    ) -> None:
        super().__init__(services, parent, DOT_DIRECTORY)
        listed: list[Inode] = [
            ReadmeFile(services, self, "README"),
            SkillFile(services, self, "SKILL.md"),
            SessionsFile(services, self, "sessions.jsonl", catalogue),
            LatestDirectory(services, self, "latest", catalogue),
            CreateFile(services, self, "create"),
            StatusFile(services, self, "status.json", status),
            ErrorsFile(services, self, "errors.jsonl"),
        ]
        self._listed = {inode.name: inode for inode in listed}
        self._hidden = {"steps": StepsDirectory(services, self, "steps")}

    async def lookup(self, name: str) -> Inode:
        return self._listed.get(name) or self._hidden.get(name) or self.no_such_name(name)

    async def names(self, private: bool) -> Sequence[str]:
        return [
            name
            for name, inode in self._listed.items()
            if private or not (isinstance(inode, DotFile) and inode.private)
        ]

    def child(self, name: str) -> Inode | None:
        return self._listed.get(name)


class Link(Inode):
    """A symlink, known for as long as the kernel holds it."""

    __slots__ = ("_began_ns", "_known", "_rights", "_target")
    kind = stat.S_IFLNK

    def __init__(
        self,
        parent: OwnDirectory,
        name: str,
        target: str,
        rights: Rights,
        known: dict[str, Link] | None = None,
    ) -> None:
        """`known` are the links of the directory by name, where it keeps them."""
        super().__init__(parent.table, parent, name)
        self._target = target
        self._rights = rights
        self._began_ns = parent.services.began_ns
        self._known = {} if known is None else known

    async def attributes(self, exact: bool) -> Attributes:
        return self.listed()

    def listed(self) -> Attributes:  # never less than all
        size, owner = len(os.fsencode(self._target)), self._rights
        found = Attributes(self.ino, self.kind | 0o777, owner.uid, owner.gid, size, self._began_ns)
        found.entry_timeout = 0  # where it leads is looked at each time (G12)
        return found

    def readlink(self) -> str:
        return self._target

    def forgotten(self) -> None:
        if self._known.get(self.name) is self:
            del self._known[self.name]


class LatestDirectory(OwnDirectory):
    """`latest`: links `<agent>_<sender>` to the newest session of the two.

    They are kept while nothing happened to the list of sessions.
    """

    __slots__ = ("_as_of", "_catalogue", "_inodes", "_slugs")

    def __init__(
        self, services: Services, parent: Directory, name: str, catalogue: Catalogue
    ) -> None:
        super().__init__(services, parent, name)
        self._catalogue = catalogue
        self._slugs: Mapping[str, str] = {}
        self._inodes: dict[str, Link] = {}
        """The links that the kernel may hold, each as it was told last."""
        self._as_of = float("-inf")

    async def lookup(self, name: str) -> Inode:
        await self._look()
        return self.child(name) or self.no_such_name(name)

    async def names(self, private: bool) -> Sequence[str]:
        await self._look()
        return list(self._slugs)

    def child(self, name: str) -> Inode | None:
        slug = self._slugs.get(name)
        if slug is None:
            return None
        target, link = f"../../{slug}", self._inodes.get(name)
        if link is None or link.readlink() != target:
            link = Link(self, name, target, self.rights(), self._inodes)
            self._inodes[name] = link
        return link

    async def _look(self) -> None:
        """Know the links as they are now.

        A session appears as a directory first and gets its meta a moment later, which no event of
        the store's root tells: links made that soon after a change are made again.
        """
        changed_at = self.services.events.root_changed_at
        if changed_at is None or self._as_of < changed_at + SETTLING_SECONDS:
            now = trio.current_time()
            self._slugs = await self._catalogue.latest()
            self._as_of = now


class StepsDirectory(OwnDirectory):
    """`steps`, which is not listed: what `stepfs follow` asks for the steps behind a view's lines.

    `INODE.LINE` is a link to the numbers of the steps behind the lines from LINE on. A link, because
    what it leads to is had in two round trips and kept by nobody. An extended attribute would do as
    well, but then the kernel asks for those of every file that is listed.
    """

    __slots__ = ()

    async def lookup(self, name: str) -> Inode:
        ino, _, line = name.partition(".")
        inode = self.table.get(int(ino)) if ino.isdecimal() and line.isdecimal() else None
        if not isinstance(inode, ViewFile) or inode.view.format not in POLLABLE:
            self.no_such_name(name)
        if inode.epoch is None:
            self.no_such_name(name)
        return Link(self, name, runs_told(inode.epoch.ranges(), int(line)), self.rights())

    async def names(self, private: bool) -> Sequence[str]:
        return ()

    def child(self, name: str) -> Inode | None:
        return None
