"""How each view renders a step: one function per view, which returns a line, or None to show nothing.

They are called with the session's descriptor and the step's file name too, which those here ignore;
`storage.session.for_people` has the one for `history.md`, which needs both. They are module-level
functions, so that they can be sent to a worker process.
"""

from __future__ import annotations

from storage.formats.kinds import Step
from storage.render import jsonl


def log(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`log.jsonl`: every step."""
    return jsonl.log_line(step)


def history(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`history.jsonl`: the entries."""
    return jsonl.log_line(step) if step.kind.is_entry else None


def messages(step: Step, _session_fd: int, _name: str) -> bytes | None:
    """`messages.jsonl`: the messages of the entries."""
    return jsonl.message_line(step) if step.kind.is_entry else None


def nothing(_step: Step, _session_fd: int, _name: str) -> bytes | None:
    """No text: for callers that only want to know the kinds of steps."""
    return None
