"""The clauses of SEMANTICS.md and the tests that pin them.

`python -m tests.support.clauses` writes the list, tests/CLAUSES.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SEMANTICS = PROJECT / "SEMANTICS.md"
LIST = PROJECT / "tests" / "CLAUSES.md"
HEADING = "# Which tests pin which clause of SEMANTICS.md\n"


def clauses() -> list[str]:
    """The numbers of all clauses, in order."""
    return re.findall(r"^- \*\*([A-Z][0-9]+[a-z]?)\*\*", SEMANTICS.read_text(), re.MULTILINE)


def pinned() -> dict[str, list[str]]:
    """For each clause that a test is marked with, the tests as `path::name`."""
    found: dict[str, list[str]] = {}
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        for name, marks in _marked(ast.parse(path.read_text())):
            for clause in marks:
                where = f"{path.relative_to(PROJECT / 'tests')}::{name}"
                if where not in found.setdefault(clause, []):
                    found[clause].append(where)
    return found


def listing() -> str:
    """The contents of tests/CLAUSES.md: per clause its tests, one a line."""
    tests = pinned()
    lines = [HEADING]
    for clause in clauses():
        lines.append(f"\n## {clause}\n\n")
        lines += [f"- {test}\n" for test in sorted(tests.get(clause, ["none"]))]
    return "".join(lines)


def _marked(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    whole = [m for node in module.body if isinstance(node, ast.Assign) for m in _in(node.value)]
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks = [mark for decorator in node.decorator_list for mark in _in(decorator)]
            if node.name.startswith(("test", "Test")):
                yield node.name, marks + whole


def _in(node: ast.expr) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.guarantee":
            yield from (str(a.value) for a in call.args if isinstance(a, ast.Constant))


if __name__ == "__main__":
    LIST.write_text(listing())
