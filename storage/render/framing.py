"""Embeds people's Markdown in ours, so that it neither spills into what follows nor outranks it.

What a text leaves open (a code fence, an HTML comment) is closed after it, so that it does not swallow
the next speaker's text. Its headings are moved two levels down, so that they never outrank the speakers'
headings. Both follow CommonMark: what looks like a heading in a fence, a comment or indented code is
left alone, and a block left open in a list item or a block quote ends with that container. Headings
between HTML tags are moved down too, since pandoc reads Markdown there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LEVELS: Final = 2
"""How many levels headings are moved down: speakers' headings are of level 2."""
LEVEL_MAX: Final = 6

_MARKS: Final = ("#", "<", "```", "~~~")
_UNDERLINES: Final = re.compile(r"^[ >]*(?:=+|-+)[ \t]*$", re.MULTILINE)
_CONTAINER: Final = re.compile(
    r" {0,3}(?:(?P<quote>>) ?"
    r"|(?P<marker>[-+*]|(?P<number>[0-9]{1,9})[.)])(?: {1,4}(?=[^ \t])| |(?P<empty>$)))"
)
_CONTAINERS_MAX: Final = 32
_RULE: Final = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_UNDERLINE: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")
_NAMES: Final = (
    "address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|"
    "dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|"
    "link|main|menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|"
    "tfoot|th|thead|title|tr|track|ul"
)
_ATTRIBUTE: Final = r"""\s+[A-Za-z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
_BLANK: Final = r"^[ \t]*$"
_HTML: Final = tuple(
    (re.compile(" {0,3}" + begins), re.compile(ends), closing)
    for begins, ends, closing in (
        (r"<!--", r"-->", "-->"),
        (r"<\?", r"\?>", "?>"),
        (r"<!\[CDATA\[", r"\]\]>", "]]>"),
        (r"<![A-Za-z]", r">", ">"),
        (
            r"<(?i:pre|script|style|textarea)(?=[\s>]|$)",
            r"</(?i:pre|script|style|textarea)>",
            "</pre>",
        ),
        (rf"</?(?i:{_NAMES})(?=[ \t>]|/>|$)", _BLANK, ""),
    )
)
_TAG: Final = re.compile(
    rf" {{0,3}}<(?:[A-Za-z][A-Za-z0-9-]*(?:{_ATTRIBUTE})*\s*/?|/[A-Za-z][A-Za-z0-9-]*\s*)>[ \t]*$",
    re.ASCII,
)
_EMPTY: Final = re.compile(_BLANK)
_TABS: Final = re.compile(r"[ >*+.)0-9-]*\t[ \t]*")
_HTML_HEADING: Final = re.compile(r"<(/?)[hH]([1-6])(?=[\s>])")


def framed(text: str) -> str:
    """`text` made safe to embed below a speaker's heading; `""` if it is only white space."""
    text = text.rstrip("\n")
    if not text.strip():
        return ""
    return _Frame().put(text) if _may_matter(text) else text


def _may_matter(text: str) -> bool:
    """Whether the text could contain any markup that needs framing; most texts cannot."""
    if any(mark in text for mark in _MARKS):
        return True
    return ("-" in text or "=" in text) and _UNDERLINES.search(text) is not None


@dataclass(frozen=True, slots=True)
class _Open:
    """An open fence or HTML block: the pattern that ends it, and a line that would close it."""

    end: re.Pattern[str]
    closing: str
    containers: tuple[int, ...]


class _Frame:
    """Processes a text line by line.

    The containers around a line are a tuple of widths: a list item's content indent in columns, and 0
    for a block quote.
    """

    def __init__(self) -> None:
        self._containers: tuple[int, ...] = ()
        self._open: _Open | None = None
        self._paragraph: tuple[int, ...] | None = None
        """The containers of the paragraph that the next line may continue."""
        self._empty_item = False

    def put(self, text: str) -> str:
        lines = [self._shown(line) for line in text.split("\n")]
        if self._open is not None and not self._open.containers and self._open.closing:
            lines.append(self._open.closing)
        return "\n".join(lines)

    def _shown(self, line: str) -> str:
        tabs = _TABS.match(line)
        if tabs is None:
            return self._line(line)
        flat = tabs[0].expandtabs(4) + line[tabs.end() :]
        shown = self._line(flat)
        return line if shown == flat else shown

    def _line(self, line: str) -> str:
        at, kept = self._continued(line)
        if self._open is not None:
            if kept == self._open.containers:
                if self._open.end.search(line[at:]):
                    self._open = None
                elif not self._open.closing:
                    return _in_html(line, at)
                return line
            self._open = None
        if not line[at:].strip():
            self._paragraph = None
            if self._empty_item:
                self._containers = self._containers[:-1]
            return line
        self._containers, self._empty_item = kept, False
        return self._begun(line, at)

    def _continued(self, line: str) -> tuple[int, tuple[int, ...]]:
        """The open containers that `line` continues, and the offset at which its content begins."""
        at = 0
        for depth, width in enumerate(self._containers):
            rest = line[at:]
            if width == 0:
                match = _CONTAINER.match(rest)
                if match is None or not match["quote"]:
                    return at, self._containers[:depth]
                at += match.end()
            elif rest.strip() and len(rest) - len(rest.lstrip(" ")) < width:
                return at, self._containers[:depth]
            else:
                at = min(at + width, len(line))
        return at, self._containers

    def _begun(self, line: str, at: int) -> str:
        """Process a line outside of any open block, which may begin one."""
        for _ in range(_CONTAINERS_MAX):
            content = line[at:]
            if self._goes_on() and (underline := _UNDERLINE.match(content)):
                return f"{line[: at + underline.start(1)]}\\{content[underline.start(1) :]}"
            match = None if _RULE.match(content) else _CONTAINER.match(content)
            if match is None or self._is_text(match):
                break
            at += match.end()
            width = 0 if match["quote"] else match.end() + (match["empty"] is not None)
            self._containers, self._paragraph = (*self._containers, width), None
            self._empty_item = match["empty"] is not None
        return self._leaf(line, at, line[at:])

    def _goes_on(self) -> bool:
        return self._paragraph == self._containers

    def _is_text(self, match: re.Match[str]) -> bool:
        """Whether what looks like a list item is text: not every item may interrupt a paragraph."""
        if match["quote"] or not self._goes_on():
            return False
        return match["empty"] is not None or (match["number"] or "1") != "1"

    def _leaf(self, line: str, at: int, content: str) -> str:
        if content.startswith("    ") and self._paragraph is None:
            return line  # indented code
        if self._opens(content) or _RULE.match(content):
            self._paragraph = None
        elif heading := _HEADING.match(content):
            self._paragraph = None
            return _deeper(line, at, heading)
        elif self._paragraph is None:
            self._paragraph = self._containers if content.strip() else None
        return _HTML_HEADING.sub(_lowered, line) if "<" in content else line

    def _opens(self, content: str) -> bool:
        """Whether a fence or an HTML block begins here; it may extend over the following lines."""
        if (fence := _FENCE.match(content)) and not (fence[1][0] == "`" and "`" in fence[2]):
            mark = fence[1]
            end = re.compile(rf"^ {{0,3}}{mark[0]}{{{len(mark)},}}[ \t]*$")
            self._open = _Open(end, mark, self._containers)
            return True
        if "<" not in content[:4]:
            return False
        for begins, ends, closing in _HTML:
            if begins.match(content):
                if not ends.search(content):
                    self._open = _Open(ends, closing, self._containers)
                return True
        if self._paragraph is None and _TAG.match(content):
            self._open = _Open(_EMPTY, "", self._containers)
        return self._open is not None


def _deeper(line: str, at: int, heading: re.Match[str]) -> str:
    at += heading.start(1)
    return line[:at] + "#" * min(LEVELS, LEVEL_MAX - len(heading[1])) + line[at:]


def _in_html(line: str, at: int) -> str:
    """A line in an HTML block of tags, where pandoc reads Markdown though CommonMark does not."""
    if heading := _HEADING.match(line[at:]):
        line = _deeper(line, at, heading)
    elif underline := _UNDERLINE.match(line[at:]):
        at += underline.start(1)
        line = f"{line[:at]}\\{line[at:]}"
    return _HTML_HEADING.sub(_lowered, line)


def _lowered(match: re.Match[str]) -> str:
    return f"<{match[1]}h{min(LEVEL_MAX, int(match[2]) + LEVELS)}"
