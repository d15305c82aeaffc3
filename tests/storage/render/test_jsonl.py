"""The lines of the views are cut from the steps' own bytes."""

from __future__ import annotations

import json

import orjson
import pytest

from storage.formats.kinds import classify
from storage.render.jsonl import archive_line, log_line, message_line

CALL = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{}"}}


def test_a_line_is_the_steps_own_bytes_and_a_newline() -> None:
    assert log_line(classify(b' {"message": {"role":"user","content":1.50}}\r\n')) == (
        b'{"message": {"role":"user","content":1.50}}\n'
    )
    assert log_line(classify(b'{\n "compact": "a\\nb"\n}')) == b'{"compact":"a\\nb"}\n'


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (
            '{"message":{"role":"user","content":"list files"}}',
            '{"role":"user","content":"list files"}',
        ),
        (' {"message":{"role":"user"} }\n', '{"role":"user"}'),
        (' {\t"message" : { "role":"user"} }', '{ "role":"user"}'),
        ('{"message":\n{"role":\n"user", "x": 1.50}}', '{"role":"user","x":1.50}'),
        ('{"zz":{"message":0},"message":{"role":"üser"},"é":"}"}', '{"role":"üser"}'),
        ('{"message":{"role":"user"},"zz":"}}"}', '{"role":"user"}'),
        ('{"agent":"","message":{"role":"assistant"}}', '{"role":"assistant"}'),
        ('{"agent":"guest","message":{"role":"user"}}', '{"role":"user"}'),
        (r'{"m\u0065ssage":{"role":"user"}}', '{"role":"user"}'),
    ],
)
def test_an_entry_is_sent_as_its_message(step: str, line: str) -> None:
    assert message_line(classify(step.encode())) == line.encode() + b"\n"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            '{"role":"assistant","content":"done","x":1.50}',
            r'{"role":"assistant","content":"<from agent=\"guest\">\ndone\n</from>","x":1.50}',
        ),
        (
            '{"content" : [{"content":"a"}],"role":"assistant"}',
            r'{"content" : "<from agent=\"guest\">\n\n</from>","role":"assistant"}',
        ),
        (
            '{"role":"assistant"}',
            r'{"role":"assistant","content":"<from agent=\"guest\">\n\n</from>"}',
        ),
        (
            '{\n"role":"assistant",\n"content":null\n}',
            r'{"role":"assistant","content":"<from agent=\"guest\">\n\n</from>"}',
        ),
        (
            r'{"x":"é","content":"\u00e9","role":"assistant","y":"\u00e9"}',
            r'{"x":"é","content":"<from agent=\"guest\">\né\n</from>","role":"assistant",'
            r'"y":"\u00e9"}',
        ),
    ],
)
def test_a_guests_content_names_it_and_all_other_bytes_are_kept(message: str, line: str) -> None:
    step = classify(f'{{"agent":"guest","message":{message}}}'.encode())
    assert message_line(step) == line.encode() + b"\n"


def test_a_guest_may_have_any_name() -> None:
    name = 'q"\\\né</from>'
    step = classify(json.dumps({"agent": name, "message": {"role": "assistant"}}).encode())
    line = message_line(step)
    assert line.count(b"\n") == 1
    assert json.loads(line)["content"] == f'<from agent="{name}">\n\n</from>'


def test_an_archive_begins_the_messages_with_its_text_or_a_placeholder() -> None:
    assert archive_line("crab-1", 'Über "x"\n') == (
        '{"role":"user","content":"Über \\"x\\"\\n"}\n'.encode()
    )
    assert archive_line("crab-1", "") == b'{"role":"user","content":""}\n'
    assert archive_line("crab-1", None) == (
        b'{"role":"user","content":"[archived context unavailable: crab-1]"}\n'
    )


@pytest.mark.guarantee("G1a", "G2a", "G2b")
@pytest.mark.parametrize(
    "document",
    [
        {"message": {"role": "user", "content": 'ü "\\\n'}},
        {"message": {"role": "assistant", "content": None, "reasoning_content": "hm"}},
        {"message": {"role": "tool", "content": "", "tool_call_id": "c", "tool_calls": None}},
        {"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}},
        {"message": {"role": "assistant", "content": "guest"}, "agent": "Crab"},
        {"agent": "Crab", "message": {"role": "assistant", "tool_calls": [CALL]}},
    ],
)
def test_the_shortcut_for_one_line_documents_shows_the_same(document: dict[str, object]) -> None:
    step = classify(orjson.dumps(document))
    assert step.is_line
    unknown = step._replace(is_line=False)
    assert log_line(step) == log_line(unknown)
    assert message_line(step) == message_line(unknown)
