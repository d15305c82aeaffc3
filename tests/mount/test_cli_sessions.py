"""`stepfs ls`, `new`, `append`, `show`: the same on a mount and on the bare store."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.exits import Exit
from tests.support.commands import SECONDS, STEPFS, Answer, environment, stepfs
from tests.support.mounted import Mount
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event
from tests.support.terminals import command_on_terminal, on_terminal, without_colours

DAY = 86400
NO_TEXT = os.fsdecode(b"sc\xffout_1")


@pytest.fixture
def sessions(store: StoreOnDisk) -> StoreOnDisk:
    """Three sessions: the second has a compaction, the third was changed last."""
    store.session("crab_tg-42_1", entry("the disk is full"), entry("which one?", "assistant"))
    store.session("crab_tg-42_2", entry("hidden"), compaction("monday"), entry("shown"), event())
    store.session("scout_cron_1", entry("report"))
    set_meta(store, "crab_tg-42_1", title="Disk almost full", message_count=2)
    set_meta(store, "scout_cron_1", agent="Scout", created_by="cron", title="Nightly report")
    for age, slug in enumerate(("scout_cron_1", "crab_tg-42_2", "crab_tg-42_1")):
        changed = 1_770_000_000 - age * DAY
        os.utime(store.path / slug, (changed, changed))
    return store


@pytest.fixture(params=["store", "mount"])
def root(
    request: pytest.FixtureRequest, sessions: StoreOnDisk, mount: Callable[..., Mount]
) -> Path:
    """The store of `sessions`, or a mount of it."""
    if request.param == "store":
        return sessions.path
    live = mount()
    live.expected = ["not an entry"]
    return live.path


def set_meta(store: StoreOnDisk, slug: str, **changed: object) -> None:
    path = store.path / slug / "meta"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def with_input(given: bytes, *arguments: str | Path) -> Answer:
    return subprocess.run(
        [*STEPFS, *map(str, arguments)],
        env=environment(),
        input=given.decode("latin-1"),
        encoding="latin-1",
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def listed(*arguments: str | Path) -> list[str]:
    """The names that `stepfs ls` prints."""
    answer = stepfs("ls", *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    return [line.split("\t")[0] for line in answer.stdout.splitlines()]


def test_the_sessions_are_listed_last_changed_first(root: Path) -> None:
    lines = stepfs("ls", root).stdout.splitlines()
    assert lines[0].startswith("scout_cron_1\tScout\tcron\t0\t2026-02-02 ")
    assert lines[0].endswith("\tNightly report")
    assert [line.split("\t")[0] for line in lines[1:]] == ["crab_tg-42_2", "crab_tg-42_1"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--agent", "crab"], ["crab_tg-42_2", "crab_tg-42_1"]),
        (["--created-by", "cron"], ["scout_cron_1"]),
        (["--match", "*DISK*"], ["crab_tg-42_1"]),
        (["--match", "crab_*"], ["crab_tg-42_2", "crab_tg-42_1"]),
        (["--since", "2026-02-01T01:00:00+00:00"], ["scout_cron_1", "crab_tg-42_2"]),
        (["--until", "2026-02-01T01:00:00+00:00"], ["crab_tg-42_1"]),
        (["--sort", "session"], ["crab_tg-42_1", "crab_tg-42_2", "scout_cron_1"]),
        (["--sort", "messages", "-n", "1"], ["crab_tg-42_1"]),
        (["-r", "-n", "1"], ["crab_tg-42_1"]),
    ],
)
def test_a_list_is_filtered_and_sorted(
    sessions: StoreOnDisk, options: list[str], wanted: list[str]
) -> None:
    assert listed(*options, sessions.path) == wanted


def test_a_list_as_json_holds_the_metas(root: Path) -> None:
    answer = stepfs("ls", "--json", "--sort", "session", root)
    first = json.loads(answer.stdout.splitlines()[0])
    assert first["session"] == "crab_tg-42_1"
    assert first["title"] == "Disk almost full"
    assert first["changed_at"] == "2026-01-31T02:40:00.000+00:00"


def test_a_session_with_a_broken_meta_is_listed(root: Path, sessions: StoreOnDisk) -> None:
    (sessions.path / "crab_tg-42_1" / "meta").write_text("{")
    assert set(listed(root)) == {"crab_tg-42_1", "crab_tg-42_2", "scout_cron_1"}


def test_a_session_whose_name_is_no_text_is_listed_and_read(
    root: Path, sessions: StoreOnDisk
) -> None:
    os.rename(sessions.path / "scout_cron_1", sessions.path / NO_TEXT)
    assert listed("--sort", "title", root) == ["crab_tg-42_2", "crab_tg-42_1", "sc\ufffdout_1"]
    lines = stepfs("ls", "--json", "--match", "*out_1", root).stdout.splitlines()
    assert [json.loads(line)["session"] for line in lines] == ["sc\\xffout_1"]
    added = stepfs("append", "--json", root / NO_TEXT, "more")
    assert json.loads(added.stdout) == {"session": "sc\\xffout_1", "stored": 1}
    assert "more" in stepfs("show", root / NO_TEXT).stdout


@pytest.mark.parametrize("option", ["--from", "--agent", "--created-by", "--title"])
def test_a_new_session_takes_only_text(option: str, root: Path, sessions: StoreOnDisk) -> None:
    os.rename(sessions.path / "scout_cron_1", sessions.path / NO_TEXT)
    answer = stepfs("new", root, option, NO_TEXT)
    assert (answer.stdout, answer.returncode) == ("", Exit.USAGE)
    assert f"{option} sc\\xffout_1 is not UTF-8" in answer.stderr
    assert len(listed(root)) == 3


def test_without_a_path_the_current_directory_counts(root: Path) -> None:
    for place in (root, root / "crab_tg-42_1"):
        code = f"cd '{place}' && exec \"$@\""
        answer = subprocess.run(
            ["sh", "-c", code, "sh", *STEPFS, "ls"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert answer.stdout.count("\n") == (3 if place == root else 1)


def test_a_table_is_drawn_on_a_terminal_and_coloured_as_it_may_be(sessions: StoreOnDisk) -> None:
    shown = on_terminal("ls", sessions.path)
    assert "\x1b[36m" in shown
    lines = without_colours(shown).splitlines()
    assert lines[0].split() == ["session", "agent", "from", "messages", "changed", "title"]
    assert lines[1].split()[:4] == ["scout_cron_1", "Scout", "cron", "0"]
    plain = on_terminal("ls", sessions.path, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "scout_cron_1" in plain


def test_nothing_in_a_title_steers_the_terminal(sessions: StoreOnDisk) -> None:
    set_meta(sessions, "scout_cron_1", title="\x1b]0;owned\x07\n[bold]x")
    for shown in (on_terminal("ls", sessions.path), stepfs("ls", sessions.path).stdout):
        assert "␛]0;owned␇␊[bold]x" in shown


def test_a_new_session_is_made_and_named(root: Path, sessions: StoreOnDisk) -> None:
    made = stepfs("new", root, "--agent", "Crab", "--created-by", "tg:42", "--title", "Fresh")
    assert (made.stdout, made.stderr, made.returncode) == ("crab_tg-42_3\n", "", 0)
    meta = json.loads((sessions.path / "crab_tg-42_3" / "meta").read_text())
    assert (meta["agent"], meta["created_by"], meta["title"]) == ("Crab", "tg:42", "Fresh")
    as_json = stepfs("new", root, "--created-by", "me", "--json")
    assert json.loads(as_json.stdout) == {"session": "crab_me_1"}


@pytest.mark.guarantee("G5a")
def test_texts_and_json_are_appended(root: Path, sessions: StoreOnDisk) -> None:
    session = root / "scout_cron_1"
    assert stepfs("append", session, "one\ntwo", '{"role":"tool","content":"x"}').returncode == 0
    assert stepfs("append", session, "--role", "assistant", '{"role":"tool"}').returncode == 0
    stored = [json.loads(step) for step in made(sessions, "scout_cron_1").steps()[1:]]
    assert [step["message"]["role"] for step in stored] == ["user", "tool", "assistant"]
    assert stored[0]["message"]["content"] == "one\ntwo"
    assert stored[2]["message"]["content"] == '{"role":"tool"}'


def test_standard_input_is_lines_of_json_or_one_text(root: Path, sessions: StoreOnDisk) -> None:
    session = root / "scout_cron_1"
    two = b'{"role":"user","content":"a"}\n\n{"event":"user_steered","content":"b","ts":"t"}\n'
    answer = with_input(two, "append", session, "--json")
    assert json.loads(answer.stdout) == {"session": "scout_cron_1", "stored": 2}
    assert with_input("[1]\nzwölf\n".encode(), "append", session).returncode == 0
    steps = made(sessions, "scout_cron_1").steps()
    assert len(steps) == 4
    assert json.loads(steps[3])["message"]["content"] == "[1]\nzwölf"
    for nothing in (b"", b" \n"):
        assert with_input(nothing, "append", session).returncode == Exit.USAGE
    assert with_input(b"\xff", "append", session).returncode == Exit.USAGE


def test_what_is_appended_to_a_store_is_counted_in_its_meta(sessions: StoreOnDisk) -> None:
    session = sessions.path / "crab_tg-42_1"
    lines = "".join(f'{{"role":"user","content":"{n}"}}\n' for n in range(20))
    assert with_input(lines.encode(), "append", session).returncode == 0
    assert made(sessions, "crab_tg-42_1").meta()["message_count"] == 22
    assert made(sessions, "crab_tg-42_1").numbers() == list(range(1, 23))


def test_what_is_no_step_is_refused_with_its_sentence(root: Path, sessions: StoreOnDisk) -> None:
    answer = stepfs("append", root / "scout_cron_1", '{"message":{"role":7}}')
    assert answer.returncode == Exit.FAILED
    assert "message.role must be a string" in answer.stderr
    assert made(sessions, "scout_cron_1").numbers() == [1]


def test_a_history_is_shown_as_markdown_and_as_json(root: Path) -> None:
    answer = stepfs("show", root / "crab_tg-42_2")
    assert "shown" in answer.stdout
    assert "monday" in answer.stdout
    assert "hidden" not in answer.stdout
    if root.name == "mnt":
        assert answer.stdout == (root / "crab_tg-42_2/history.md").read_text()
    lines = stepfs("show", root / "crab_tg-42_2", "--json").stdout.splitlines()
    assert lines == ['{"message":{"role":"user","content":"shown"}}']


def test_a_history_is_drawn_on_a_terminal_and_paged(root: Path) -> None:
    session = root / "crab_tg-42_1"
    text = "**bold**\nnext <b>html</b> \x1b[2J"
    assert stepfs("append", session, text).returncode == 0
    shown = on_terminal("show", session, PAGER="sed s/^/paged:/")
    assert "\x1b[1mbold\x1b[0m" in shown
    lines = [line.rstrip() for line in without_colours(shown).splitlines()]
    assert "paged:bold" in lines
    assert "paged:next <b>html</b> ␛[2J" in lines
    assert "paged:the disk is full" in lines
    assert "\x1b[1m" not in on_terminal("show", session, NO_COLOR="1", TERM="dumb")


def test_a_terminal_is_told_title_and_last_change_before_the_history(root: Path) -> None:
    session = root / "crab_tg-42_1"
    shown = without_colours(on_terminal("show", session, PAGER="cat"))
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert lines[:3] == ["Disk almost full", "Last changed 2026-01-31 02:40:00.", "crab_tg-42_1"]


@pytest.mark.parametrize("command", ["show", "append"])
def test_a_store_is_no_session(command: str, root: Path) -> None:
    words = ["x"] if command == "append" else []
    answer = stepfs(command, root, *words)
    assert answer.returncode == Exit.NOT_STEPFS
    assert "give a session in it" in answer.stderr


def test_a_session_that_is_not_there_is_told_so(root: Path) -> None:
    answer = stepfs("show", root / "crab_tg-42_9")
    assert answer.returncode in (Exit.NOT_STEPFS, Exit.STORE)
    assert "crab_tg-42_9" in answer.stderr


def test_a_refusal_is_read_in_the_errors_of_the_mount(mount: Callable[..., Mount]) -> None:
    place = mount()
    place.expected = ["not JSON"]
    slug = stepfs("new", place.path, "--created-by", "x").stdout.strip()
    append = place.path / slug / "append"
    with pytest.raises(OSError, match="Invalid argument"):
        append.write_text("nonsense\n")
    said = stepfs("errors", place.path / slug)
    assert said.stdout.split("\t")[1:3] == [f"write {slug}/append", "EINVAL"]
    assert "not JSON at byte" in said.stdout
    line = json.loads(stepfs("errors", place.path, "--json", "-n", "1").stdout)
    assert line == json.loads(place.errors()[-1])
    shown = without_colours(on_terminal("errors", place.path))
    assert shown.split()[:5] == ["time", "where", "errno", "times", "why"]


def test_the_errors_of_a_mount_are_followed(mount: Callable[..., Mount]) -> None:
    place = mount()
    place.expected = ["not JSON"]
    slug = stepfs("new", place.path, "--created-by", "x").stdout.strip()
    follower = subprocess.Popen(
        [*STEPFS, "errors", "-f", "--json", str(place.path)],
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert follower.stdout is not None
        with pytest.raises(OSError, match="Invalid argument"):
            (place.path / slug / "append").write_text("nonsense\n")
        assert json.loads(follower.stdout.readline())["session"] == slug
        place.stop()
        assert follower.wait(SECONDS) == Exit.NOT_STEPFS
    finally:
        follower.kill()
        follower.communicate()


@pytest.mark.usefixtures("sessions")
def test_followed_errors_have_one_heading_on_a_terminal_and_end_with_ctrl_c(
    mount: Callable[..., Mount],
) -> None:
    place = mount()
    place.expected.append("append")
    script = """
        STEPFS errors -f "$MNT" & follower=$!
        sleep 1.5
        for text in '{"message":1}' '{"message":2}'; do
            STEPFS append "$MNT/crab_tg-42_1" "$text" 2>/dev/null
            sleep 1
        done
        kill -INT $follower; wait $follower; echo "it ended with $?"
    """
    script = script.replace("STEPFS", shlex.join(STEPFS))
    shown = without_colours(command_on_terminal(["bash", "-mc", script], MNT=str(place.path)))
    assert shown.count("where") == 1
    assert len(re.findall("write crab_tg-42_1/append", shown)) == 2
    assert "it ended with 0" in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ls", "-n", "-1"], "'-1' is not a count"),
        (["errors", "-n", "few"], "'few' is not a count"),
        (["new", "--from", "crab_tg-42_1", "--at", "-2"], "'-2' is not a count"),
        (["append", "{crab_tg-42_1}", "ok", " "], "a text is empty: nothing was appended"),
    ],
)
def test_what_is_no_count_and_no_text_is_refused(
    words: list[str], sentence: str, root: Path, sessions: StoreOnDisk
) -> None:
    in_place = [str(root / word[1:-1]) if word[0] == "{" else word for word in words]
    answer = stepfs(*in_place, *([] if words[0] == "append" else [str(root)]))
    assert (answer.returncode, answer.stdout) == (Exit.USAGE, "")
    assert sentence in answer.stderr
    assert len(os.listdir(sessions.path / "crab_tg-42_1")) == 3
    assert stepfs("ls", "-n", "0", root).stdout == ""


def test_a_store_keeps_no_errors(sessions: StoreOnDisk) -> None:
    answer = stepfs("errors", sessions.path)
    assert answer.returncode == Exit.NOT_STEPFS
    assert "only a mount keeps errors" in answer.stderr


def made(store: StoreOnDisk, slug: str) -> SessionOnDisk:
    return SessionOnDisk(store.path / slug)


@pytest.mark.guarantee("G30c")
def test_a_fork_is_made_of_a_session_up_to_a_step(root: Path) -> None:
    slug = stepfs("new", root, "--from", "crab_tg-42_1", "--at", "1").stdout.strip()
    assert slug == "crab_tg-42_3"
    assert (
        stepfs("show", "--json", root / slug).stdout.encode() == entry("the disk is full") + b"\n"
    )
    whole = stepfs("new", root, "--from", "crab_tg-42_1", "--created-by", "cron").stdout.strip()
    assert whole == "crab_cron_1"
    assert stepfs("show", "--json", root / whole).stdout.count("\n") == 2
    answer = stepfs("new", root, "--at", "1")
    assert (answer.returncode, "--from" in answer.stderr) == (Exit.USAGE, True)
