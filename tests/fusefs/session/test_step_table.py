"""The table of remembered steps works like a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.session.step_table import Place, Remembered, StepTable

KEYS = st.integers(min_value=1, max_value=40)


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "pop"]), KEYS), max_size=120))
def test_it_answers_as_a_dictionary_would(operations: list[tuple[str, int]]) -> None:
    table, model = StepTable(Remembered, "number"), dict[int, Remembered]()
    for at, (operation, number) in enumerate(operations):
        if operation == "add":
            model[number] = Remembered(number, at, at, 1)
            table.add(model[number])
        else:
            assert table.pop(number) == model.pop(number, None)
        ascending = [model[key] for key in sorted(model)]
        assert list(table) == ascending
        assert list(table.column("number")) == sorted(model)
        assert table.least == min(model, default=None)
        assert table.greatest == max(model, default=None)
        assert len(table) == len(model)
        assert list(table.after(number)) == [row for row in ascending if row.number > number]
        assert table.get(number) == model.get(number)


def test_many_rows_taken_out_leave_no_room_behind() -> None:
    table = StepTable(Place, "at")
    for at in range(10_000):
        table.add(Place(at, 1))
    for at in range(1, 9_999):
        table.pop(at)
    assert list(table.column("at")) == [0, 9_999]
    assert len(table._columns[0]) < 4_000
