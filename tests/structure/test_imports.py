"""The layers: every module belongs to a room (a layer's package or module), and imports point down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.support.syntax import PACKAGES, is_within, modules

ROOMS: Final = (
    ("storage.errors", "storage.ahead", "storage.times"),
    ("storage.posix",),
    ("storage.capabilities", "storage.memory_tree"),
    ("storage.archives",),
    ("storage.formats",),
    ("storage.render",),
    ("storage.session",),
    ("storage.documents", "storage.latest"),
    ("storage.store",),
    ("storage.deletion",),
    ("storage.creation",),
    ("storage.append", "storage.fork", "storage.search", "storage.sweep", "storage.usage"),
    ("storage.library",),
    ("storage",),
    ("storage.check", "storage.demo"),
    ("fusefs",),
    (
        "fusefs.exits",
        "fusefs.failures",
        "fusefs.kernel",
        "fusefs.operations",
        "fusefs.owed",
        "fusefs.turn",
        "fusefs.version",
    ),
    ("fusefs.config", "fusefs.inotify", "fusefs.mounts", "fusefs.permissions", "fusefs.work"),
    ("fusefs.views", "fusefs.catalogue"),
    ("fusefs.session",),
    ("fusefs.handles",),
    ("fusefs.inodes",),
    ("fusefs.dotdir", "fusefs.coherence"),
    ("fusefs.superblock",),
    ("fusefs.filesystem",),
    ("fusefs.fuse",),
    ("fusefs.daemon",),
    ("fusefs.cli",),
)
"""Rooms, lowest row first: a folder, or a single module. Rooms in one row must not import each other."""
ONLY_IN: Final = {
    "pyfuse3": "fusefs.fuse",
    "trio": "fusefs",
    "inotify_simple": "fusefs",
    "coredis": "fusefs.coherence",
}
"""Libraries that only one part of the project may import."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import of another module, anywhere in the text of a module."""

    by: str
    of: str
    line: int
    only_types: bool
    """Whether it is under `if TYPE_CHECKING`."""

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.of}"


def imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, including those within functions and those for types only."""
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{name}:{node.lineno} is relative"
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            targets = [full if full in modules() else node.module for full in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(name, target, node.lineno, id(node) in typed)


def all_imports() -> list[Import]:
    """All imports of the project."""
    return [found for name, tree in modules().items() for found in imports(name, tree)]


def room(module: str) -> tuple[int, str]:
    """The row of the room that a module is in, and the room."""
    places = {name: row for row, names in enumerate(ROOMS) for name in names}
    at = module
    while at not in places:
        at = at.rpartition(".")[0]
    if at in PACKAGES and at != module:
        pytest.fail(f"{module} is in no room: give it one in ROOMS")
    return places[at], at


def upward(found: Import) -> bool:
    """Whether an import within the project points neither down nor into the same room."""
    (row, here), (other_row, there) = room(found.by), room(found.of)
    return here != there and other_row >= row


def test_every_room_is_there() -> None:
    there = {room(module)[1] for module in modules()}
    assert there == {name for names in ROOMS for name in names}


def test_imports_point_down() -> None:
    own = [found for found in all_imports() if found.of in modules()]
    assert len(own) > 300, "the walk over the imports found too few of them"
    assert [str(found) for found in own if upward(found)] == []


def test_an_import_that_points_up_is_found_wherever_it_is_written() -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from fusefs.handles.base import OpenFile\n"
        "def late():\n"
        "    from fusefs.inodes import table\n"
        "    import fusefs.work\n"
    )
    found = list(imports("fusefs.session.pool", ast.parse(text)))
    up = [(one.of, one.only_types) for one in found if one.of in modules() and upward(one)]
    assert up == [("fusefs.handles.base", True), ("fusefs.inodes.table", False)]


def test_rooms_of_one_row_do_not_import_each_other() -> None:
    beside = Import("fusefs.dotdir.files", "fusefs.coherence.events", 1, only_types=False)
    assert upward(beside)


def test_no_modules_import_each_other_when_they_run() -> None:
    """For types only, a file may import the directory that owns it."""
    below: dict[str, set[str]] = {name: set() for name in modules()}
    for found in all_imports():
        if not found.only_types and found.of in modules() and found.of != found.by:
            below[found.by].add(found.of)
    while free := [name for name, needed in below.items() if not needed]:
        for name in free:
            del below[name]
        for needed in below.values():
            needed.difference_update(free)
    assert sorted(below) == []


def test_the_store_is_a_library_without_kernel_interfaces() -> None:
    foreign = ("fusefs", "trio", "pyfuse3", "inotify_simple")
    found = [one for one in all_imports() if is_within(one.by, "storage")]
    assert [str(one) for one in found if one.of.partition(".")[0] in foreign] == []


def test_kernel_libraries_are_imported_only_where_allowed() -> None:
    strays = [
        str(found)
        for found in all_imports()
        if (part := ONLY_IN.get(found.of.partition(".")[0])) and not is_within(found.by, part)
    ]
    assert strays == []
    assert any(found.of == "pyfuse3" for found in all_imports())
