"""Renders the Markdown of a history on a terminal.

Text is shown as people wrote it: line ends are kept, and HTML is shown as source.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

INDENT_CELLS = 4
HEADING_STYLES = {"h1": "bold reverse", "h2": "bold cyan", "h3": "bold magenta"}


class _Heading(Heading):
    """A left-aligned heading; speakers' headings stand out."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        text.stylize(HEADING_STYLES.get(self.tag, "bold"))
        if self.tag in ("h1", "h2"):
            yield Text("")
        yield text


class _Code(CodeBlock):
    """An indented code block."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        drawn = Syntax(code, self.lexer_name, theme=self.theme, background_color="default")
        drawn.word_wrap = True
        yield Padding(drawn, (0, 0, 0, INDENT_CELLS))


class _Drawn(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False, code_theme="ansi_dark")
        reader = MarkdownIt().enable("strikethrough").enable("table")
        reader.disable(["html_block", "html_inline"])
        self.markup = text
        self.parsed = list(_with_line_ends(reader.parse(text)))


def drawn(text: str) -> Markdown:
    """The Markdown `text` in a form that rich prints."""
    return _Drawn(text)


def _with_line_ends(tokens: Iterable[Token]) -> Iterable[Token]:
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
        yield token
