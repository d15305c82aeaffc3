"""A seeded generator of documents: valid steps, nearly valid ones, and garbage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.support.stores import compaction, entry, event

SEEDS: list[bytes] = [
    entry("text"),
    event(),
    compaction("archive"),
    b'{"role":"user","content":"bare"}',
    b'{"agent":"guest","message":{"role":"assistant","content":null,"tool_calls":[{"index":0,'
    b'"id":"c","type":"function","function":{"name":"bash","arguments":"{}"}}],"name":null}}',
    b'{"event":"tool_start","calls":[{"id":"c","name":"bash","arguments":"{}"}],"ts":"t"}',
    b'{"event":"tool_result","call_id":"c","duration_ms":12,"ts":"t"}',
    b'{"event":"done","model":"m","iterations":3,"stop_reason":"end","usage":{"prompt_tokens":1,'
    b'"completion_tokens":2,"total_tokens":3,"prompt_cache_hit_tokens":null,'
    b'"completion_tokens_details":{"reasoning_tokens":4}},"ts":"t"}',
    b'{"compact":"summary","title":"t","archived_at":"t"}',
]
KEYS_OF_STEPS = (b"message", b"event", b"archive_name", b"compact")
PIECES: list[bytes] = [
    b"1e400", b"-0", b"1.0", b"1e2", b"4294967296", b"18446744073709551616", b"-1", b"9" * 400,
    b"NaN", b"Infinity", b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\udc00\\ud800"', b"\x00", b"\xff",
    b'"\x1f"', b'"\\u0000"', b"\xef\xbb\xbf", b"null", b"true", b"[]", b"{}", b'"', b"{", b"}",
    b"[", b"]", b",", b":", b"\\", b" ", b"\t", b"\r", b'"message":', b'"role":"x",', b'"content":1,',
    b'"event":"done",', b'"event":0,', b'"archive_name":"a","archived_at":"b",', b'"compact":"c",',
    b'"agent":null,', b'"unknown":[1,2,{"a":1,"a":2}],', b"\xc3\x28", b"[" * 126, b"[" * 130,
    b'{"a":' * 64, b"]" * 126, b"}" * 64, b"\xe2\x80\xa8", b'"\\u006dessage":{"role":"r"},',
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, 0, 1, -1, 1.0, 2**32, 2**64, "", "x", "😀", "\u2028", [], {}, [[]], [{"id": "c"}],
    {"role": "user"}, {"name": "n", "arguments": ""}, "function", "done", "tool_result",
]  # fmt: skip


def documents(seed: int) -> Iterator[bytes]:
    """Endless one-line documents; the same seed gives the same documents."""
    chance = random.Random(seed)
    while True:
        data = chance.choice(SEEDS)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            data = chance.choice((_insert, _replace, _cut, _swap_value, _nest, _flip))(chance, data)
        yield data.replace(b"\n", b"\r")


def _place(chance: random.Random, data: bytes) -> int:
    """A random offset, preferably where a member or value begins, which finds more."""
    marks = [at + 1 for at, byte in enumerate(data) if byte in b"{,[:"]
    return chance.choice(marks) if marks and chance.random() < 0.7 else chance.randint(0, len(data))


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = _place(chance, data)
    return data[:at] + chance.choice(PIECES) + data[at:]


def _replace(chance: random.Random, data: bytes) -> bytes:
    at = _place(chance, data)
    return data[:at] + chance.choice(PIECES) + data[at + chance.randint(1, 12) :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] if chance.random() < 0.5 else data[:at] + data[at + chance.randint(1, 20) :]


def _flip(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def _nest(chance: random.Random, data: bytes) -> bytes:
    """A value nested to about the allowed depth."""
    depth = chance.choice((3, 124, 125, 126, 127, 128, 5000))
    at = _place(chance, data)
    return data[:at] + b'"deep":' + b"[" * depth + b"]" * depth + b"," + data[at:]


def _swap_value(chance: random.Random, data: bytes) -> bytes:
    """Replace a known value by one of another type, or repeat a key."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    path = value
    while isinstance(path, dict | list) and path:
        keys = list(path) if isinstance(path, dict) else list(range(len(path)))
        key = chance.choice(keys)
        inside = path[key]
        if not isinstance(inside, dict | list) or not inside or chance.random() < 0.3:
            if chance.random() < 0.2:
                del path[key]
            else:
                path[key] = chance.choice(_VALUES)
            break
        path = inside
    return json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
