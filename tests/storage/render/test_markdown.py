"""history.md: each entry is a readable block that nothing in the entry can break out of."""

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
        "*[`image_url` `https://example.org/a.png`]*\n\n*[`input_audio` `wav`, 3 bytes]*\n\n"
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


def test_an_archive_follows_the_head_with_its_text_or_says_that_it_is_not_there() -> None:
    known = markdown.archive("crab-1", "They met.\n").decode()
    assert known == "## Archived context `crab-1`\n\nThey met.\n\n---\n\n"
    unknown = markdown.archive("crab-1", None).decode()
    assert "The text of the archive `crab-1` is not available." in unknown
    assert unknown.endswith("\n\n---\n\n")


def test_the_head_tells_the_session_and_when_it_began() -> None:
    head = markdown.head("crab_tg-42_1", "2026-04-20T08:12:05.123+00:00").decode()
    assert head == "# `crab_tg-42_1`\n\nBegun 2026-04-20 08:12:05. Times are in UTC.\n\n"
    assert markdown.head("x", "") == b"# `x`\n\nTimes are in UTC.\n\n"


BASH = {"type": "tool_use", "id": "tu_1", "name": "bash", "input": {"command": "df -h", "n": [1]}}


def test_content_blocks_look_as_the_plain_dialect_does() -> None:
    blocks = shown(
        role="assistant",
        content=[
            {"type": "thinking", "thinking": "ask df", "signature": "c2ln"},
            {"type": "text", "text": "I look."},
            BASH,
        ],
    )
    call = CALL | {
        "id": "tu_1",
        "function": {"name": "bash", "arguments": json.dumps(BASH["input"])},
    }
    plain = shown(
        role="assistant", reasoning_content="ask df", content="I look.", tool_calls=[call]
    )
    assert blocks == plain
    assert blocks.startswith("## assistant\n\n> *Reasoning*\n>\n> ask df\n\nI look.\n\n### Calls")


def test_an_input_that_is_not_an_object_is_laid_out_too() -> None:
    for given, told in (("ls", '"ls"'), (None, "null"), ([1], "[\n  1\n]"), ({}, "{}")):
        assert f"### Calls `bash` `tu_1`\n\n```json\n{told}\n```" in shown(
            content=[{**BASH, "input": given}]
        )


def test_a_result_stands_apart_from_what_the_user_says() -> None:
    text = shown(
        content=[
            {"type": "tool_result", "tool_use_id": "tu_1", "name": "bash", "content": "97%"},
            {"type": "tool_result", "tool_use_id": "tu_2", "content": "", "is_error": True},
            {"type": "text", "text": "And now?"},
        ]
    )
    assert text == (
        "## tool `bash` `tu_1`\n\n```\n97%\n```\n\n"
        "## tool `tu_2` failed\n\n*(empty)*\n\n"
        "## user\n\nAnd now?\n\n"
    )


def test_a_long_result_in_blocks_is_cut_and_its_pictures_are_named() -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    text = shown(
        content=[
            {
                "type": "tool_result",
                "tool_use_id": "tu_2",
                "content": [
                    {"type": "text", "text": "line\n" * 1000},
                    {"type": "image", "source": picture},
                    {"type": "thinking", "thinking": "?"},
                ],
            }
        ]
    )
    assert "left out here" in text
    assert "*[`image` `image/png`, 8 bytes]*\n\n*[`thinking`" in text
    assert "iVBO" not in text


def test_a_result_without_a_name_has_that_of_its_call() -> None:
    entry = {"type": "tool_result", "tool_use_id": "tu_1", "content": "97%"}
    step = classify(json.dumps({"message": {"role": "user", "content": [entry]}}).encode())
    about = markdown.About(tool_name={"tu_1": "bash"}.get)
    assert markdown.entry(step, about).startswith(b"## tool `bash` `tu_1`\n")


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
            "`image` `https://a.b/c.png`",
        ),
        ({"type": "image", "source": None}, "`image`"),
        ({"type": "image", "source": ["iVBO"]}, "`image`"),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "äb"},
            },
            "`document` `text/plain`, 3 bytes",
        ),
        ({"type": "redacted_thinking", "data": "b3BhcXVl"}, "`redacted_thinking` 6 bytes"),
        ({"type": "text", "text": 7}, "`text`"),
    ],
)
def test_blocks_other_than_text_are_named_by_type_media_type_and_size(
    block: dict[str, Any], told: str
) -> None:
    assert shown(content=[block]) == f"## user\n\n*[{told}]*\n\n"


def test_keys_of_the_plain_dialect_may_be_anything_beside_blocks() -> None:
    text = shown(
        content=[{"type": "text", "text": "a"}], name=7, tool_calls="none", reasoning_content=[]
    )
    assert text == "## user\n\na\n\n"


def test_a_heading_tells_the_step_and_when_it_was_stored() -> None:
    step = classify(b'{"message":{"role":"user","content":"a"}}')
    about = markdown.About(12, "2026-04-28 14:03:05")
    assert (
        markdown.entry(step, about) == "## user · step 12 · 2026-04-28 14:03:05\n\na\n\n".encode()
    )
