"""What each view shows of a step: its line, None where it has none.

These are functions of a module, so that a worker process can be told to call them.
"""

from __future__ import annotations

from storage.formats.kinds import Kind, Step
from storage.render import jsonl, markdown


def log(step: Step) -> bytes | None:
    """`log.jsonl`: every step."""
    return jsonl.log_line(step)


def history(step: Step) -> bytes | None:
    """`history.jsonl`: the entries."""
    return jsonl.log_line(step) if step.kind is Kind.ENTRY else None


def messages(step: Step) -> bytes | None:
    """`messages.jsonl`: the messages of the entries."""
    return jsonl.message_line(step) if step.kind is Kind.ENTRY else None


def for_people(step: Step) -> bytes | None:
    """`history.md`: the entries as Markdown."""
    return markdown.entry(step) if step.kind is Kind.ENTRY else None


def nothing(_step: Step) -> bytes | None:
    """For those who want to know the kinds of the steps alone."""
    return None
