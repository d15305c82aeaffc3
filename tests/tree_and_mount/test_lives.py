"""Random whole lives of sessions: at every step and in every epoch, a served store shows what the
reference loads from the steps of that moment, and so does every fork (G29, G30)."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import lives, oracle
from tests.support.drivers import Driver
from tests.support.lives import Loaded, Steps
from tests.support.stores import SessionOnDisk

EXAMPLES, MANY = 12, 400
HARD = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def lay(session: SessionOnDisk, steps: Steps) -> None:
    """Make the session hold exactly these steps, by outside removals, replacements and back-fills."""
    for number in session.numbers():
        if number not in steps:
            (session.path / f"step-{number:06}").unlink()
    present = set(session.numbers())
    for number, document in steps.items():
        if number not in present or session.step(number) != document:
            session.put(number, document)


def history(found: Loaded) -> bytes:
    """What `history.jsonl` must show of what the reference loaded."""
    return b"".join(document + b"\n" for document in found.entries)


def leads(archive: str, steps: Steps) -> list[object]:
    """The permitted leads of an archive: content blocks if the session has entries of the daemon's
    later versions, plain text if it has others or none. With both kinds either is correct."""
    entries = [json.loads(data) for data in steps.values() if oracle.kind(data) == "entry"]
    text = f"[archived context unavailable: {archive}]"
    forms = {isinstance(found["message"].get("content"), list) for found in entries} or {False}
    return [[{"type": "text", "text": text}] if blocks else text for blocks in forms]


def assert_messages(shown: bytes, steps: Steps) -> None:
    """`messages.jsonl` must have the archive's lead, if there is one, and a line for each entry."""
    found = lives.loaded(steps)
    messages = [json.loads(line) for line in shown.splitlines()]
    if found.archive is not None:
        lead = messages.pop(0)
        assert lead["role"] == "user"
        assert lead["content"] in leads(found.archive, steps)
    assert messages == [said(json.loads(document)) for document in found.entries]


def said(entry: dict[str, Any]) -> object:
    """The message of an entry; a guest agent's text is in tags with its name."""
    message, agent = entry["message"], entry.get("agent")
    if message["role"] != "assistant" or not agent:
        return message

    def tagged(text: str) -> str:
        return f'<from agent="{agent}">\n{text}\n</from>'

    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": tagged(content)}
    blocks = [
        {**block, "text": tagged(block["text"])} if block["type"] == "text" else block
        for block in content
    ]
    return {**message, "content": blocks}


def forked(driver: Driver, origin: str, at: int) -> str:
    """Fork a session at a step; returns the fork's slug."""
    asked = {"from": origin, "at": at, "agent": "fork", "created_by": "test"}
    with driver.opened(".stepfs/create", os.O_RDWR) as create:
        driver.write(create, json.dumps(asked).encode() + b"\n")
        return driver.read(create, size=300).decode().strip()


def look(driver: Driver, session: SessionOnDisk, steps: Steps) -> None:
    """Compare everything shown of a session's past with what the reference loads."""
    last = max(steps, default=0) + 1
    for number in range(last + 1):
        assert_shown(driver, f"{session.slug}/.at/{number}", lives.cut(steps, number))
    ends = [*lives.compactions(steps), last]
    names = [str(number) for number in range(1, len(ends) + 1)]
    assert sorted(driver.listdir(f"{session.slug}/.epochs"), key=int) == names
    for name, end in zip(names, ends, strict=True):
        assert_shown(driver, f"{session.slug}/.epochs/{name}", lives.cut(steps, end - 1))


def assert_shown(driver: Driver, directory: str, steps: Steps) -> None:
    """A directory of the past must show what the reference loads from these steps."""
    assert driver.text(f"{directory}/history.jsonl") == history(lives.loaded(steps))
    assert_messages(driver.text(f"{directory}/messages.jsonl"), steps)


def live(driver: Driver, data: st.DataObject) -> None:
    """One life: checked, edited from outside, checked again, and forked."""
    driver.allow("step-")  # broken ones
    steps = data.draw(lives.LIVES)
    session = driver.session()
    lay(session, steps)
    look(driver, session, steps)
    steps = data.draw(lives.edited(steps))
    lay(session, steps)
    look(driver, session, steps)
    last = data.draw(st.integers(0, max(steps, default=0) + 1))
    fork, past = forked(driver, session.slug, last), f"{session.slug}/.at/{last}"
    assert driver.text(f"{fork}/history.jsonl") == history(lives.loaded(lives.cut(steps, last)))
    for view in ("history.jsonl", "messages.jsonl"):
        assert driver.text(f"{fork}/{view}") == driver.text(f"{past}/{view}")
    origin = driver.text(f"{session.slug}/log.jsonl")
    assert origin.startswith(driver.text(f"{fork}/log.jsonl"))


@pytest.mark.guarantee("G29a", "G29b", "G30a", "G30c")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=HARD, print_blob=True)
@given(data=st.data())
def test_of_any_life_every_step_epoch_and_fork_shows_what_the_reference_loads(
    driver: Driver, data: st.DataObject
) -> None:
    live(driver, data)


@pytest.mark.soak
@pytest.mark.guarantee("G29a", "G29b", "G30a", "G30c")
@settings(max_examples=MANY, deadline=None, suppress_health_check=HARD, print_blob=True)
@given(data=st.data())
def test_of_very_many_lives_every_step_epoch_and_fork_shows_what_the_reference_loads(
    driver: Driver, data: st.DataObject
) -> None:
    live(driver, data)
