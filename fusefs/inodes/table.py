"""Names and the nodes behind them."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from fusefs.dotdir.files import DIRECTORY, LATEST, STEPS
from fusefs.dotdir.files import FILES as HIDDEN_FILES
from fusefs.dotdir.step_ranges import runs_told
from fusefs.handles.base import POLLABLE
from fusefs.inodes.inode import (
    FileNode,
    HiddenNode,
    LinkNode,
    Node,
    NodeTable,
    RootNode,
    SessionNode,
)
from fusefs.session.pool import LiveSessions
from fusefs.views import views
from fusefs.views.text_cache import TextCache
from fusefs.views.views import Manner, View
from storage.errors import StoreError, printable
from storage.store import Store

VIEWS: Final[dict[str, Manner]] = {
    manner.name: manner for manner in (views.HISTORY, views.MESSAGES, views.MARKDOWN, views.LOG)
}
CONTROLS: Final = ("append", "compact", "meta.json")
FILES: Final = (*VIEWS, *CONTROLS)


class Names:
    """Which node each name leads to. Loop-owned; it looks at the store, and never waits."""

    def __init__(
        self, store: Store, nodes: NodeTable, live: LiveSessions, cache: TextCache
    ) -> None:
        self.sessions: dict[str, SessionNode] = {}
        self._store = store
        self._nodes = nodes
        self._live = live
        self._cache = cache
        self._hidden: dict[str, HiddenNode] = {}
        self._links: dict[str, LinkNode] = {}
        live.on_let_go = self._let_go
        nodes.add(RootNode(nodes.number()))

    def child(self, parent: Node, name: str, links: Mapping[str, str]) -> Node:
        """The node of a name that exists. Raises `StoreError` ENOENT or ESTALE."""
        if isinstance(parent, RootNode) and name != DIRECTORY:
            return self.session(name)
        if isinstance(parent, HiddenNode) and parent.name == STEPS:
            return self._steps(name)
        if isinstance(parent, SessionNode) and parent.dead:
            # The kernel still had its name; if that is another session's by now, it is to look again.
            self._store.stat_session(parent.slug)
            raise StoreError(errno.ESTALE, "session-replaced", "the session is another by now")
        known = (
            (isinstance(parent, RootNode) and name == DIRECTORY)
            or (isinstance(parent, SessionNode) and name in FILES)
            or (
                isinstance(parent, HiddenNode)
                and parent.name == DIRECTORY
                and name in (*HIDDEN_FILES, STEPS)
            )
            or (is_latest(parent) and name in links)
        )
        if not known:
            raise StoreError(errno.ENOENT, "no-such-name", f"there is no {printable(name)}")
        return self.listed(parent, name, links)

    def listed(self, parent: Node, name: str, links: Mapping[str, str]) -> Node:
        """The node of a name that is known to exist, without looking at the store."""
        if isinstance(parent, SessionNode):
            return self._file(parent, name)
        if isinstance(parent, RootNode) and name != DIRECTORY:
            return self.sessions.get(name) or self._new_session(name)
        if is_latest(parent):
            return self._link(name, links[name])
        return self._hidden_node(name)

    def session(self, slug: str) -> SessionNode:
        """The node of a session that exists. Raises `StoreError` ENOENT."""
        directory, _ = self._store.stat_session(slug)
        identity = (directory.st_dev, directory.st_ino)
        node = self.sessions.get(slug)
        if node is not None and node.identity not in (None, identity):
            self.bury(slug)
            node = None
        node = node or self._new_session(slug)
        node.identity = identity
        return node

    def bury(self, slug: str) -> SessionNode | None:
        """The session is gone; its node, if it had one, is no name's any more."""
        node = self.sessions.pop(slug, None)
        if node is not None:
            self._live.bury(node)
        return node

    def succeed(self, old: FileNode, view: View) -> FileNode:
        """A new node for the name of `old`, whose view was superseded by `view` (G13)."""
        node = FileNode(self._nodes.number(), old.session, old.name)
        node.view = view
        self._nodes.add(node)
        old.session.children[old.name] = node
        if old.lookups <= 0:
            self._drop_file(old)  # the kernel never knew it, and so never forgets it
        return node

    def drop(self, node: Node) -> None:
        """The kernel does not know the node any more."""
        if isinstance(node, FileNode):
            self._drop_file(node)
        elif isinstance(node, SessionNode):
            self._drop_session(node)
        elif isinstance(node, LinkNode):
            if self._links.get(node.name) is node:
                del self._links[node.name]
            self._nodes.remove(node)

    def _drop_file(self, node: FileNode) -> None:
        session, view = node.session, node.view
        if view is not None and view.pinned:
            return
        if session.children.get(node.name) is node:
            if session.live is not None:
                return  # the name keeps its number as long as what it showed is known (G13)
            del session.children[node.name]
        if view is not None:
            self._cache.drop(view)
            if session.live is not None and session.live.views.get(node.name) is view:
                del session.live.views[node.name]
        self._nodes.remove(node)
        if session.lookups <= 0:
            self._drop_session(session)

    def _let_go(self, session: SessionNode) -> None:
        for node in list(session.children.values()):
            if node.lookups <= 0:
                self._drop_file(node)
        if session.lookups <= 0:
            self._drop_session(session)

    def _drop_session(self, node: SessionNode) -> None:
        if node.dead:
            self._live.let_go(node)
        if node.children or node.live is not None:
            return
        if self.sessions.get(node.slug) is node:
            del self.sessions[node.slug]
        self._nodes.remove(node)

    def _new_session(self, slug: str) -> SessionNode:
        node = SessionNode(self._nodes.number(), slug, None)
        self._nodes.add(node)
        self.sessions[slug] = node
        return node

    def _file(self, session: SessionNode, name: str) -> FileNode:
        node = session.children.get(name)
        if node is None:
            node = FileNode(self._nodes.number(), session, name)
            self._nodes.add(node)
            session.children[name] = node
        return node

    def _hidden_node(self, name: str) -> HiddenNode:
        node = self._hidden.get(name)
        if node is None:
            node = self._hidden[name] = HiddenNode(self._nodes.number(), name)
            self._nodes.add(node)
        return node

    def _link(self, name: str, slug: str) -> LinkNode:
        target = f"../../{slug}"
        node = self._links.get(name)
        if node is None or node.target != target:
            node = self._links[name] = LinkNode(self._nodes.number(), name, target)
            self._nodes.add(node)
        return node

    def _steps(self, name: str) -> LinkNode:
        """`INODE.LINE`: a link to the numbers of the steps behind a view's lines from LINE on.

        A link, because what it leads to is had in two round trips and kept by nobody. An extended
        attribute would do as well, but then the kernel asks for those of every file that is listed.
        """
        ino, _, line = name.partition(".")
        node = self._nodes.get(int(ino)) if ino.isdecimal() and line.isdecimal() else None
        if not isinstance(node, FileNode) or node.name not in POLLABLE or node.view is None:
            raise StoreError(errno.ENOENT, "no-such-name", f"there is no {printable(name)}")
        target = runs_told(node.view.ranges(), int(line))
        link = LinkNode(self._nodes.number(), name, target)
        self._nodes.add(link)
        return link


def is_latest(node: Node) -> bool:
    """Whether it is the directory of links to the latest sessions."""
    return isinstance(node, HiddenNode) and node.name == LATEST
