"""Whatever the documents name exists: modules, classes, functions, files."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.commands import PROJECT
from tests.support.syntax import defined, is_within, modules


def names_of(tree: ast.Module) -> set[str]:
    """The names that a module defines, including the methods and attributes of its classes."""
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


def is_there(dotted: str) -> bool:
    """Whether the dotted name is a module, or something defined in one."""
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
    named = named_in((PROJECT / "fusefs" / "README.md").read_text(encoding="utf-8"))
    assert len(set(named)) > 60
    assert [name for name in named if not is_there(name)] == []


def test_the_attributes_of_a_session_that_the_readme_names_are_there() -> None:
    text = (PROJECT / "fusefs" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`Session\.(\w+)`", text))
    assert {"lock", "writing", "opening", "syncing"} <= named
    there = names_of(modules()["fusefs.session.session"])
    assert sorted(name for name in named if f"Session.{name}" not in there) == []


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "SEMANTICS.md", "SECURITY.md"]
)
def test_the_files_that_a_document_names_are_there(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:storage|fusefs|tests)/[a-z0-9_/]+\.py\b", text))
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


@pytest.mark.parametrize(
    "name", ["session.pool.Pool.vanish", "session.pond", "storage.store.Shop", "work.Work.nap"]
)
def test_a_name_that_is_not_there_is_found(name: str) -> None:
    assert [is_there(found) for found in named_in(f"see `{name}` for it")] == [False]
