"""Nesting depth, followed in any text cut into any pieces, compared with a byte-by-byte scanner."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.formats.nesting import Nesting

TEXTS = st.text('[]{}"\\a', max_size=60).map(str.encode)


def _depths(text: bytes) -> list[tuple[int, int]]:
    """The offset of each bracket, and the depth after it."""
    depth, in_string, escaped, found = 0, False, False, []
    for at, byte in enumerate(text):
        if escaped and byte in b'"\\':
            escaped = False
            continue
        escaped = False
        if byte == ord("\\"):
            escaped = True
        elif byte == ord('"'):
            in_string = not in_string
        elif not in_string and byte in b"[]{}":
            depth += 1 if byte in b"[{" else -1
            found.append((at, depth))
    return found


@given(TEXTS, st.lists(st.integers(0, 60), max_size=4))
def test_the_depth_is_known_wherever_the_text_is_cut(text: bytes, cuts: list[int]) -> None:
    nesting, at = Nesting(), 0
    for cut in [*sorted(cuts), len(text)]:
        nesting.follow(text, at, cut)
        at = max(at, min(cut, len(text)))
    assert nesting.depth == (_depths(text) or [(0, 0)])[-1][1]


@given(TEXTS, st.integers(-2, 2), st.integers(0, 4))
def test_the_first_bracket_out_of_bounds_is_found(text: bytes, least: int, above: int) -> None:
    most = least + above
    expected = next((at for at, depth in _depths(text) if not least <= depth <= most), None)
    assert Nesting().follow(text, least=least, most=most) == expected


def test_windows_join() -> None:
    text = b'["' + rb"\\\"" * 70_000 + b'",' + b"[" * 300 + b"]" * 301
    assert Nesting().follow(text, least=1) == len(text) - 1
    assert Nesting().follow(text, most=300) == len(text) - 302
