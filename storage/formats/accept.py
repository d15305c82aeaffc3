"""Judges lines written to control files: what each is stored as, or why it is refused (G5, G6, G8)."""

from __future__ import annotations

import unicodedata
from errno import EFBIG, EINVAL
from typing import Final

import orjson

from storage.errors import StoreError
from storage.formats.jsontext import WHITE_SPACE, NotJSON, parse
from storage.formats.kinds import NotAStep, Step, classify, classify_value

ARCHIVE_NAME_BYTES_MAX = 255
SUMMARY_BYTES_MAX: Final = 1 << 18
"""Length limit of a line with a summary."""

WRAPPED = b'{"message":%b}'
"""How a bare message is stored."""

_KEYS_OF_STEPS = frozenset({"message", "event", "archive_name", "compact"})
_RIGHT = (
    'a line is an entry {"message":{"role":"user","content":"…"}}, its message alone, or an event'
)

_COMPACTS = (
    'a line is the name of an archive, or {"archive_name":"…","summary":"…"} with its text and'
    " nothing else"
)


def stored_form(line: bytes) -> Step:
    """The step that an appended `line`, given without its newline, is stored as (G5).

    An entry or event is stored as is, a bare message is wrapped as an entry. Raises `StoreError`
    with EINVAL for compactions, arrays and anything else that the reference would not load as an
    entry or event once stored (G6); its code is `"empty-line"`, `"not-utf8"`, `"not-json"`,
    `"too-deep"`, `"compaction"` or `"not-a-step"`.
    """
    if not line.strip(WHITE_SPACE):
        raise StoreError(EINVAL, "empty-line", f"the line is empty: {_RIGHT}")
    try:
        value = parse(line)
    except NotJSON as error:
        raise StoreError(EINVAL, error.code, f"{error.sentence}; {_RIGHT}") from None
    try:
        bare = _is_bare_message(value)
        step = classify(WRAPPED % line) if bare else classify_value(value, line)
    except NotAStep as error:
        raise StoreError(EINVAL, "not-a-step", f"{error.sentence}; {_RIGHT}") from None
    if step.kind.is_compaction:
        raise StoreError(
            EINVAL,
            "compaction",
            "a compaction is not appended: write the name of its archive to compact",
        )
    return step


def compaction(archive_name: str, archived_at: str) -> bytes:
    """The bytes of a compaction step, as the daemon writes them; `archived_at` is RFC 3339."""
    return orjson.dumps({"archive_name": archive_name, "archived_at": archived_at})


def archive_name(line: bytes) -> str:
    """Decode and check the archive name in `line`, written to `compact`, without its newline (G8).

    Raises `StoreError` with EINVAL; its code is `"empty-line"`, `"name-too-long"`, `"not-utf8"` or
    `"control-character"`.
    """
    if not line:
        raise StoreError(EINVAL, "empty-line", "the line is empty: write the name of an archive")
    if len(line) > ARCHIVE_NAME_BYTES_MAX:
        raise StoreError(
            EINVAL,
            "name-too-long",
            f"the archive name is {len(line)} bytes long: "
            f"it must be at most {ARCHIVE_NAME_BYTES_MAX}",
        )
    try:
        name = line.decode()
    except UnicodeDecodeError as error:
        sentence = f"not UTF-8 at byte {error.start}: an archive name is text"
        raise StoreError(EINVAL, "not-utf8", sentence) from None
    for character in name:
        if unicodedata.category(character) == "Cc":
            raise StoreError(
                EINVAL,
                "control-character",
                f"the archive name holds the control character U+{ord(character):04X}: "
                "it must hold none",
            )
    return name


def archive_and_summary(line: bytes) -> tuple[str, str | None]:
    """The archive's name in a line written to `compact`, and its summary if it has one (G8, G31).

    A line that begins with `{` is never taken for a name: a badly quoted summary must not end a
    history. Raises `StoreError` as `archive_name` does, EFBIG for an object line longer than
    `SUMMARY_BYTES_MAX`, and EINVAL for any other object.
    """
    if not line.lstrip(WHITE_SPACE).startswith(b"{"):
        return archive_name(line), None
    if len(line) > SUMMARY_BYTES_MAX:
        sentence = (
            f"a line with a summary may be {SUMMARY_BYTES_MAX} bytes long, this has {len(line)}"
        )
        raise StoreError(EFBIG, "summary-too-long", sentence)
    try:
        value = parse(line)
    except NotJSON as error:
        raise StoreError(EINVAL, error.code, f"{error.sentence}; {_COMPACTS}") from None
    name, summary = value.get("archive_name"), value.get("summary")
    if len(value) != 2 or not isinstance(name, str) or not isinstance(summary, str):
        raise StoreError(EINVAL, "not-a-summary", f"the object is not a summary: {_COMPACTS}")
    return archive_name(name.encode()), summary


def _is_bare_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and _KEYS_OF_STEPS.isdisjoint(value)
