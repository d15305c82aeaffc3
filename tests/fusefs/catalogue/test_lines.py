"""The lines of sessions.jsonl are those that were put, ordered by slug."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusefs.catalogue.lines import CHUNK_LINES, Lines

SLUGS = st.text("abc", min_size=1, max_size=3)
CHANGES = st.lists(st.tuples(SLUGS, st.none() | st.binary(max_size=3)), max_size=60)


def whole(lines: Lines) -> bytes:
    text = lines.text()
    return text.read(0, len(text))


@given(
    filled=st.dictionaries(SLUGS, st.binary(max_size=3)),
    changes=CHANGES,
    reads=st.sets(st.integers(0, 60)),
)
def test_lines_hold_what_was_put_whatever_is_read_in_between(
    filled: dict[str, bytes], changes: list[tuple[str, bytes | None]], reads: set[int]
) -> None:
    lines, model = Lines(), dict(filled)
    lines.fill(sorted(filled.items()))
    for at, (slug, line) in enumerate(changes):
        if line is None:
            lines.discard(slug)
            model.pop(slug, None)
        else:
            lines.put(slug, line)
            model[slug] = line
        if at in reads:
            assert whole(lines) == b"".join(model[slug] for slug in sorted(model))
    assert whole(lines) == b"".join(model[slug] for slug in sorted(model))


def test_many_lines_put_in_any_order_come_in_the_order_of_their_slugs() -> None:
    lines, count = Lines(), CHUNK_LINES * 5
    for number in range(count):
        slug = f"{number * 7919 % count:06}"
        lines.put(slug, slug.encode())
    assert whole(lines) == b"".join(f"{number:06}".encode() for number in range(count))
    for number in range(0, count, 2):
        lines.discard(f"{number:06}")
    assert whole(lines) == b"".join(f"{number:06}".encode() for number in range(1, count, 2))


@given(
    pieces=st.dictionaries(SLUGS, st.binary(max_size=5)),
    offset=st.integers(0, 50),
    size=st.integers(0, 50),
)
def test_any_range_can_be_read(pieces: dict[str, bytes], offset: int, size: int) -> None:
    lines = Lines()
    lines.fill(sorted(pieces.items()))
    assert lines.text().read(offset, size) == whole(lines)[offset : offset + size]


def test_a_text_stays_as_it_was_when_it_was_taken() -> None:
    lines = Lines()
    lines.fill([("a", b"1"), ("b", b"2")])
    before = lines.text()
    lines.put("a", b"3")
    lines.discard("b")
    assert before.read(0, 10) == b"12"
