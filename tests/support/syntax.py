"""The syntax trees of the project's modules, for the tests of its structure."""

from __future__ import annotations

import ast
from functools import cache
from typing import Final, TypeGuard

from tests.support.commands import PROJECT

PACKAGES: Final = ("storage", "fusefs")


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_within(module: str, part: str) -> bool:
    """Whether a module is `part` or inside it."""
    return module == part or module.startswith(f"{part}.")


def is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def defined(node: ast.stmt) -> set[str]:
    """The names that one statement defines."""
    if is_function(node) or isinstance(node, ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()
