"""Judged steps: which of them a session keeps, and for how long."""

from __future__ import annotations

from fusefs.session.judged_steps import KEPT_BYTES, KEPT_STEPS, JudgedSteps
from storage.formats.kinds import Step, classify
from storage.session.steps import step_name
from tests.support.stores import entry


def step(text: str) -> Step:
    return classify(entry(text))


def test_the_last_steps_are_kept() -> None:
    judged = JudgedSteps()
    for number in range(1, KEPT_STEPS + 11):
        judged.add(step_name(number), step(f"{number}"))
    assert list(judged.steps) == [step_name(number) for number in range(11, KEPT_STEPS + 11)]


def test_the_bytes_of_kept_steps_are_bounded() -> None:
    judged = JudgedSteps()
    for number in range(1, 101):
        judged.add(step_name(number), step("x" * (KEPT_BYTES // 8)))
        judged.forget(step_name(number - 5))
        assert sum(len(step.data) for step in judged.steps.values()) <= KEPT_BYTES
    judged.clear()
    judged.add("step-000001", step("x" * KEPT_BYTES))
    assert judged.steps == {}


def test_steps_that_changed_are_not_kept() -> None:
    judged = JudgedSteps()
    judged.add("step-000001", step("one"))
    judged.add("step-000001", step("two"))
    judged.add("step-000002", step("three"))
    judged.forget("step-000002")
    assert {name: step.data for name, step in judged.steps.items()} == {"step-000001": entry("two")}


def test_a_number_has_one_name() -> None:
    judged = JudgedSteps()
    for name in ("step-1", "step-0000001", "meta"):
        judged.add(name, step("text"))
    assert judged.steps == {}
