"""SKILL.md is enough for an agent to find, read, continue and compact a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.demo import demo
from tests.support.commands import run
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk

Mounts = Callable[..., Mount]
BLOCK = re.compile(r"(?:^    .+\n)+", re.MULTILINE)


class Agent:
    """Knows only the page: every command comes from it, with placeholders filled in."""

    def __init__(self, at: Path, messages: Path) -> None:
        self.at = at
        self.session = ""
        self._messages = messages
        self._sections: dict[str, str] = {}
        for section in (at / ".stepfs/SKILL.md").read_text().split("\n## ")[1:]:
            title, _, text = section.partition("\n")
            self._sections[title] = text

    def blocks(self, title: str) -> list[str]:
        """The commands of a section, block by block."""
        return [re.sub("^    ", "", b, flags=re.M) for b in BLOCK.findall(self._sections[title])]

    def does(self, block: str, **words: str) -> str:
        """Run commands of the page with some words replaced; returns their output."""
        for old, new in words.items():
            assert old in block
            block = block.replace(old, new)
        own = "read -r SESSION" in block
        block = re.sub(r"(?<!-r )\bSESSION\b", "$SESSION" if own else self.session, block)
        block = block.replace("cat messages.jsonl", f"cat {self._messages}")
        script = f"set -e; cd '{self.at}'\n{block}"
        done = run(["bash", "-c", script + ('\necho "$SESSION"' if own else "")])
        assert done.returncode == 0, done
        return done.stdout

    def line(self, title: str, beginning: str) -> str:
        """The only command of a section that begins like this."""
        lines = [line for block in self.blocks(title) for line in block.splitlines()]
        (found,) = (line for line in lines if line.startswith(beginning))
        return found


@pytest.fixture
def agent(store: StoreOnDisk, mount: Mounts, tmp_path: Path) -> Agent:
    demo.write(str(store.path))
    (tmp_path / "messages").write_text('{"role":"user","content":"in my turn"}\n')
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/append: not JSON")
    return Agent(mounted.path, tmp_path / "messages")


def test_it_finds_and_reads_what_was_said(agent: Agent) -> None:
    found = agent.does(agent.line("Find a session", "grep -rl"), deploy="grandmother")
    assert found.splitlines() == ["./crab_discord-lena_1/history.jsonl"]
    agent.session = found.split("/")[1]
    assert "the keeper's own grandmother" in agent.does(
        agent.line("Read it", "cat SESSION/history.md")
    )
    assert int(agent.does(agent.line("Read it", "wc -l")).split()[0]) == 2
    listed = agent.does(agent.line("Find a session", "cat .stepfs/sessions.jsonl"))
    assert "A lighthouse keeper's novel" in {json.loads(x)["title"] for x in listed.splitlines()}
    agent.does(agent.blocks("Find a session")[0], deploy="grandmother")
    agent.does(agent.blocks("Read it")[0])


def test_it_holds_a_conversation_and_compacts_it_without_losing_the_thread(agent: Agent) -> None:
    start = agent.blocks("Start, rename, delete")[0]
    agent.session = agent.does(start.replace("rmdir SESSION", ":")).strip()
    for block in agent.blocks("Append")[:1]:
        agent.does(block)
    assert agent.does(agent.line("Read it", "wc -l")).split()[0] == "2"
    compact = agent.blocks("Compact")
    first = json.loads(agent.does(compact[0]))
    assert first == {"role": "user", "content": "So far: plan B, to be tested."}
    agent.does(agent.line("Append", "flock"))
    told = agent.does(agent.line("Read it", "cat SESSION/messages.jsonl")).splitlines()
    assert [json.loads(line)["content"] for line in told][1:] == ["in my turn"]
    agent.does(compact[1])
    agent.does("rmdir SESSION\n")
    assert not (agent.at / agent.session).exists()


def test_it_forks_a_session_at_a_step(agent: Agent) -> None:
    agent.session = "crab_tg-42_1"
    fork, past = (block.replace("120", "3") for block in agent.blocks("Fork"))
    copied = agent.does(fork + '\ncat "$FORK/history.jsonl"')
    assert copied.count("\n") == 2  # step 3 is an event
    assert copied == agent.does(past)


def test_it_learns_why_a_line_was_refused(agent: Agent) -> None:
    agent.session = "crab_tg-42_1"
    refused = run(["bash", "-c", f"cd '{agent.at}'; echo oops >> {agent.session}/append"])
    assert refused.returncode != 0
    assert "not JSON" in agent.does(agent.line("Append", "tail -n 1 .stepfs/errors.jsonl"))
