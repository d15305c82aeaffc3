"""Callbacks are passed to the constructor of whatever keeps them, never assigned later from outside."""

from __future__ import annotations

import ast

import pytest

from tests.support.syntax import defined, is_function, modules


def hooks(tree: ast.Module) -> list[str]:
    """Assignments of a function to an attribute of another object."""
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


def test_no_callback_is_assigned_from_outside() -> None:
    found = {name: given for name, tree in modules().items() if (given := hooks(tree))}
    assert found == {}


@pytest.mark.parametrize("value", ["self._done", "on_end", "lambda: None", "partial(on_end, 1)"])
def test_a_callback_that_is_assigned_from_outside_is_found(value: str) -> None:
    text = (
        f"def on_end(): ...\nclass A:\n  def _done(self): ...\n  def b(self, c): c.hook = {value}\n"
    )
    assert hooks(ast.parse(text)) == [f"4: c.hook = {value}"]


def callbacks(tree: ast.Module) -> set[str]:
    """The attributes of a module's classes that are annotated with a function type."""
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
    """Whether an annotation mentions one of these names."""
    return annotation is not None and any(
        isinstance(inner, ast.Name) and inner.id in types for inner in ast.walk(annotation)
    )


def function_types(tree: ast.Module) -> set[str]:
    """`Callable`, and the aliases of function types that a module defines or imports."""
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
    """Assignments to attributes of these names outside of constructors."""
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


def test_callbacks_are_assigned_in_constructors_only() -> None:
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
