"""A search for documents that are slow for their length: none takes more than linear time."""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.jsontext import NotJSON, one_line, parse
from storage.formats.kinds import Step
from storage.formats.unfinished import UnfinishedObject
from storage.render import lines
from storage.session import for_people

MIB = 1 << 20
PIECE_BYTES = 1 << 12
SECONDS = 8.0
SOAK_SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
SECONDS_PER_MIB = 1.5
"""Of CPU time; the worst known document takes a third of that."""
UNITS = [
    b"[],", b"{},", b'{"a":1},', b'{"a":1,"a":2},', b'"",', b'"a",', b"1,", b"1e5,", b"-0,", b"0.1,",
    b"null,", b"[" * 100 + b"]" * 100 + b",", b'{"a":' * 60 + b"1" + b"}" * 60 + b",", rb'"\"',
    rb"\\", rb"\"", b'"', b"[", b"{", b"]", b"}", b",", b":", b" ", b"\r", rb"\u0022", rb"\n", b"```\\n",
    b"~~~\\n", b"<!--", b"-->", b"<pre>\\n", b"    ", b"- ", b"`", b"\xc3\xa9", b"\xf0\x9f\xa6\x80",
    b'"message":1,', b'"text":"x",', b'{"type":"text","text":"a"},', b"\x00", b"\xff", b"17976931,",
    b'{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}},',
    b'{"type":"tool_use","id":"c","name":"f","input":{"a":[{}]}},',
    b'{"type":"thinking","thinking":"x"},',
    b'{"type":"tool_result","tool_use_id":"c","content":"x"},', rb'{\"a\":[', b"|", b"\xe2\x80\xa8",
    b"&lt;", b"# ", b"\n", b"> ", b"1. ", b"* * *\\n", b"</pre>\\n", b"-", b"0", b"e", b".", b"true",
    rb"\ud83e\udd80",
]  # fmt: skip
SHAPES = [
    (b"", b""),
    (b'{"message":{"role":"user","content":"', b'"}}'),
    (b'{"message":{"role":"tool","content":"', b'"}}'),
    (b'{"message":{"role":"user","content":[', b"1]}}"),
    (b'{"message":{"role":"assistant","tool_calls":[', b"{}]}}"),
    (b'{"message":{"role":"assistant","content":null,"reasoning_content":"', b'"}}'),
    (b'{"message":{"role":"user"},"x":{', b'"z":1}}'),
    (b'{', b'"message":{"role":"user"}}'),
    (b'{"agent":"g",\n"message":{"role":"assistant","content":"', b'"}}'),
    (b'{"agent":"g","message":{"role":"assistant","content":[', b'{"type":"text","text":"b"}]}}'),
    (b'{"message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":[',
     b"1]}]}}"),
    (b'{"message":{"role":"assistant","content":[{"type":"tool_use","id":"c","name":"f","input":{"a":[',
     b"1]}}]}}"),
    (b'{"message":{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"',
     b'"}}]}}'),
    (b'{"event":"tool_start","ts":"t","calls":[', b'{"id":"c","name":"f"}]}'),
    (b'{"role":"user","content":"', b'"}'),
]  # fmt: skip


@dataclass(frozen=True)
class _Recipe:
    """How a document is made: start, repeated parts, end, and how much of the end is cut off."""

    shape: int
    parts: tuple[bytes, ...]
    cut: float

    def document(self, size: int) -> bytes:
        start, end = SHAPES[self.shape]
        unit = b"".join(self.parts)
        document = start + unit * (size // len(unit)) + end
        return document[: len(document) - int(self.cut * (len(end) + 1))]


def _any_recipe(chance: random.Random) -> _Recipe:
    parts = tuple(chance.choice(UNITS) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    return _Recipe(chance.randrange(len(SHAPES)), parts, chance.choice((0, 0, 0, 0.1, 1)))


def _like(recipe: _Recipe, chance: random.Random) -> _Recipe:
    """A similar recipe: one part added, removed or replaced, or another shape."""
    other = _any_recipe(chance)
    at = chance.randrange(len(recipe.parts))
    before, after = recipe.parts[:at], recipe.parts[at + 1 :]
    parts = chance.choice(
        (
            recipe.parts,
            (*before, *other.parts, *after),
            (*recipe.parts, *other.parts)[:6],
            (*before, *after) or other.parts,
        )
    )
    return _Recipe(chance.choice((recipe.shape, other.shape)), parts, other.cut)


def _does(document: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done with a document; later operations may use the results of earlier ones."""
    judged: list[Step] = []

    def judge() -> None:
        with suppress(StoreError):
            judged.append(stored_form(document))

    def diagnose() -> None:
        with suppress(NotJSON):
            parse(document)

    def take_in_pieces() -> None:
        unfinished = UnfinishedObject()
        with suppress(StoreError):
            for at in range(0, len(document), PIECE_BYTES):
                unfinished.take(document[at : at + PIECE_BYTES])

    yield "judge", judge
    yield "diagnose", diagnose
    yield "take in pieces", take_in_pieces
    if judged:
        step = judged[0]
        yield "one line", lambda: one_line(b"\n" + step.data[:-1] + b"\n}")
        for show in (lines.log, lines.messages, for_people.entry):
            yield show.__name__, lambda show=show: show(step, -1, "")  # type: ignore[misc]


def _processor_seconds(do: Callable[[], object]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    """As in a worker. A collection would traverse the objects of all other tests."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@dataclass(frozen=True, order=True)
class _Found:
    seconds_per_mib: float
    doing: str
    recipe: _Recipe = field(compare=False)


def _search(seconds: float, size: int) -> list[_Found]:
    """The worst of each operation, worst first; half of the candidates vary earlier finds."""
    chance, end = random.Random(), time.monotonic() + seconds
    worst: dict[str, _Found] = {}
    while time.monotonic() < end:
        near = worst and chance.random() < 0.5
        recipe = (
            _like(chance.choice([*worst.values()]).recipe, chance) if near else _any_recipe(chance)
        )
        document = recipe.document(size)
        gc.collect()  # before each document, as a worker does
        for doing, do in _does(document):
            # A slow document is slow each time; interference on this machine is not.
            took, least = math.inf, worst[doing].seconds_per_mib if doing in worst else 0.0
            for _ in range(3):
                took = min(took, _processor_seconds(do) * MIB / len(document))
                if took <= least:
                    break
            else:
                worst[doing] = _Found(took, doing, recipe)
    found = sorted(worst.values(), reverse=True)
    for at in found:
        shape = SHAPES[at.recipe.shape]
        print(f"{at.seconds_per_mib:8.3f} s/MiB {at.doing}: {at.recipe.parts!r} in {shape!r}")
    return found


@pytest.mark.guarantee("G19c")
def test_no_document_found_takes_long_for_its_length() -> None:
    assert _search(SECONDS, MIB // 8)[0].seconds_per_mib < SECONDS_PER_MIB


@pytest.mark.soak
@pytest.mark.guarantee("G19c")
def test_no_long_document_found_takes_long_for_its_length() -> None:
    assert _search(SOAK_SECONDS, 2 * MIB)[0].seconds_per_mib < SECONDS_PER_MIB
