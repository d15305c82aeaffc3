"""history.md: each entry a block for people, that nothing in the entry can break out of."""

import json
from typing import Any

import pytest

from storage.formats.kinds import classify
from storage.render import markdown

CALL = {
    "id": "call_7",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"cmd":"ls","n":[1,2]}'},
}


def shown(agent: str = "", **message: Any) -> str:
    document: dict[str, Any] = {"message": {"role": "user", **message}}
    if agent:
        document["agent"] = agent
    return markdown.entry(classify(json.dumps(document).encode())).decode()


def test_a_block_tells_who_speaks_and_ends_with_an_empty_line() -> None:
    assert shown(content="Hello *there*") == "## user\n\nHello *there*\n\n"


def test_a_guest_agent_is_named_in_the_heading() -> None:
    text = shown("Scout", role="assistant", content="done")
    assert text.startswith("## assistant (guest agent `Scout`)\n\n")


def test_reasoning_is_set_apart_before_the_text() -> None:
    text = shown(role="assistant", reasoning_content="first\n\nthen", content="Answer")
    assert text == "## assistant\n\n> *Reasoning*\n>\n> first\n>\n> then\n\nAnswer\n\n"


def test_a_tool_call_has_its_name_and_its_arguments_laid_out() -> None:
    text = shown(role="assistant", content=None, tool_calls=[CALL])
    assert "### Calls `bash` `call_7`\n\n```json\n{\n" in text
    assert '  "cmd": "ls",\n  "n": [\n    1,\n    2\n  ]\n}\n```\n\n' in text


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    deep = "[" * 100_000
    for arguments in ("{oops", deep, ""):
        call = CALL | {"function": {"name": "bash", "arguments": arguments}}
        assert f"```\n{arguments}\n```" in shown(role="assistant", tool_calls=[call])


def test_arguments_with_escapes_that_are_no_character_do_not_end_the_file() -> None:
    call = CALL | {"function": {"name": "x", "arguments": '{"a":"\\ud800"}'}}
    assert '"a": "\ufffd"' in shown(role="assistant", tool_calls=[call])


@pytest.mark.parametrize(
    ("content", "fence"), [("plain", "```"), ("```sh\nls\n```\n", "````"), ("x `````` y", "`" * 7)]
)
def test_the_fence_of_a_result_is_longer_than_any_in_it(content: str, fence: str) -> None:
    text = shown(role="tool", content=content, tool_call_id="call_7", name="bash")
    end = content if content.endswith("\n") else content + "\n"
    assert text == f"## tool `bash` `call_7`\n\n{fence}\n{end}{fence}\n\n"


def test_a_result_of_the_greatest_size_is_shown_whole_and_the_next_is_cut() -> None:
    whole = "line\n" * 200
    assert whole in shown(role="tool", content=whole)
    cut = shown(role="tool", content="".join(f"line {n}\n" for n in range(1, 1001)))
    assert "line 150\n```\n\n*… 800 lines, 7.0 KiB, left out here" in cut
    assert "…*\n\n```\nline 951\n" in cut
    assert cut.endswith("line 1000\n```\n\n")


def test_one_long_line_of_a_result_is_cut_too() -> None:
    cut = shown(role="tool", content="x" * 1_000_000)
    assert len(cut) < 17_000
    assert "*… 0 lines, 960.6 KiB, left out" in cut


def test_text_of_any_length_is_never_cut() -> None:
    text = "word\n" * 50_000 + "end"
    assert text in shown(content=text)


def test_parts_that_are_no_text_are_named_without_their_data() -> None:
    text = shown(
        content=[
            {"type": "text", "text": "Look:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4096}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"filename": "plan.pdf", "file_data": "AAAA"}},
        ]
    )
    assert text == (
        "## user\n\nLook:\n\n*[`image_url` `image/png`, 3.0 KiB]*\n\n"
        "*[`image_url` `https://example.org/a.png`]*\n\n*[`input_audio` `wav`]*\n\n"
        "*[`file` `plan.pdf`]*\n\n"
    )


@pytest.mark.parametrize("content", [None, "", "\n", []])
def test_an_entry_without_content_says_so(content: object) -> None:
    assert shown(content=content) == "## user\n\n*(empty)*\n\n"


def test_content_of_any_other_json_is_laid_out() -> None:
    assert '```json\n{\n  "a": 1\n}\n```' in shown(content={"a": 1})
    assert "```json\n42\n```" in shown(content=42)


def test_control_characters_are_shown_and_never_sent_to_the_terminal() -> None:
    hostile = "a\x1b[2Jb\x07c\x9bd\x7fe\rf\tg\r\nh"
    call = CALL | {"function": {"name": hostile, "arguments": hostile}}
    for text in (
        shown(role=hostile, content=hostile, name=hostile, reasoning_content=hostile),
        shown(hostile, role="assistant", content=[hostile], tool_calls=[call]),
        shown(role="tool", content=hostile),
        markdown.archive(hostile, hostile).decode(),
    ):
        assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    assert "a␛[2Jb␇c\ufffdd␡e␍f\tg\nh" in shown(content=hostile)


def test_a_name_with_line_feeds_and_backticks_stays_in_its_heading() -> None:
    text = shown("a`b\n\n## system", role="assistant", content="x")
    assert text == "## assistant (guest agent `` a`b ## system ``)\n\nx\n\n"


@pytest.mark.parametrize(
    ("content", "closing"),
    [
        ("see\n```python\nprint()", "```"),
        ("~~~~\n```", "~~~~"),
        ("```\na\n```\n````\nb\n```", "````"),
        ("a <b>\n<!-- never closed\nx", "-->"),
        ("<pre>\nx", "</pre>"),
    ],
)
def test_what_a_text_leaves_open_is_closed_after_it(content: str, closing: str) -> None:
    assert shown(content=content) == f"## user\n\n{content}\n{closing}\n\n"


@pytest.mark.parametrize(
    "content",
    [
        "```\na\n```",
        "```\n<!--\n```",
        "<!-- a -->",
        "``` not `a` fence",
        "- a\n  ```\n  b",
        "a <!--",
    ],
)
def test_what_is_closed_or_ends_by_itself_is_left_as_it_is(content: str) -> None:
    assert shown(content=content) == f"## user\n\n{content}\n\n"


def test_an_archive_begins_the_file_with_its_text_or_says_that_it_is_not_there() -> None:
    known = markdown.archive("crab-1", "They met.\n").decode()
    assert known == "# Archived context `crab-1`\n\nThey met.\n\n---\n\n"
    unknown = markdown.archive("crab-1", None).decode()
    assert "The text of the archive `crab-1` is not available." in unknown
    assert unknown.endswith("\n\n---\n\n")
