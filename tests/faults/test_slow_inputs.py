"""A search for documents that take long for their length: none is worse than linear."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.jsontext import NotJSON, one_line, parse
from storage.formats.kinds import Step
from storage.render import lines

MIB = 1 << 20
SECONDS = 8.0
SOAK_SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
SECONDS_PER_MIB = 1.5
"""Of the processor; the worst that is known takes a quarter."""
UNITS = [
    b"[],", b"{},", b'{"a":1},', b'{"a":1,"a":2},', b'"",', b'"a",', b"1,", b"1e5,", b"-0,", b"0.1,",
    b"null,", b"[" * 100 + b"]" * 100 + b",", b'{"a":' * 60 + b"1" + b"}" * 60 + b",", rb'"\"',
    rb"\\", rb"\"", b'"', b"[", b"{", b"]", b"}", b",", b":", b" ", b"\r", rb"\u0022", rb"\n", b"```\\n",
    b"~~~\\n", b"<!--", b"-->", b"<pre>\\n", b"    ", b"- ", b"`", b"\xc3\xa9", b"\xf0\x9f\xa6\x80",
    b'"message":1,', b'"text":"x",', b'{"type":"text","text":"a"},', b"\x00", b"\xff", b"17976931,",
    b'{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}},',
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
]  # fmt: skip


def _documents(seed: int, size: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    while True:
        unit = b"".join(chance.choice(UNITS) for _ in range(chance.choice((1, 1, 1, 2, 3))))
        start, end = chance.choice(SHAPES)
        document = start + unit * (size // len(unit)) + end
        yield document[: len(document) - chance.choice((0, 0, 0, 1, len(end) + 1))]


def _does(document: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done with a document; later things may need what earlier ones gave."""
    judged: list[Step] = []

    def judge() -> None:
        with suppress(StoreError):
            judged.append(stored_form(document))

    def diagnose() -> None:
        with suppress(NotJSON):
            parse(document)

    yield "judge", judge
    yield "diagnose", diagnose
    if judged:
        step = judged[0]
        yield "one line", lambda: one_line(b"\n" + step.data[:-1] + b"\n}")
        for show in (lines.log, lines.messages, lines.for_people):
            yield show.__name__, lambda show=show: show(step)  # type: ignore[misc]


def _processor_seconds(do: Callable[[], object]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def _search(seconds: float, size: int) -> list[tuple[float, str, bytes]]:
    """The worst of each doing: seconds per MiB, what was done, and how the document begins."""
    end = time.monotonic() + seconds
    worst: dict[str, tuple[float, bytes]] = {}
    for document in _documents(random.SystemRandom().randrange(1 << 32), size):
        for name, do in _does(document):
            least = worst.get(name, (0.0, b""))[0]
            took = _processor_seconds(do) * MIB / max(len(document), 1)
            if took > least:
                # A slow document is slow each time; a garbage collection of all that the tests
                # hold, or a neighbour of this machine, is met once.
                again = min(_processor_seconds(do) for _ in range(2)) * MIB / max(len(document), 1)
                worst[name] = max(least, min(took, again)), document[:90]
        if time.monotonic() > end:
            break
    found = sorted(((took, name, begins) for name, (took, begins) in worst.items()), reverse=True)
    for took, name, begins in found:
        print(f"{took:8.3f} s/MiB {name}: {begins!r}")
    return found


@pytest.mark.guarantee("G19c")
def test_no_document_found_takes_long_for_its_length() -> None:
    assert _search(SECONDS, MIB // 8)[0][0] < SECONDS_PER_MIB


@pytest.mark.soak
@pytest.mark.guarantee("G19c")
def test_no_long_document_found_takes_long_for_its_length() -> None:
    assert _search(SOAK_SECONDS, 2 * MIB)[0][0] < SECONDS_PER_MIB
