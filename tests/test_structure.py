"""The house: imports point down, modules stay short, and fusefs/README.md names what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, TypeGuard

import pytest

TOP: Final = Path(__file__).parent.parent
PACKAGES: Final = ("storage", "fusefs")
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
"""Rooms, lowest first: a folder, or a module that stands alone. Those of a row know none of it."""
ONLY_IN: Final = {
    "pyfuse3": "fusefs.fuse",
    "trio": "fusefs",
    "inotify_simple": "fusefs",
    "coredis": "fusefs.coherence",
}
"""Libraries that only one part of the house may know."""
TESTED_IN: Final[Mapping[str, str]] = {
    "fusefs.catalogue.meta_watches": "tests/fusefs/catalogue/test_catalogue.py",
    "fusefs.cli": "tests/mount/test_cli.py",
    "fusefs.coherence.recovery": "tests/faults/test_nothing_lost.py",
    "fusefs.coherence.store_directory": "tests/mount/test_store_directory.py",
    "fusefs.daemon": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.dotdir": "tests/tree_and_mount/test_summaries.py",
    "fusefs.exits": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.filesystem": "tests/tree_and_mount",
    "fusefs.fuse": "tests/mount",
    "fusefs.handles.base": "tests/fusefs/handles/test_view.py",
    "fusefs.handles.compact": "tests/tree_and_mount/test_compacting.py",
    "fusefs.handles.create": "tests/mount/test_fork.py",
    "fusefs.handles.document": "tests/mount/test_meta_file.py",
    "fusefs.inodes.control_files": "tests/tree_and_mount/test_appending.py",
    "fusefs.inodes.inode": "tests/fusefs/inodes/test_table.py",
    "fusefs.inodes.past": "tests/tree_and_mount/test_past.py",
    "fusefs.inodes.root": "tests/mount/test_sessions.py",
    "fusefs.inodes.services": "tests/fusefs/test_superblock.py",
    "fusefs.inodes.session_directory": "tests/mount/test_kept_attributes.py",
    "fusefs.inodes.view_file": "tests/tree_and_mount/test_coherence.py",
    "fusefs.kernel": "tests/support/model_kernel.py",
    "fusefs.mounts": "tests/mount/lifecycle/test_lifecycle.py",
    "fusefs.operations": "tests/mount/test_whole_tree.py",
    "fusefs.session.events": "tests/fusefs/coherence/test_events.py",
    "fusefs.session.looks": "tests/fusefs/session/test_restorer.py",
    "fusefs.session.means": "tests/fusefs/session/test_refresh.py",
    "fusefs.session.reach": "tests/fusefs/session/test_recent_steps.py",
    "fusefs.session.step_order": "tests/fusefs/session/test_step_table.py",
    "fusefs.version": "tests/packaging/test_installation.py",
    "fusefs.views.cuts": "tests/fusefs/session/test_extents.py",
    "fusefs.views.formats": "tests/fusefs/session/test_lead.py",
    "storage.append": "tests/storage/test_library.py",
    "storage.check": "tests/storage/test_check.py",
    "storage.demo": "tests/storage/test_demo.py",
    "storage.documents.worker": "tests/storage/documents/test_pool.py",
    "storage.formats.dialects": "tests/conformance/test_dialects.py",
    "storage.render.lines": "tests/storage/render/test_jsonl.py",
    "storage.render.pieces": "tests/storage/render/test_markdown.py",
    "storage.search": "tests/storage/test_search.py",
}
"""Modules and folders without a test file of their name: where most of what they do is tested."""
LINES_MAX: Final = 320
LONGER: Final[Mapping[str, str]] = {}
"""Modules that may be longer, each with the reason."""


@dataclass(frozen=True, slots=True)
class Import:
    """One module that another imports, wherever in its text."""

    by: str
    of: str
    line: int
    only_types: bool
    """Whether it stands under `if TYPE_CHECKING`."""

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.of}"


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((TOP / package).rglob("*.py")):
            parts = path.relative_to(TOP).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, also those within functions and those for types alone."""
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
    """Those of the whole house."""
    return [found for name, tree in modules().items() for found in imports(name, tree)]


def room(module: str) -> tuple[int, str]:
    """The room that a module is in, and the row of it."""
    places = {name: row for row, names in enumerate(ROOMS) for name in names}
    at = module
    while at not in places:
        at = at.rpartition(".")[0]
    if at in PACKAGES and at != module:
        pytest.fail(f"{module} is in no room: give it one in ROOMS")
    return places[at], at


def is_within(module: str, part: str) -> bool:
    """Whether a module is a part of the house, or in it."""
    return module == part or module.startswith(f"{part}.")


def upward(found: Import) -> bool:
    """Whether an import of a module of the house leads neither down nor within its room."""
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


def test_a_room_knows_none_beside_it() -> None:
    beside = Import("fusefs.dotdir.files", "fusefs.coherence.events", 1, only_types=False)
    assert upward(beside)


def test_no_modules_import_each_other_when_they_run() -> None:
    """For types alone a file may name the directory that owns it."""
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


def test_the_store_is_a_library_that_knows_no_kernel() -> None:
    foreign = ("fusefs", "trio", "pyfuse3", "inotify_simple")
    found = [one for one in all_imports() if is_within(one.by, "storage")]
    assert [str(one) for one in found if one.of.partition(".")[0] in foreign] == []


def test_libraries_of_the_kernel_are_known_in_their_rooms_only() -> None:
    strays = [
        str(found)
        for found in all_imports()
        if (part := ONLY_IN.get(found.of.partition(".")[0])) and not is_within(found.by, part)
    ]
    assert strays == []
    assert any(found.of == "pyfuse3" for found in all_imports())


def test_modules_are_short() -> None:
    lines = {
        name: len(path_of(name).read_text(encoding="utf-8").splitlines()) for name in modules()
    }
    assert sorted(name for name in lines if lines[name] > LINES_MAX) == sorted(LONGER)


def path_of(module: str) -> Path:
    """The file of a module."""
    path = TOP.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def has_tests_of_its_name(module: str) -> bool:
    """Whether `tests/` has a file that is named and placed as the module is."""
    package, _, name = module.rpartition(".")
    return TOP.joinpath("tests", *package.split("."), f"test_{name}.py").exists()


def homeless() -> dict[str, str]:
    """Modules without a test file of their name, with the entry of `TESTED_IN` that covers each."""
    return {
        module: next((part for part in TESTED_IN if is_within(module, part)), "")
        for module in modules()
        if path_of(module).name != "__init__.py" and not has_tests_of_its_name(module)
    }


def test_every_module_has_its_tests_in_the_file_of_its_name_or_is_known_to_have_them_elsewhere() -> (
    None
):
    assert [module for module, part in homeless().items() if not part] == []


def test_no_place_is_named_for_a_module_that_is_gone_or_has_a_test_file_by_now() -> None:
    assert sorted(TESTED_IN.keys() - homeless().values()) == []


@pytest.mark.parametrize("module", TESTED_IN)
def test_where_a_module_is_said_to_be_tested_it_is(module: str) -> None:
    assert (TOP / TESTED_IN[module]).exists()


def hooks(tree: ast.Module) -> list[str]:
    """Assignments that put a function into an attribute of an object that is not one's own."""
    functions = {node.name for node in tree.body if is_function(node)}
    methods = {
        node.name
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if is_function(node)
    }
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(is_of_another(target) for target in node.targets)
        and is_callback(node.value, functions, methods)
    ]


def is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def is_of_another(target: ast.expr) -> bool:
    if not isinstance(target, ast.Attribute):
        return False
    return not (isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"))


def is_callback(value: ast.expr, functions: set[str], methods: set[str]) -> bool:
    match value:
        case ast.Lambda():
            return True
        case ast.Name(id=name):
            return name in functions
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name in methods
        case ast.Call(func=ast.Name(id="partial")):
            return True
    return False


def test_no_object_is_given_a_callback_after_it_was_made() -> None:
    found = {name: given for name, tree in modules().items() if (given := hooks(tree))}
    assert found == {}


@pytest.mark.parametrize("value", ["self._done", "on_end", "lambda: None", "partial(on_end, 1)"])
def test_a_callback_that_is_assigned_from_outside_is_found(value: str) -> None:
    text = (
        f"def on_end(): ...\nclass A:\n  def _done(self): ...\n  def b(self, c): c.hook = {value}\n"
    )
    assert hooks(ast.parse(text)) == [f"4: c.hook = {value}"]


def callbacks(tree: ast.Module) -> set[str]:
    """The attributes of a module's classes that hold a function, by their types."""
    found, types = set(), function_types(tree)
    for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        typed = {
            node.arg
            for node in ast.walk(owner)
            if isinstance(node, ast.arg) and is_named(node.annotation, types)
        }
        for node in ast.walk(owner):
            if isinstance(node, ast.AnnAssign) and is_named(node.annotation, types):
                found.add(ast.unparse(node.target).removeprefix("self."))
            elif isinstance(node, ast.Assign) and ast.unparse(node.value) in typed:
                targets = map(ast.unparse, node.targets)
                found.update(name[5:] for name in targets if name.startswith("self."))
    return found


def is_named(annotation: ast.expr | None, types: set[str]) -> bool:
    """Whether an annotation has one of these names in it."""
    return annotation is not None and any(
        isinstance(inner, ast.Name) and inner.id in types for inner in ast.walk(annotation)
    )


def function_types(tree: ast.Module) -> set[str]:
    """`Callable`, and the names of types of functions that a module defines or imports."""
    found = {"Callable", *defined_function_types(tree)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in modules():
            there = defined_function_types(modules()[node.module])
            found.update(alias.name for alias in node.names if alias.name in there)
    return found


def defined_function_types(tree: ast.Module) -> set[str]:
    return {
        name
        for node in tree.body
        if isinstance(node, ast.Assign) and "Callable[" in ast.unparse(node.value)
        for name in defined(node)
    }


def late(tree: ast.Module, held: set[str]) -> list[str]:
    """Assignments to attributes of these names anywhere but where an object is made."""
    made = {
        id(inner)
        for node in ast.walk(tree)
        if is_function(node) and node.name == "__init__"
        for inner in ast.walk(node)
    }
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and id(node) not in made
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in held
    ]


def test_what_holds_a_callback_is_given_it_when_it_is_made_and_no_other_later() -> None:
    held = set[str]().union(*map(callbacks, modules().values()))
    assert {"_on_live", "_meta_of"} <= held
    found = {name: given for name, tree in modules().items() if (given := late(tree, held))}
    assert found == {}


@pytest.mark.parametrize("line", ["self.hook = other", "another.hook = other", "a.b.hook = None"])
def test_a_callback_that_is_given_later_is_found(line: str) -> None:
    tree = ast.parse(
        "class A:\n"
        "  def __init__(self, hook: Callable[[], None]): self.hook = hook\n"
        f"  def begin(self, other): {line}\n"
    )
    assert late(tree, callbacks(tree)) == [f"3: {line}"]


def names_of(tree: ast.Module) -> set[str]:
    """What a module defines, with the methods and the attributes of its classes."""
    found: set[str] = set()
    for node in tree.body:
        found.update(defined(node))
        if isinstance(node, ast.ClassDef):
            inner = {name for statement in node.body for name in defined(statement)}
            inner.update(
                target.attr
                for target in ast.walk(node)
                if isinstance(target, ast.Attribute)
                and isinstance(target.ctx, ast.Store)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            )
            found.update(f"{node.name}.{name}" for name in inner)
    return found


def defined(node: ast.stmt) -> set[str]:
    """The names that one statement defines."""
    if is_function(node) or isinstance(node, ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def is_there(dotted: str) -> bool:
    """Whether a module of this name is there, or what it names in one."""
    module, rest = dotted, ""
    while module and module not in modules():
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
    return bool(module) and (not rest or rest in names_of(modules()[module]))


def named_in(text: str) -> list[str]:
    """The modules, classes and functions that a text names in backticks."""
    rooms = {name.split(".")[1] for name in modules() if name.startswith("fusefs.")}
    dotted = re.findall(r"`([a-z_]+(?:\.\w+)+)`", text)
    found = [name if is_within(name, "storage") else f"fusefs.{name}" for name in dotted]
    return [
        name for name in found if name.split(".")[0] == "storage" or name.split(".")[1] in rooms
    ]


def test_what_the_readme_names_is_there() -> None:
    named = named_in((TOP / "fusefs" / "README.md").read_text(encoding="utf-8"))
    assert len(set(named)) > 60
    assert [name for name in named if not is_there(name)] == []


def test_the_attributes_of_a_session_that_the_readme_names_are_there() -> None:
    text = (TOP / "fusefs" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`Session\.(\w+)`", text))
    assert {"lock", "writing", "opening", "syncing"} <= named
    there = names_of(modules()["fusefs.session.session"])
    assert sorted(name for name in named if f"Session.{name}" not in there) == []


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "SEMANTICS.md", "SECURITY.md"]
)
def test_the_files_that_a_document_names_are_there(document: str) -> None:
    text = (TOP / document).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:storage|fusefs|tests)/[a-z0-9_/]+\.py\b", text))
    assert [name for name in sorted(named) if not (TOP / name).exists()] == []


@pytest.mark.parametrize(
    "name", ["session.pool.Pool.vanish", "session.pond", "storage.store.Shop", "work.Work.nap"]
)
def test_a_name_that_is_not_there_is_found(name: str) -> None:
    assert [is_there(found) for found in named_in(f"see `{name}` for it")] == [False]
