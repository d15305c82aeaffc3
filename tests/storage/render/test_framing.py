"""Text embedded in our Markdown: nothing leaks out, and its headings rank below those of speakers."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from storage.render.framing import framed

COMMONMARK = MarkdownIt("commonmark")
PIECES = [
    *("# H", "## H2", "###### six", "a", "text", "- item", "-", "+ ", "1. x", "2. y", "14) z"),
    *("   ", "  ", "    ", "\t", "> ", "```", "~~~~", "````", "---", "===", "=", "* * *"),
    *("<!--", "-->", "<pre>", "</pre>", "<h1>x</h1>", "<?", "<div>", "<b>", "</div>", "`code`"),
    *("\n", "\n", "\n\n"),
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Plan", "### Plan"),
        ("## a ##\n#### b\n###### c", "#### a ##\n###### b\n###### c"),
        ("#hashtag\n#1", "#hashtag\n#1"),
        ("> # quoted\n\n- # in a list\n  # too", "> ### quoted\n\n- ### in a list\n  ### too"),
        ("Title\n=====\n\nOther\n---", "Title\n\\=====\n\nOther\n\\---"),
        ("a\n\n---\n\nb", "a\n\n---\n\nb"),
        ("- a\n---\nb", "- a\n---\nb"),
        ("| a |\n| --- |\n| b |", "| a |\n| --- |\n| b |"),
        ("<div>\n# in it\nor\n==\n</div>", "<div>\n### in it\nor\n\\==\n</div>"),
        ("<h1 align=center>x</h1>", "<h3 align=center>x</h3>"),
    ],
)
def test_headings_are_made_lower_than_those_of_speakers(text: str, shown: str) -> None:
    assert framed(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "```sh\n# a comment\n```",
        "- run\n  ```sh\n  # a comment\n  ```\n- b",
        "> ~~~\n> # a comment\n> ~~~",
        "    # indented code",
        "<!--\n# a comment\n-->",
        "say `# x` and issue #12",
    ],
)
def test_what_only_looks_like_a_heading_is_left_as_it_is(text: str) -> None:
    assert framed(text) == text


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("text\n2. x\n   ```\n")
@example("-\n\n  ```\n")
@example("</pre>\n```\n\n# H")
def test_no_text_swallows_what_follows_or_outranks_the_headings_around_it(text: str) -> None:
    tokens = COMMONMARK.parse(f"## one\n\n{framed(text)}\n\n## two\n\nend\n")
    headings = [
        (token.tag, tokens[at + 1].content)
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    assert headings[0] == ("h2", "one")
    assert headings[-1] == ("h2", "two")
    assert all(int(tag[1]) > 2 for tag, _ in headings[1:-1])


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_code_is_never_changed(text: str) -> None:
    shown = framed(text)
    if "\\" not in shown:  # an escaped underline no longer separates the code around it
        assert code(shown) == code(text)


def code(text: str) -> list[str]:
    blocks = [token for token in COMMONMARK.parse(text) if token.type in ("fence", "code_block")]
    return [block.content.strip() for block in blocks if block.content.strip()]
