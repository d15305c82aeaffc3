"""Times of things that are done in turn."""

from __future__ import annotations

import time
from collections.abc import Callable

Measure = Callable[[], float]
"""Does something once and returns the seconds that what counts of it took."""


def timed(work: Callable[[], object]) -> Measure:
    """A measure of all that `work` does."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


def interleaved(rounds: int, *measures: Measure) -> list[list[float]]:
    """The times of each measure, taken A B B A, so that all of them meet the same disturbances, and
    none always comes right after another."""
    times: list[list[float]] = [[] for _ in measures]
    order = list(zip(measures, times, strict=True))
    for _ in range(rounds):
        for measure, taken in order:
            taken.append(measure())
        order.reverse()
    return times
