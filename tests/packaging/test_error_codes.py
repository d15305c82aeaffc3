"""The table of error codes in stepfs(5) lists exactly what the code raises."""

from __future__ import annotations

import ast
import errno
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "systemd/man/errors.mdoc"
ROW = re.compile(r"^\.It Cm (\S+) Pq (?:Er (\w+(?: , \w+)*)|varies)$", re.MULTILINE)
NOT_JSON = "not-json"


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Where an exception of this name is created, and the call."""
    for package in ("storage", "fusefs"):
        for path in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                    yield f"{path.relative_to(PROJECT)}:{node.lineno}", node


def raised() -> dict[str, set[str]]:
    """Each code with its errnos; none where these depend on a system call."""
    found: dict[str, set[str]] = defaultdict(set)
    for where, call in calls("StoreError"):
        number, code = (ast.unparse(argument) for argument in call.args[:2])
        if code.endswith(".code"):  # passed on
            continue
        assert code.startswith("'"), f"{where}: a code is a word written out, not {code}"
        word = number.removeprefix("errno.")
        found[code.strip("'")].update({word} if hasattr(errno, word) else ())
    for _, call in calls("NotJSON"):
        word = ast.unparse(call.args[2]).strip("'") if len(call.args) > 2 else NOT_JSON
        found[word].add("EINVAL")
    return found


def explained() -> dict[str, set[str]]:
    """The same, from the manual."""
    rows = ROW.findall(TABLE.read_text())
    assert len(rows) == TABLE.read_text().count("\n.It "), "a row has another form"
    return {code: set(errnos.split(" , ")) if errnos else set() for code, errnos in rows}


def test_the_manual_explains_every_code_with_its_errnos_and_no_other() -> None:
    in_code, in_manual = raised(), explained()
    assert len(in_code) > 30
    assert in_code.keys() - in_manual.keys() == set(), f"add them to {TABLE.name}"
    assert in_manual.keys() - in_code.keys() == set(), f"take them out of {TABLE.name}"
    assert in_code == {code: in_manual[code] for code in in_code}


def test_the_table_is_sorted() -> None:
    codes = list(explained())
    assert codes == sorted(codes)
