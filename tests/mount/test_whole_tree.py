"""messages.jsonl, history.md and log.jsonl, with the archive's text if the memory is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import memories
from tests.support.commands import run
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

Mounts = Callable[..., Mount]

PLAIN = b'{"role":"user","content":"list files"}'
CALLS = (
    b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function",'
    b'"function":{"name":"bash","arguments":"{\\"cmd\\":\\"ls\\"}"}}],"reasoning_content":"need ls"}'
)
RESULT = b'{"role":"tool","content":"a\\nb\\n","tool_call_id":"call_1","x-own":{"kept":1.50}}'
PICTURE = b'{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"http://x/y.png"}}]}'
HOSTILE = "one \x1b[31mred\x1b[0m \x07 \x9b2J \x00 two\r\nthree\rfour \x7f"
PLACEHOLDER = b'{"role":"user","content":"[archived context unavailable: crab-1]"}\n'
HEAD = "# `crab_tg-42_1`\n\nBegun 2026-04-28 00:00:00. Times are in UTC.\n\n"


def stored(message: bytes, agent: str | None = None) -> bytes:
    start = b"" if agent is None else b'"agent":' + json.dumps(agent).encode() + b","
    return b"{" + start + b'"message":' + message + b"}"


def contents(path: Path) -> list[object]:
    return [json.loads(line)["content"] for line in path.read_bytes().splitlines()]


def archived(store: StoreOnDisk, *texts: str) -> SessionOnDisk:
    """A session compacted into the archive crab-1, followed by these messages."""
    steps = [entry("before"), compaction("crab-1"), *map(entry, texts)]
    return store.session("crab_tg-42_1", *steps)


@pytest.mark.guarantee("G2a", "G1b")
def test_messages_are_the_bytes_of_what_was_said(store: StoreOnDisk, mount: Mounts) -> None:
    spaced = b'{\n "message" : {"role": "user",\r\n "content": "a  b", "n": 1.0e2}\n}\n'
    told = [PLAIN, CALLS, RESULT, PICTURE]
    steps = [stored(message) for message in told]
    session = store.session("crab_tg-42_1", steps[0], event(), *steps[1:], spaced)
    shown = (mount().path / session.slug / "messages.jsonl").read_bytes()
    told.append(b'{"role":"user","content":"a  b","n":1.0e2}')
    assert shown == b"".join(message + b"\n" for message in told)


@pytest.mark.guarantee("G2b")
def test_a_guest_agents_words_are_marked_as_its_own(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session(
        "crab_tg-42_1",
        stored(b'{"role":"assistant","content":"a \\"b\\"\\nc","n":1.0}', "guest <1>"),
        stored(CALLS, "guest"),
        stored(b'{"role":"assistant"}', "guest"),
        stored(b'{"role":"assistant","content":"mine"}', ""),
        stored(b'{"role":"user","content":"a user is no guest"}', "guest"),
    )
    lines = (mount().path / session.slug / "messages.jsonl").read_bytes().splitlines()
    words = '<from agent=\\"guest <1>\\">\\na \\"b\\"\\nc\\n</from>'
    assert lines[0].decode() == f'{{"role":"assistant","content":"{words}","n":1.0}}'
    assert lines[1] == CALLS.replace(b"null", b'"<from agent=\\"guest\\">\\n\\n</from>"', 1)
    assert json.loads(lines[2])["content"] == '<from agent="guest">\n\n</from>'
    assert lines[3:] == [
        b'{"role":"assistant","content":"mine"}',
        b'{"role":"user","content":"a user is no guest"}',
    ]


@pytest.mark.guarantee("G2c")
def test_a_memory_beside_the_store_is_found(store: StoreOnDisk, mount: Mounts) -> None:
    text = "We agreed on blue-green.\n\n“Ok”, said ana\u2028."
    data = memories.database({"other": "not this", "crab-1": text}, kind=0)
    (store.path.parent / "memory.db").write_bytes(data)
    session = archived(store, "after")
    at = mount().path / session.slug
    assert contents(at / "messages.jsonl") == [text, "after"]
    shown = (at / "history.md").read_text()
    assert shown.startswith(f"{HEAD}## Archived context `crab-1`\n\n{text}\n")
    assert (at / "history.jsonl").read_bytes() == entry("after") + b"\n"


@pytest.mark.guarantee("G2c")
def test_a_memory_beside_the_store_may_come_later(store: StoreOnDisk, mount: Mounts) -> None:
    messages = mount().path / archived(store, "after").slug / "messages.jsonl"
    assert messages.read_bytes().startswith(PLACEHOLDER)
    data = memories.database({"crab-1": "the plan"})
    memories.replace(store.path.parent / "memory.db", data)
    assert contents(messages) == ["the plan", "after"]


@pytest.mark.guarantee("G2c")
def test_a_memory_may_be_an_exported_tree(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    (tmp_path / "memory.db").write_bytes(memories.database({"crab-1": "not asked for"}))
    archives = tmp_path / "exported" / "archives"
    archives.mkdir(parents=True)
    text = '<div id="meta">\nkind: archive\n</div>\n\n  The plan.\n\n'
    (archives / "crab-1.md").write_text(text)
    session = archived(store, "after")
    messages = mount("memory=" + str(tmp_path / "exported")).path / session.slug / "messages.jsonl"
    assert contents(messages) == ["The plan.", "after"]
    memories.replace(archives / "crab-1.md", b"Another plan.")
    assert contents(messages) == ["Another plan.", "after"]
    (archives / "crab-1.md").unlink()
    assert messages.read_bytes().startswith(PLACEHOLDER)


@pytest.mark.guarantee("G2c")
def test_without_a_memory_the_archive_is_named(store: StoreOnDisk, mount: Mounts) -> None:
    (store.path.parent / "memory.db").write_bytes(memories.database({"crab-1": "not asked for"}))
    session = archived(store, "after")
    at = mount("memory=none").path / session.slug
    assert (at / "messages.jsonl").read_bytes().startswith(PLACEHOLDER)
    assert "`crab-1` is not available" in (at / "history.md").read_text()


@pytest.mark.guarantee("G2c")
def test_a_session_after_a_compaction_without_archive_begins_with_what_was_said(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("x"), b'{"compact":"summary"}', entry("after"))
    at = mount().path / session.slug
    assert contents(at / "messages.jsonl") == ["after"]
    assert re.sub("·.*", "", (at / "history.md").read_text()) == f"{HEAD}## user \n\nafter\n\n"


@pytest.mark.guarantee("G13b", "G2c")
def test_a_new_text_of_the_archive_is_a_new_file_for_those_that_show_it(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    database = tmp_path / "memory.db"
    memories.replace(database, memories.database({"crab-1": "the plan"}))
    at = mount().path / archived(store, "after").slug
    names = ("messages.jsonl", "history.md", "history.jsonl", "log.jsonl")
    before = {name: (at / name).read_bytes() for name in names}
    inodes = {name: (at / name).stat().st_ino for name in names}
    with (at / "messages.jsonl").open("rb") as reading:
        memories.replace(database, memories.database({"crab-1": "the plan", "crab-2": "new"}))
        assert {name: (at / name).read_bytes() for name in names} == before
        assert {name: (at / name).stat().st_ino for name in names} == inodes

        memories.replace(database, memories.database({"crab-1": "a better plan"}))
        assert contents(at / "messages.jsonl") == ["a better plan", "after"]
        assert "a better plan" in (at / "history.md").read_text()
        changed = {name for name in names if (at / name).stat().st_ino != inodes[name]}
        assert changed == {"messages.jsonl", "history.md"}
        assert (at / "history.jsonl").read_bytes() == before["history.jsonl"]
        assert reading.read() == before["messages.jsonl"]


@pytest.mark.guarantee("G2c", "G19b")
def test_a_broken_memory_is_warned_of_once_and_used_again_when_it_is_whole(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    database = tmp_path / "memory.db"
    whole = memories.database({"crab-1": "the plan"})
    database.write_bytes(whole[:-1])
    session = archived(store, "after")
    mounted = mount()
    mounted.expected.append("cannot be used")
    at = mounted.path / session.slug
    for _ in range(3):
        assert (at / "messages.jsonl").read_bytes().startswith(PLACEHOLDER)
        assert "not available" in (at / "history.md").read_text()
    assert mounted.log().count("cannot be used") == 1
    memories.replace(database, whole)
    assert contents(at / "messages.jsonl") == ["the plan", "after"]


@pytest.mark.guarantee("G1c", "G13a")
def test_the_log_has_every_step_and_goes_on_over_a_compaction(
    store: StoreOnDisk, mount: Mounts
) -> None:
    steps = [entry("one"), event(), b' {"compact":"old"}\n', entry("two"), compaction("crab-1")]
    session = store.session("crab_tg-42_1", *steps)
    path = mount("memory=none").path / session.slug / "log.jsonl"
    lines = b"".join(step.strip() + b"\n" for step in steps)
    with path.open("rb") as reading:
        inode = os.fstat(reading.fileno()).st_ino
        assert reading.read() == lines
        (path.parent / "append").write_bytes(event("more") + b"\n" + entry("three") + b"\n")
        (path.parent / "compact").write_bytes(b"crab-2\n")
        session.add(entry("from elsewhere"))
        grown = path.read_bytes()
        assert reading.read() == grown[len(lines) :]
    assert grown == b"".join(step.strip() + b"\n" for step in session.steps())
    assert [json.loads(line).get("archive_name") for line in grown.splitlines()].count("crab-2")
    assert path.stat().st_ino == inode


@pytest.mark.guarantee("G2d")
def test_the_markdown_tells_who_said_what(store: StoreOnDisk, mount: Mounts) -> None:
    long = json.dumps({"role": "tool", "content": "".join(f"line {n}\n" for n in range(5000))})
    session = store.session(
        "crab_tg-42_1",
        stored(PLAIN),
        event(),
        stored(CALLS),
        stored(b'{"role":"tool","content":"```\\nfence\\n```","tool_call_id":"call_1"}'),
        stored(b'{"role":"assistant","content":"done"}', "guest"),
        stored(PICTURE),
        stored(long.encode()),
    )
    os.utime(session.path / "step-000001", (1777385685, 1777385685))
    text = (mount().path / session.slug / "history.md").read_text()
    expected = [
        f"{HEAD}## user · step 1 · 2026-04-28 14:14:45\n\nlist files\n",
        "> need ls",
        "### Calls `bash` `call_1`",
        '```json\n{\n  "cmd": "ls"\n}\n```',
        "## tool `bash` `call_1` · step 4 · ",
        "````\n```\nfence\n```\n````",
        "## assistant (guest agent `guest`) · step 5 · ",
        "done\n",
        "*[`image_url` `http://x/y.png`]*",
        "line 0\n",
        "left out here",
        "line 4999\n",
    ]
    places = [text.find(part) for part in expected]
    assert -1 not in places
    assert places == sorted(places)
    assert "line 2500\n" not in text
    assert "user_steered" not in text


@pytest.mark.guarantee("G13a", "G2d")
def test_the_markdown_grows_at_its_end_only(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("an ``` open fence\n```"))
    path = mount().path / session.slug / "history.md"
    with path.open("rb") as reading:
        shown = reading.read()
        for text in ("one", "<!-- two", "three"):
            (path.parent / "append").write_bytes(entry(text) + b"\n")
            now = path.read_bytes()
            assert now.startswith(shown)
            assert reading.read() == now[len(shown) :]
            shown = now
        assert path.stat().st_ino == os.fstat(reading.fileno()).st_ino
        assert path.stat().st_size == len(shown)


@pytest.mark.guarantee("G2d")
def test_nothing_in_the_markdown_drives_the_terminal(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    (tmp_path / "memory.db").write_bytes(memories.database({"crab-1": HOSTILE}))
    call = {"id": HOSTILE, "type": "function", "function": {"name": HOSTILE, "arguments": HOSTILE}}
    message = {"role": HOSTILE, "content": HOSTILE, "name": HOSTILE, "tool_calls": [call]}
    session = store.session(
        "crab_tg-42_1",
        compaction("crab-1"),
        entry(HOSTILE),
        stored(json.dumps(message | {"reasoning_content": HOSTILE}).encode(), HOSTILE),
        entry(HOSTILE, role="tool"),
    )
    path = mount().path / session.slug / "history.md"
    text = path.read_bytes().decode()
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) == []
    assert "␛[31mred" in text
    assert on_a_terminal(f"less -R -X -E +G {path}").count("\x1b[31m") == 0


def on_a_terminal(command: str) -> str:
    """The output of a command on its own terminal."""
    manner = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "LESSHISTFILE": "-", "LESS": ""}
    shown = run(["script", "-qec", command, "/dev/null"], **manner)
    assert shown.returncode == 0, shown
    return shown.stdout


@pytest.mark.guarantee("G2d")
def test_less_shows_the_markdown_as_it_is(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("who is there?"), entry("ana — «ok»"))
    path = mount().path / session.slug / "history.md"
    shown = on_a_terminal(f"less -R -F -X {path}")
    plain = re.sub(" ·.*", "", shown.replace("\x1b[m", ""))
    assert "## user\n\nwho is there?\n\n## user\n\nana — «ok»\n" in plain
    piped = subprocess.run(["less", path], capture_output=True, text=True, timeout=30, check=True)
    assert piped.stdout == path.read_text()
