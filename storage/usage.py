"""The tokens that runs of agents used, as their `done` events report them, in every dialect.

The dialects count differently: the first tells what was sent and what came back as wholes, and how much
of these was cached or reasoning; the second tells each part by itself. Here all are told as wholes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from storage.formats.dialects import USAGE_OF_WHOLES
from storage.formats.kinds import Kind, NotAStep, classify
from storage.times import nanoseconds

_SIGNS: Final = (b'"done"', b"\\u")
"""What stands in every `done` event: its name, as it is or with escapes."""


@dataclass(slots=True)
class Tokens:
    """Tokens of some runs: what was sent, what came back, and parts of these."""

    runs: int = 0
    prompt_tokens: int = 0
    """All that was sent, from caches or not."""
    cache_read_tokens: int = 0
    """The part of it that the provider read from its cache."""
    cache_write_tokens: int = 0
    """The part of it that was written to that cache; the first dialect does not tell."""
    completion_tokens: int = 0
    """All that came back."""
    reasoning_tokens: int = 0
    """The part of it that was reasoning."""
    server_tool_calls: dict[str, int] = field(default_factory=dict)
    """How often the provider itself called its tools, by name; the first dialect has none."""

    @property
    def total_tokens(self) -> int:
        """What was sent and what came back."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, other: Tokens) -> None:
        """Count the runs of `other` in."""
        self.runs += other.runs
        self.prompt_tokens += other.prompt_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.completion_tokens += other.completion_tokens
        self.reasoning_tokens += other.reasoning_tokens
        for tool, calls in other.server_tool_calls.items():
            self.server_tool_calls[tool] = self.server_tool_calls.get(tool, 0) + calls


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is done: with which model, when in nanoseconds since 1970, and what it took."""

    model: str
    ended: int | None
    """None where the event's time is none."""
    tokens: Tokens


def run_of(data: bytes) -> Run | None:
    """The run that a step of these bytes ended; None if it is no step, or another."""
    if not any(sign in data for sign in _SIGNS):
        return None
    try:
        step = classify(data)
    except NotAStep:
        return None
    if step.kind is not Kind.EVENT or step.value["event"] != "done":
        return None
    event = step.value
    usage = event["usage"]
    tokens = _of_parts(usage) if USAGE_OF_WHOLES(usage) else _of_wholes(usage)
    return Run(event["model"], nanoseconds(event["ts"]), tokens)


def _of_wholes(usage: dict[str, Any]) -> Tokens:
    details = usage.get("completion_tokens_details") or {}
    return Tokens(
        runs=1,
        prompt_tokens=usage["prompt_tokens"],
        cache_read_tokens=usage.get("prompt_cache_hit_tokens") or 0,
        completion_tokens=usage["completion_tokens"],
        reasoning_tokens=details.get("reasoning_tokens") or 0,
    )


def _of_parts(usage: dict[str, Any]) -> Tokens:
    read, written = usage.get("cache_read_tokens", 0), usage.get("cache_write_tokens", 0)
    reasoning = usage.get("reasoning_tokens", 0)
    return Tokens(
        runs=1,
        prompt_tokens=usage["input_tokens"] + read + written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=usage["output_tokens"] + reasoning,
        reasoning_tokens=reasoning,
        server_tool_calls=dict(usage.get("server_tool_calls") or {}),
    )
