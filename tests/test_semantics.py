"""SEMANTICS.md and the tests name the same guarantees."""

from __future__ import annotations

from tests.support import clauses


def test_every_clause_is_pinned_by_a_test() -> None:
    pinned = clauses.pinned()
    assert [clause for clause in clauses.clauses() if clause not in pinned] == []


def test_no_test_pins_a_clause_that_is_not_there() -> None:
    assert set(clauses.pinned()) - set(clauses.clauses()) == set()


def test_no_clause_is_there_twice() -> None:
    found = clauses.clauses()
    assert len(found) == len(set(found)) > 50


def test_the_list_of_tests_is_up_to_date() -> None:
    assert clauses.LIST.read_text() == clauses.listing(), "run: python -m tests.support.clauses"
