"""The table of remembered steps answers as a dictionary would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.session.step_table import AT, NUMBER, Remembered, StepTable

KEYS = st.integers(min_value=1, max_value=40)


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "pop"]), KEYS), max_size=120))
def test_it_answers_as_a_dictionary_would(operations: list[tuple[str, int]]) -> None:
    table, model = StepTable(NUMBER), dict[int, Remembered]()
    for at, (operation, number) in enumerate(operations):
        if operation == "add":
            model[number] = Remembered(number, at, at, 1)
            table.add(model[number])
        else:
            assert table.pop(number) == model.pop(number, None)
        ascending = [model[key] for key in sorted(model)]
        assert list(table) == ascending
        assert list(table.keys()) == sorted(model)
        assert table.least() == (ascending[0] if ascending else None)
        assert table.greatest() == (ascending[-1] if ascending else None)
        assert len(table) == len(model)
        assert table.get(number) == model.get(number)


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_what_is_moved_behind_the_rest_is_in_order_then(ats: list[int], fixed: set[int]) -> None:
    table = StepTable(NUMBER)
    for number, at in enumerate(ats, 1):
        table.add(Remembered(number, 0, at, 1))
    moved = table.misplaced(fixed)
    for target, number in enumerate(moved, 100):
        step = table.pop(number)
        assert step is not None
        assert step.at not in fixed
        table.add(step._replace(number=target))
    left = [step.at for step in table if step.at not in fixed]
    assert left == sorted(left)


def test_many_rows_taken_out_leave_no_room_behind() -> None:
    table = StepTable(AT)
    for at in range(10_000):
        table.add(Remembered(1, 0, at, 1))
    for at in range(1, 9_999):
        table.pop(at)
    assert list(table.keys()) == [0, 9_999]
    assert len(table._columns[0]) < 4_000
