"""Inodes: what the kernel knows by number, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fusefs.handles.base import OpenView
    from fusefs.inodes.attributes import Rights
    from fusefs.session.session import LiveSession
    from fusefs.session.writer import Storing
    from fusefs.views.views import View

ROOT_INO: Final = 1


class Node:
    """An inode, known by its number until the kernel forgets it."""

    __slots__ = ("ino", "lookups")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.lookups = 0


class RootNode(Node):
    """The mountpoint."""

    __slots__ = ()


class SessionNode(Node):
    """A session's directory."""

    __slots__ = ("children", "dead", "identity", "live", "slug", "storing")

    def __init__(self, ino: int, slug: str, identity: tuple[int, int] | None) -> None:
        super().__init__(ino)
        self.slug = slug
        self.identity = identity
        """Device and inode number of the directory, once it was looked at."""
        self.children: dict[str, FileNode] = {}
        self.live: LiveSession | None = None
        self.storing: Storing | None = None
        self.dead = False
        """The directory is gone; the name may be another session's by now."""


class FileNode(Node):
    """A file of a session. The name has another node when the view was superseded (G13)."""

    __slots__ = ("name", "pollers", "rights", "session", "told", "view")

    def __init__(self, ino: int, session: SessionNode, name: str) -> None:
        super().__init__(ino)
        self.session = session
        self.name = name
        self.view: View | None = None
        self.told = -1
        """The size that the kernel knows; -1 if it was never told."""
        self.rights: Rights | None = None
        """What was last told of owner and permissions."""
        self.pollers: set[OpenView] = set()
        """Open files that are told in poll(2) when it grows."""

    @property
    def superseded(self) -> bool:
        """Whether the name shows something else by now."""
        return self.session.dead or (self.view is not None and self.view.superseded)


class HiddenNode(Node):
    """`.stepfs` and what is in it."""

    __slots__ = ("name",)

    def __init__(self, ino: int, name: str) -> None:
        super().__init__(ino)
        self.name = name


class LinkNode(Node):
    """A symlink in `.stepfs/latest`."""

    __slots__ = ("name", "target")

    def __init__(self, ino: int, name: str, target: str) -> None:
        super().__init__(ino)
        self.name = name
        self.target = target


class NodeTable:
    """All nodes by inode number. Numbers are never used twice. Loop-owned."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._next = ROOT_INO

    def __len__(self) -> int:
        return len(self._nodes)

    def number(self) -> int:
        """A new inode number."""
        self._next += 1
        return self._next - 1

    def add(self, node: Node) -> None:
        """Know a node by its number."""
        self._nodes[node.ino] = node

    def get(self, ino: int) -> Node | None:
        """The node of that number."""
        return self._nodes.get(ino)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._nodes.pop(node.ino, None)

    @property
    def lookups(self) -> int:
        """The sum of all lookup counts: what the kernel still holds."""
        return sum(node.lookups for node in self._nodes.values())
