"""What a follower of a history remembers: the steps it has seen, and what was last shown."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

RUNS_PER_ANSWER: Final = 90
NONE: Final = "-"
_CHUNK_BITS: Final = 12
_RUNS_TOLD: Final = 8


class Seen:
    """A set of step numbers that takes about one bit for each."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self.greatest = 0
        """The greatest number in it, 0 while it is empty."""

    def add(self, number: int) -> bool:
        """Put `number` in; False if it was in already."""
        chunk, bit = number >> _CHUNK_BITS, 1 << (number & ((1 << _CHUNK_BITS) - 1))
        bits = self._chunks.get(chunk, 0)
        if bits & bit:
            return False
        self._chunks[chunk] = bits | bit
        self.greatest = max(self.greatest, number)
        return True


@dataclass(slots=True)
class Shown:
    """What a history shows: the number of the step behind each line, and a digest of the line."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    digests: array[int] = field(default_factory=lambda: array("q"))

    def by_number(self) -> dict[int, int]:
        """The digests by number."""
        return dict(zip(self.numbers, self.digests, strict=False))


def runs_told(runs: Iterable[tuple[int, int]], line: int) -> str:
    """The target of `.stepfs/steps/INODE.LINE`: the steps behind the lines from `line` on.

    `runs` are the steps behind all lines, as first and last of each run, in order; `line` counts from 0.
    The answer looks like `12-19,21-21` and is bounded (a symlink holds less than 4 KiB): the caller
    asks again for what follows, until the answer is `-`.
    """
    left = line
    told: list[str] = []
    for first, last in runs:
        length = last - first + 1
        if left >= length:
            left -= length
            continue
        told.append(f"{first + left}-{last}")
        left = 0
        if len(told) == RUNS_PER_ANSWER:
            break
    return ",".join(told) or NONE


def numbers_told(value: str) -> Iterator[int]:
    """The numbers in an answer from `runs_told`."""
    for run in value.split(",") if value != NONE else ():
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)


def what_happened(before: Shown, now: Shown, archive_before: str, archive_now: str) -> list[str]:
    """Sentences that say why the history `before` was replaced by `now`, except for compactions.

    `compaction_told` has the sentences for those. The archives are the names of those after which the
    histories begin, `""` for none.
    """
    if archive_now != archive_before:
        return [_another_archive(archive_now, begins_anew(before.numbers, now.numbers))]
    known, shown = set(before.numbers), set(now.numbers)
    old, new = before.by_number(), now.by_number()
    last = max(known, default=0)
    told = (
        ("removed", known - shown),
        ("replaced, and not printed again", (n for n in old if new.get(n, old[n]) != old[n])),
        ("back-filled", (number for number in shown - known if number < last)),
    )
    return [
        f"{_steps(runs)} {'was' if _is_one(runs) else 'were'} {what}"
        for what, numbers in told
        if (runs := list(_runs(sorted(numbers))))
    ]


def begins_anew(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether all of the ascending numbers `now` are later than those of `before`."""
    return not before or not now or now[0] > before[-1]


def compaction_told(archive: str) -> str:
    """The sentence for a compaction; `""` is the archive of a legacy one."""
    if archive:
        return f"compacted: what was said so far is in the archive {archive}"
    return "the history begins anew"


def _another_archive(archive: str, anew: bool) -> str:
    if anew:
        return compaction_told(archive)
    if archive:
        return f"the history now begins after the archive {archive}"
    return "a compaction was removed: what it had hidden is in the history again"


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = -1
    for number in numbers:
        if number == last + 1 and last >= 0:
            last = number
            continue
        if last >= 0:
            yield first, last
        first = last = number
    if last >= 0:
        yield first, last


def _is_one(runs: list[tuple[int, int]]) -> bool:
    return len(runs) == 1 and runs[0][0] == runs[0][1]


def _steps(runs: list[tuple[int, int]]) -> str:
    told = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:_RUNS_TOLD])
    more = f" and {len(runs) - _RUNS_TOLD} more runs" if len(runs) > _RUNS_TOLD else ""
    return f"{'step' if _is_one(runs) else 'steps'} {told}{more}"
