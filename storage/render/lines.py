"""What each view shows of a step: its line, None where it has none.

That is asked with the descriptor of the session and the name of the step's file beside the step; those
here need neither. `storage.session.for_people` has that of `history.md`.

These are functions of a module, so that a worker process can be told to call them.
"""

from __future__ import annotations

from storage.formats.kinds import Kind, Step
from storage.render import jsonl


def log(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`log.jsonl`: every step."""
    return jsonl.log_line(step)


def history(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`history.jsonl`: the entries."""
    return jsonl.log_line(step) if step.kind is Kind.ENTRY else None


def messages(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`messages.jsonl`: the messages of the entries."""
    return jsonl.message_line(step) if step.kind is Kind.ENTRY else None


def nothing(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    """For those who want to know the kinds of the steps alone."""
    return None
