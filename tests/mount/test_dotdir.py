"""The files of `.stepfs`: latest sessions, all sessions, failures, status, and the README."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import failing, run, shell, stepfs, until
from tests.support.mounted import Mount, mounted
from tests.support.stores import META, StoreOnDisk, entry

Mounts = Callable[..., Mount]


@pytest.mark.guarantee("G12d")
def test_latest_leads_to_the_newest_session_of_each_pair(store: StoreOnDisk, mount: Mounts) -> None:
    for slug in ("crab_tg-42_2", "crab_tg-42_10", "crab_tg-42_9", "scout_tg-42_1", "odd"):
        store.session(slug, entry(f"in {slug}"))
    at = mount().path
    latest = at / ".stepfs/latest"
    told = {name: os.readlink(latest / name) for name in os.listdir(latest)}
    assert told == {"crab_tg-42": "../../crab_tg-42_10", "scout_tg-42": "../../scout_tg-42_1"}
    assert (latest / "crab_tg-42/history.jsonl").read_bytes() == entry("in crab_tg-42_10") + b"\n"
    (at / "crab_tg-42_11").mkdir()
    assert os.readlink(latest / "crab_tg-42") == "../../crab_tg-42_11"
    assert (latest / "crab_tg-42/history.jsonl").read_bytes() == b""
    (at / "crab_tg-42_11").rmdir()
    until(lambda: os.readlink(latest / "crab_tg-42") == "../../crab_tg-42_10", 2)
    store.session("scout_cron_3")
    until(lambda: (latest / "scout_cron").is_dir(), 2)
    (at / "scout_cron_3").rmdir()
    until(lambda: not (latest / "scout_cron").is_symlink(), 2)


@pytest.mark.guarantee("G12d")
def test_sessions_jsonl_has_a_line_per_session_as_of_its_open(
    store: StoreOnDisk, mount: Mounts
) -> None:
    store.session("crab_tg-42_1")
    broken = store.session("crab_tg-42_2")
    (broken.path / "meta").write_text("{")
    (store.path / "no-session").mkdir()
    listing = mount().path / ".stepfs/sessions.jsonl"
    with listing.open("rb") as early:
        (listing.parents[1] / "crab_tg-42_1" / "meta.json").write_text('{"title":"Deploy plan"}')
        (listing.parents[1] / "scout_tg-7_1").mkdir()
        lines = [json.loads(line) for line in listing.read_bytes().splitlines()]
        first = json.loads(early.read().splitlines()[0])
    assert first == {"session": "crab_tg-42_1", **META}
    assert lines[0] == {**first, "title": "Deploy plan"}
    assert lines[1] == {"session": "crab_tg-42_2"}
    assert (lines[2]["session"], lines[2]["agent"]) == ("scout_tg-7_1", "scout")
    assert len(lines) == 3
    assert listing.stat().st_size == len(listing.read_bytes())


@pytest.mark.guarantee("G19a")
def test_errors_jsonl_tells_who_was_refused_what_where_and_why(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1")
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/append: ")
    errors = mounted.path / ".stepfs/errors.jsonl"
    with errors.open("rb", buffering=0) as following:
        assert following.read() == b""
        refused = shell(mounted.path, f"""printf '{{"role":"user", }}\n' > {session.slug}/append""")
        assert "write error: Invalid argument" in refused.stderr
        (line,) = following.readlines()
    told = json.loads(line)
    assert list(told)[:7] == ["time", "pid", "command", "session", "file", "operation", "errno"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told["time"])
    assert isinstance(told["pid"], int)
    assert (told["command"], told["session"], told["file"]) == ("bash", session.slug, "append")
    assert (told["operation"], told["errno"], told["code"]) == ("write", "EINVAL", "not-json")
    assert told["error"].startswith("not JSON at byte 14: ")
    assert '{"message":{"role":"user","content":"…"}}' in told["error"]


@pytest.mark.guarantee("G19a")
def test_errors_jsonl_keeps_the_last_thousand(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1")
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/append: ")
    fd = os.open(mounted.path / session.slug / "append", os.O_WRONLY)
    for number in range(1100):
        with failing(errno.EINVAL):
            os.write(fd, b"%d\n" % number)
    os.close(fd)
    assert len(mounted.errors()) == 1000
    assert (mounted.path / ".stepfs/errors.jsonl").stat().st_size < 1 << 20
    logged = [line for line in mounted.log().splitlines() if "write crab" in line]
    assert 1 <= len(logged) <= 20


@pytest.mark.guarantee("G19a")
def test_a_refusal_in_a_session_of_any_name_is_recorded(store: StoreOnDisk, mount: Mounts) -> None:
    odd = store.session(os.fsdecode(b"cr\xffab\n_x_1"))
    mounted = mount()
    mounted.expected.append("append: not JSON")
    with failing(errno.EINVAL):
        (mounted.path / odd.slug / "append").write_bytes(b"x\n")
    assert json.loads(mounted.errors()[0])["session"] == "cr\\xffab\n_x_1"
    assert len(mounted.log().splitlines()) == 2


@pytest.mark.guarantee("G3e")
def test_status_json_keeps_its_size_and_times_whatever_happens(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    at = mount().path
    path = at / ".stepfs/status.json"
    before, first = path.stat(), path.read_bytes()
    for _ in range(20):
        (at / session.slug / "history.jsonl").read_bytes()
        (at / session.slug / "append").write_bytes(entry("more"))
    after, second = path.stat(), path.read_bytes()
    assert len(first) == len(second) == before.st_size == after.st_size
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    assert first != second
    status = json.loads(second)
    assert status["operations"]["write"] >= 20
    assert status["in_flight"][0].keys() == {"operation", "seconds"}
    assert {"version", "uptime_seconds", "cache", "operations", "failures"} <= status.keys()


@pytest.mark.guarantee("G27c")
def test_status_json_is_there_whatever_the_path_of_the_store(tmp_path: Path) -> None:
    store = StoreOnDisk(tmp_path / os.fsdecode(b"st\xff"))
    with mounted(store.path, tmp_path) as served:
        status = json.loads((served.path / ".stepfs/status.json").read_bytes())
        assert status["store"] == str(tmp_path / "st\\xff")
        assert stepfs("status", served.path).returncode == 0


# --- the README --------------------------------------------------------------------------------------


def commands(guide: str) -> list[str]:
    """The commands in the README: everything indented except its two tables."""
    lines = [line[2:] for line in guide.splitlines() if line.startswith("  ")]
    return [line for line in lines if not re.match(r"(<session>|\.stepfs)/\S+ {2,}", line)]


@pytest.mark.guarantee("G11a")
def test_every_command_of_the_readme_works(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("scout_tg-42_1", entry("let us deploy it"))
    mounted = mount()
    mounted.expected.append("append: not JSON")
    at = mounted.path
    with failing(errno.EINVAL):
        (at / session.slug / "append").write_bytes(b"x\n")
    found = commands((at / ".stepfs/README").read_text())
    assert len(found) >= 15
    assert all(os.access(at / line.split()[0], os.F_OK) for line in tables(at, session.slug))
    script = "\n".join(found).replace("<session>", session.slug)
    script = script.replace("tail -f", "timeout 0.5 tail -f").replace("less", "less -E")
    script = script.replace("cat messages.jsonl", f"cat {session.slug}/messages.jsonl")
    assert "timeout 0.5" in script
    done = run(["bash", "-xc", f"cd '{at}'; trap 'echo FAILED $? $BASH_COMMAND' ERR\n{script}"])
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == [f"FAILED 124 timeout 0.5 tail -f {session.slug}/history.jsonl"], done.stderr
    assert "let us deploy it" in done.stdout
    assert session.meta()["title"] == "Deploy plan"
    assert [json.loads(step).get("archive_name") for step in session.steps()][-1]
    until(lambda: sorted(os.listdir(store.path)) == ["crab_tg-42_1", session.slug])


def tables(at: Path, slug: str) -> list[str]:
    """The lines of the README's tables, which describe a file each."""
    text = (at / ".stepfs/README").read_text().replace("<session>", slug)
    return re.findall(rf"^  ((?:{slug}|\.stepfs)/\S+ {{2,}}.*)$", text, re.MULTILINE)
