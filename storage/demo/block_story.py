"""Builds a sample session in the format of later versions of the daemon: content blocks."""

from __future__ import annotations

from datetime import timedelta

from storage.demo.story import Story

Blocks = list[dict[str, object]]


class BlockStory(Story):
    """A `Story` with the content blocks and usage counts that the daemon has written since May 2026."""

    def user(self, content: object, wait: int = 40) -> None:
        """The user writes; `content` is text or blocks."""
        blocks = [_text(content)] if isinstance(content, str) else content
        super().user(blocks, wait)

    def says(self, text: str, *, thinks: str = "", guest: str = "") -> None:
        """The agent answers, or a `guest` agent."""
        self._pass(6)
        self._assistant([*_thinking(thinks), _text(text)], guest)

    def runs(
        self, *calls: tuple[str, dict[str, object], str], says: str | None = None, thinks: str = ""
    ) -> None:
        """The agent calls tools; each result is a message of its own."""
        self._pass(4)
        numbered = []
        for name, given, result in calls:
            self._calls += 1
            numbered.append((f"toolu_{self._calls:02}", name, given, result))
        said = [_text(says)] if says else []
        uses: Blocks = [
            {"type": "tool_use", "id": use, "name": name, "input": given}
            for use, name, given, _ in numbered
        ]
        self._assistant([*_thinking(thinks), *said, *uses])
        for use, name, _, result in numbered:
            self.now += timedelta(milliseconds=9 + 31 * (len(result) % 97))
            answer = {"type": "tool_result", "tool_use_id": use, "name": name, "content": result}
            self._entry({"role": "user", "content": [answer]})

    def done(self, model: str = "claude-sonnet-4-5", prompt_tokens: int = 1480) -> None:
        """The agent's turn is over."""
        usage = {
            "input_tokens": prompt_tokens // 4,
            "cache_read_tokens": prompt_tokens - prompt_tokens // 4,
            "cache_write_tokens": 0,
            "output_tokens": 40 + prompt_tokens // 9,
            "reasoning_tokens": 0,
        }
        self._event(
            {
                "event": "done",
                "model": model,
                "iterations": 1 + self._calls,
                "stop_reason": "text_response",
                "usage": usage,
            }
        )

    def _assistant(self, blocks: Blocks, guest: str = "") -> None:
        self._entry({"role": "assistant", "content": blocks}, guest)


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _thinking(text: str) -> Blocks:
    return [{"type": "thinking", "thinking": text}] if text else []
