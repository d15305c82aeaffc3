"""Builds a sample session: one call per step, and a clock that only the story advances."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step file of a sample session."""

    number: int
    data: bytes
    time: datetime


class Story:
    """A session under construction: each call adds steps, in the bytes that the daemon would write."""

    def __init__(self, agent: str, created_by: str, start: datetime, title: str = "") -> None:
        self.agent = agent
        self.created_by = created_by
        self.created_at = start
        self.title = title
        self.summary: str | None = None
        self.now = start
        self.steps: list[StoryStep] = []
        self._number = 1
        self._calls = 0
        self._messages = 0

    def meta(self) -> dict[str, object]:
        """The session's `meta`, its keys in the daemon's order."""
        meta: dict[str, object] = {
            "agent": self.agent,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "title": self.title,
            "updated_at": rfc3339(self.now),
            "message_count": self._messages,
        }
        if self.summary is not None:
            meta["summary"] = self.summary
        return meta

    def user(self, content: object, wait: int = 40) -> None:
        """The user writes, `wait` seconds after the last step; `content` is text or parts."""
        self._pass(wait)
        self._entry({"role": "user", "content": content})

    def says(self, text: str, *, thinks: str = "", guest: str = "") -> None:
        """The agent answers, or a `guest` agent that was invited."""
        self._pass(6)
        message: dict[str, object] = {"role": "assistant", "content": text}
        if thinks:
            message["reasoning_content"] = thinks
        self._entry(message, guest)

    def runs(
        self, *calls: tuple[str, dict[str, object], str], says: str | None = None, thinks: str = ""
    ) -> None:
        """The agent calls tools, each given as name, arguments and result."""
        self._pass(4)
        numbered = []
        for name, arguments, result in calls:
            self._calls += 1
            numbered.append((f"call_{self._calls}", name, compact_json(arguments), result))
        message: dict[str, object] = {
            "role": "assistant",
            "content": says,
            "tool_calls": [
                {
                    "index": index,
                    "id": call,
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for index, (call, name, arguments, _) in enumerate(numbered)
            ],
        }
        if thinks:
            message["reasoning_content"] = thinks
        self._entry(message)
        started = [{"id": call, "name": n, "arguments": a} for call, n, a, _ in numbered]
        self._event({"event": "tool_start", "calls": started})
        for call, name, _, result in numbered:
            took = 9 + 31 * (len(result) % 97)
            self.now += timedelta(milliseconds=took)
            self._event({"event": "tool_result", "call_id": call, "duration_ms": took})
            self._entry({"role": "tool", "content": result, "tool_call_id": call, "name": name})

    def steered(self, content: str) -> None:
        """The user says something while the agent works."""
        self._pass(3)
        self._event({"event": "user_steered", "content": content})

    def done(self, model: str = "claude-sonnet-4", prompt_tokens: int = 1480) -> None:
        """The agent's turn is over."""
        completion = 40 + prompt_tokens // 9
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": prompt_tokens + completion,
            "prompt_cache_hit_tokens": prompt_tokens * 3 // 4,
            "prompt_cache_miss_tokens": prompt_tokens - prompt_tokens * 3 // 4,
        }
        self._event(
            {
                "event": "done",
                "model": model,
                "iterations": 1 + self._calls,
                "stop_reason": "stop",
                "usage": usage,
            }
        )

    def compacts(self, archive_name: str) -> None:
        """A compaction: the history so far goes to the archive `archive_name`."""
        self._pass(20)
        self._step({"archive_name": archive_name, "archived_at": rfc3339(self.now)})
        self._messages = 1

    def compacts_in_legacy_form(self, summary: str, title: str) -> None:
        """A compaction as older daemons write it, with the summary in the step itself."""
        self._pass(20)
        self._step({"compact": summary, "title": title, "archived_at": rfc3339(self.now)})
        self._messages = 0

    def skips(self, numbers: int) -> None:
        """Leave a gap of `numbers` step numbers."""
        self._number += numbers

    def tears(self, data: bytes) -> None:
        """A step that was cut short by a crash."""
        self._pass(1)
        self._add(data)

    def _entry(self, message: dict[str, object], guest: str = "") -> None:
        self._step({"agent": guest, "message": message} if guest else {"message": message})
        self._messages += 1

    def _event(self, event: dict[str, object]) -> None:
        self._step(event | {"ts": rfc3339(self.now)})

    def _step(self, document: dict[str, object]) -> None:
        self._add(compact_json(document).encode())

    def _add(self, data: bytes) -> None:
        self.steps.append(StoryStep(self._number, data, self.now))
        self._number += 1

    def _pass(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds, microseconds=104_729 + 1_299 * self._number)


def compact_json(value: object) -> str:
    """`value` as the daemon serialises it: minimal escapes, no white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def rfc3339(time: datetime) -> str:
    """The UTC `time` as the daemon writes it, with nanoseconds unless it is a whole second."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{time.microsecond:06}491+00:00" if time.microsecond else f"{text}+00:00"
