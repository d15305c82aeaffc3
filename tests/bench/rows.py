"""The result of a measurement: a row of the table."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

HEAD: Final = ("", "measured", "baseline", "ratio", "at best", "goal", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and its baseline.

    Times are in milliseconds, sizes in MiB. The limit applies to the ratio, or to the figure itself if
    `of_ratio` is false; it is None if the row only informs.
    """

    name: str
    measured: float
    baseline: float | None
    limit: float | None
    best: float | None = None
    """The ratio of the fastest rounds, which suffers least from other load."""
    unit: str = "ms"
    of_ratio: bool = True
    paired: float | None = None
    """The median of the ratios of single rounds, if both were measured alternately."""

    @property
    def ratio(self) -> float | None:
        if self.paired is not None:
            return self.paired
        return self.measured / self.baseline if self.baseline else None

    @property
    def reached(self) -> bool | None:
        value = self.ratio if self.of_ratio else self.measured
        return None if self.limit is None or value is None else value <= self.limit

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "measured": _rounded(self.measured),
            "baseline": _rounded(self.baseline),
            "unit": self.unit,
            "ratio": _rounded(self.ratio),
            "ratio_of_the_fastest": _rounded(self.best),
            "limit": self.limit,
            "limit_of": "ratio" if self.of_ratio else "measured",
            "reached": self.reached,
        }

    def cells(self) -> tuple[str, ...]:
        limit = (
            "" if self.limit is None else f"{self.limit:g} {'×' if self.of_ratio else self.unit}"
        )
        reached = {None: "", True: "reached", False: "MISSED"}[self.reached]
        return (
            self.name,
            f"{_number(self.measured)} {self.unit}",
            "" if self.baseline is None else f"{_number(self.baseline)} {self.unit}",
            _number(self.ratio),
            _number(self.best),
            limit,
            reached,
        )


def compared(
    name: str, measured: Sequence[float], baseline: Sequence[float], limit: float | None
) -> Row:
    """A row from two interleaved series of seconds: medians in milliseconds, and the median ratio."""
    pairs = [ours / theirs for ours, theirs in zip(measured, baseline, strict=False)]
    return Row(
        name,
        statistics.median(measured) * 1e3,
        statistics.median(baseline) * 1e3,
        limit,
        min(measured) / min(baseline),
        paired=statistics.median(pairs),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that `percent` percent of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(len(ordered) * percent / 100))]


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < column < 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def surroundings() -> dict[str, Any]:
    """The environment that the figures depend on."""
    return {
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "processors": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
