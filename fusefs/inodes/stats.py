"""The attributes of nodes, as stat(2) and listings are told them (G3)."""

from __future__ import annotations

import os
import stat
import time
from typing import Final

from fusefs.coherence.events import Changes
from fusefs.dotdir.files import DIRECTORIES, Hidden
from fusefs.inodes.attributes import Attributes, Rights, Rules
from fusefs.inodes.inode import FileNode, HiddenNode, LinkNode, Node, SessionNode
from fusefs.inodes.table import VIEWS
from fusefs.session.pool import LiveSessions
from fusefs.session.session import LiveSession
from storage.errors import StoreError, from_os_error, printable
from storage.formats import jsontext
from storage.session import meta
from storage.store import Store

_FILE: Final = stat.S_IFREG | 0o400
_DIRECTORY: Final = stat.S_IFDIR | 0o500


class Stats:
    """Makes attributes. Loop-owned; replays run in threads."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        live: LiveSessions,
        changes: Changes,
        hidden: Hidden,
    ) -> None:
        self._store = store
        self._rules = rules
        self._live = live
        self._changes = changes
        self._hidden = hidden
        self._began = time.time_ns()

    def placeholder(self, node: Node) -> Attributes:
        """What a listing says of a node: its type and the size last told, to be asked for again.

        So a listing replays nothing (G3), and no inode ever seems to shrink (G13).
        """
        if isinstance(node, LinkNode):
            return self._link(node)
        if isinstance(node, FileNode) or (
            isinstance(node, HiddenNode) and node.name not in DIRECTORIES
        ):
            size = max(node.told, 0) if isinstance(node, FileNode) else 0
            return Attributes(node.ino, _FILE, 0, 0, size, attr_timeout=0)
        return Attributes(node.ino, _DIRECTORY, 0, 0, nlink=1, attr_timeout=0)

    async def of(self, node: Node, replay: bool) -> Attributes:
        """The attributes of a node now.

        Without `replay` a view that nobody looked at yet gets a placeholder for its size, which
        the kernel asks for when somebody wants it. Raises `StoreError`.
        """
        if isinstance(node, FileNode):
            return await self._file(node, replay)
        if isinstance(node, SessionNode):
            return self._directory(node, self._changes.stat(node)[0])
        if isinstance(node, HiddenNode):
            return await self._hidden_file(node, replay)
        if isinstance(node, LinkNode):
            return self._link(node)
        return self._directory(node, os.fstat(self._store.fd))

    async def control_text(self, node: FileNode, live: LiveSession) -> bytes:
        """What a control file reads as now."""
        if node.name == "compact":
            archive = await live.archive()
            return b"" if archive is None else archive.encode() + b"\n"
        if node.name == "meta.json":
            return _meta_text(live)
        return b""

    async def _file(self, node: FileNode, replay: bool) -> Attributes:
        session = node.session
        if session.dead:
            return self._last_known(node)
        try:
            directory, about = self._changes.stat(session)
        except StoreError:
            if node.view is not None and node.view.pinned:
                return self._last_known(node)  # fstat of an open file
            raise
        if node.name in VIEWS:
            node.rights = self._rules.view(about)
            return await self._view(node, replay)
        if node.name == "append":
            return _file(node.ino, self._rules.append(directory), 0, directory.st_mtime_ns)
        rights = self._rules.control(directory, about)
        newest = about.st_mtime_ns if node.name == "meta.json" else directory.st_mtime_ns
        size = 0
        if replay:
            with self._live.use(session) as live:
                size = len(await self.control_text(node, live))
        return _file(node.ino, rights, size, newest, timeout=0)

    async def _view(self, node: FileNode, replay: bool) -> Attributes:
        assert node.rights is not None
        if not replay and (node.view is None or not node.view.built):
            return _file(node.ino, node.rights, max(node.told, 0), 0, timeout=0)
        if not node.superseded:
            with self._live.use(node.session) as live:
                manner = VIEWS[node.name]
                if node.view is None:
                    node.view = live.view(manner)
                await live.refresh(manner, exact=False)
                self._changes.settle(node.session)
                await self._changes.grow(node)
        return self._last_known(node)

    def _last_known(self, node: FileNode) -> Attributes:
        rights, view = node.rights or Rights(0, 0, 0), node.view
        if view is None:
            return _file(node.ino, rights, 0, self._began)
        live = node.session.live
        # What may be a second old here must not get another second older in the kernel (G12).
        timeout = 0 if live is not None and live.watch is None else None
        return _file(node.ino, rights, max(node.told, 0), view.mtime_ns, timeout)

    def _directory(self, node: Node, found: os.stat_result) -> Attributes:
        rights = self._rules.directory(found)
        mode = stat.S_IFDIR | rights.bits
        return Attributes(
            node.ino, mode, rights.uid, rights.gid, mtime_ns=found.st_mtime_ns, nlink=1
        )

    async def _hidden_file(self, node: HiddenNode, replay: bool) -> Attributes:
        rights = self._hidden.rights(node.name)
        if node.name in DIRECTORIES:
            mode = stat.S_IFDIR | rights.bits
            return Attributes(node.ino, mode, rights.uid, rights.gid, 0, self._began, nlink=1)
        size = await self._hidden.size(node.name) if replay else 0
        return _file(node.ino, rights, size, self._began, timeout=0)

    def _link(self, node: LinkNode) -> Attributes:
        rights = self._hidden.rights("latest")
        mode = stat.S_IFLNK | 0o777
        size = len(os.fsencode(node.target))
        made = Attributes(node.ino, mode, rights.uid, rights.gid, size, self._began)
        made.entry_timeout = 0  # which session is the latest is looked at each time (G12)
        return made


def _file(
    ino: int, rights: Rights, size: int, mtime_ns: int, timeout: float | None = None
) -> Attributes:
    made = Attributes(ino, stat.S_IFREG | rights.bits, rights.uid, rights.gid, size, mtime_ns)
    if timeout is not None:
        made.attr_timeout = timeout
    return made


def _meta_text(live: LiveSession) -> bytes:
    try:
        data = meta.read(live.fd)[0]
    except OSError as error:
        raise from_os_error(error, f"read the meta of {printable(live.slug)}") from error
    try:
        jsontext.parse(data)
    except jsontext.NotJSON:
        return data
    return jsontext.one_line(data) + b"\n"
