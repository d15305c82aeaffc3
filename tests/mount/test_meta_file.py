"""People and programs change meta.json, beside other mounts and the daemon."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import run, shell, until
from tests.support.mounted import Mount
from tests.support.stores import META, SessionOnDisk, StoreOnDisk, entry

Mounts = Callable[..., Mount]
NOBODY = 65534


@pytest.fixture
def session(store: StoreOnDisk) -> SessionOnDisk:
    """A session whose meta has keys of all kinds, formatted as no encoder would write them."""
    made = store.session("crab_tg-42_1", entry("hello"))
    (made.path / "meta").write_bytes(
        b'{"agent":"Crab","created_by":"tg:42","created_at":"2026-04-28T00:00:00+00:00",'
        b'"title":"","updated_at":"","message_count":1,"summary":"short",'
        b'"x-own":{"big":12345678901234567890,"text":"\\u00fc","keep":1.50}}'
    )
    return made


WAYS = {
    "echo": """echo '{"title":"Deploy plan"}' > meta.json""",
    "append": """printf '{"title":"Deploy plan"}' >> meta.json""",
    "cp": """echo '{"title":"Deploy plan"}' > $T/new && cp $T/new meta.json""",
    "cp -p": """echo '{"title":"Deploy plan"}' > $T/new && cp -p $T/new meta.json""",
    "dd": """echo '{"title":"Deploy plan"}' | dd of=meta.json bs=3 status=none""",
    "tee": """echo '{"title":"Deploy plan"}' | tee meta.json >$T/out""",
    "sponge": """echo '{"title":"Deploy plan"}' | sponge meta.json""",
    "jq": """jq '.title="Deploy plan"' meta.json | sponge meta.json""",
    "python": """python3 -c 'import json
with open("meta.json", "w") as f: json.dump({"title": "Deploy plan"}, f, indent=2)'""",
    "python r+": """python3 -c 'import json
with open("meta.json", "r+") as f:
    d = json.load(f); d["title"] = "Deploy plan"; f.seek(0); json.dump(d, f); f.truncate()'""",
    "vim": """vim -u NONE -es -c 's/"title":""/"title":"Deploy plan"/' -c 'wq!' meta.json""",
}

WRITING_ALL = ("jq", "python r+", "vim")
"""They write back all that they read, perhaps with numbers in another form; jq has no integers."""


@pytest.mark.guarantee("G10a")
def test_every_tool_changes_a_title_and_nothing_else(
    session: SessionOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    mounted = mount()
    mounted.expected += ["no file can be made here", "nothing can be renamed"]  # tried first
    at = mounted.path / session.slug
    before = (session.path / "meta").read_bytes()
    for name, script in WAYS.items():
        done = shell(at, f"T={tmp_path}; {script}")
        assert (done.returncode, done.stderr) == (0, ""), name
        after = (session.path / "meta").read_bytes()
        wanted = before.replace(b'"title":""', b'"title":"Deploy plan"')
        if name in WRITING_ALL:
            assert json.loads(after, parse_int=float) == json.loads(wanted, parse_int=float), name
        else:
            assert after == wanted, name
        assert json.loads((at / "meta.json").read_text()) == session.meta(), name
        (session.path / "meta").write_bytes(before)
    assert set(os.listdir(session.path)) == {"meta", "step-000001"}


@pytest.mark.guarantee("G10a", "G3a")
def test_meta_json_is_the_meta_on_one_line_and_as_long_as_it_says(
    session: SessionOnDisk, mount: Mounts
) -> None:
    path = mount().path / session.slug / "meta.json"
    shown = path.read_bytes()
    assert shown == (session.path / "meta").read_bytes() + b"\n"
    assert path.stat().st_size == len(shown)
    with path.open("rb") as reading:
        path.write_text('{"title":"longer than it was before"}')
        assert reading.read() == shown
    assert path.stat().st_size == len(path.read_bytes()) > len(shown)


@pytest.mark.guarantee("G10a")
def test_a_patch_is_merged_as_soon_as_it_is_one_object(
    session: SessionOnDisk, mount: Mounts
) -> None:
    path = mount().path / session.slug / "meta.json"
    fd = os.open(path, os.O_WRONLY)
    for part in (b' {"title":"}', b'", "x-own":{"keep":null,"new":[{', b'}]},"summary"'):
        assert os.write(fd, part) == len(part)
        assert session.meta()["title"] == ""
    os.write(fd, b":null }")
    after = session.meta()
    assert after["title"] == "}"
    assert after["x-own"] == {"big": 12345678901234567890, "text": "ü", "new": [{}]}
    assert "summary" not in after
    os.write(fd, b'\n{"title":"once more"}\n')
    assert session.meta()["title"] == "once more"
    os.close(fd)


REFUSED = {
    b"[]": "begins with {",
    b"title": "begins with {",
    b'{"title":"x"} {"a":1}': "nothing may follow the JSON object that ends at byte 13",
    b'{"title":"x",}': "not JSON at byte",
    b'{"title":5}': '"title" must be a string',
    b'{"message_count":-1}': '"message_count" must be',
    b'{"message_count":1.0}': '"message_count" must be',
    b'{"summary":[]}': '"summary" must be a string',
    b'{"agent":null}': 'the meta needs "agent"',
    b'{"created_by":7}': 'the meta needs "created_by"',
    b'{"created_at":"2027-01-01T00:00:00+00:00"}': '"created_at" never changes',
    b'{"title":"x","a":"\xff"}': "UTF-8",
    b'{"title":"\\ud800"}': "",
    b'{"title":"x","a":1e400}': "",
}


@pytest.mark.guarantee("G10b", "G19a")
def test_what_is_no_patch_is_refused_at_the_write_and_changes_nothing(
    session: SessionOnDisk, mount: Mounts
) -> None:
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/meta.json: ")
    path = mounted.path / session.slug / "meta.json"
    before = (session.path / "meta").read_bytes()
    for text, sentence in REFUSED.items():
        fd = os.open(path, os.O_WRONLY)
        with pytest.raises(OSError) as refused:
            os.write(fd, text)
        os.close(fd)
        assert refused.value.errno == errno.EINVAL, text
        assert (session.path / "meta").read_bytes() == before, text
        told = json.loads(mounted.errors()[-1])
        assert (told["session"], told["file"]) == (session.slug, "meta.json")
        assert sentence in told["error"], text
    assert len(mounted.errors()) == len(REFUSED)
    path.write_text('{"title":"the next is taken"}')
    assert session.meta()["title"] == "the next is taken"


@pytest.mark.guarantee("G10b", "G7b")
def test_half_an_object_fails_the_close_and_is_reported(
    session: SessionOnDisk, mount: Mounts
) -> None:
    mounted = mount()
    mounted.expected.append("only the beginning of a JSON object")
    path = mounted.path / session.slug / "meta.json"
    before = (session.path / "meta").read_bytes()
    done = run(["sh", "-c", f"printf '%s' '{{\"title\":' | cat > {path}"])
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr
    until(lambda: len(mounted.errors()) == 1)
    told = json.loads(mounted.errors()[0])
    assert (told["command"], told["operation"], told["errno"]) == ("cat", "release", "EINVAL")
    assert (session.path / "meta").read_bytes() == before


@pytest.mark.guarantee("G10b")
def test_a_broken_meta_is_not_made_worse(session: SessionOnDisk, mount: Mounts) -> None:
    mounted = mount()
    mounted.expected.append("write crab_tg-42_1/meta.json: ")
    (session.path / "meta").write_bytes(b'{"agent":')
    path = mounted.path / session.slug / "meta.json"
    assert path.read_bytes() == b'{"agent":'
    with pytest.raises(OSError, match="Invalid argument"):
        path.write_text('{"title":"x"}')
    assert (session.path / "meta").read_bytes() == b'{"agent":'


CHANGES = 100


def writer(path: Path, key: str) -> subprocess.Popen[bytes]:
    """A process that sets its own key repeatedly, and waits until each change is accepted."""
    script = (
        "import json, sys\n"
        f"for n in range(1, {CHANGES} + 1):\n"
        "    with open(sys.argv[1], 'w') as f: json.dump({sys.argv[2]: n}, f)\n"
    )
    return subprocess.Popen(["python3", "-c", script, path, key])


@pytest.mark.guarantee("G10c")
def test_two_mounts_lose_none_of_each_others_changes(session: SessionOnDisk, mount: Mounts) -> None:
    mounts = [mount(), mount(name="other")]
    paths = [each.path / session.slug / "meta.json" for each in mounts]
    writers = {f"key-{n}": writer(paths[n % 2], f"key-{n}") for n in range(4)}
    paths[0].with_name("append").write_bytes(b"".join(entry("x") + b"\n" for _ in range(50)))
    assert [process.wait(30) for process in writers.values()] == [0] * 4
    until(lambda: session.meta()["message_count"] == 51)
    after = session.meta()
    assert {key: after[key] for key in writers} == dict.fromkeys(writers, CHANGES)
    assert all(json.loads(path.read_bytes()) == after for path in paths)


class Daemon(threading.Thread):
    """Rewrites the meta as the daemon does: reads, changes, writes a temporary, renames it."""

    def __init__(self, session: SessionOnDisk) -> None:
        super().__init__()
        self._meta = session.path / "meta"
        self.written = 0
        self.enough = threading.Event()

    def run(self) -> None:
        aside = self._meta.with_name("meta.tmp.1")
        while not self.enough.is_set():
            meta = json.loads(self._meta.read_bytes())
            self.written += 1
            aside.write_text(json.dumps(meta | {"daemon": self.written}))
            os.rename(aside, self._meta)
            time.sleep(0.002)


@pytest.mark.guarantee("G10c")
def test_what_the_daemon_writes_at_the_same_moment_is_kept(
    session: SessionOnDisk, mount: Mounts
) -> None:
    mounts = [mount(), mount(name="other")]
    daemon = Daemon(session)
    daemon.start()
    try:
        writers = [writer(m.path / session.slug / "meta.json", "title-x") for m in mounts]
        assert [process.wait(30) for process in writers] == [0, 0]
    finally:
        daemon.enough.set()
        daemon.join()
    after = session.meta()
    assert daemon.written > 20
    assert after["daemon"] == daemon.written
    mounts[0].path.joinpath(session.slug, "meta.json").write_text('{"title-x":"last"}')
    assert session.meta()["title-x"] == "last"
    assert set(os.listdir(session.path)) == {"meta", "step-000001"}


@pytest.mark.guarantee("G9a")
def test_the_count_follows_what_is_appended_and_compacted(
    session: SessionOnDisk, mount: Mounts
) -> None:
    at = mount().path / session.slug
    began = time.monotonic()
    (at / "append").write_bytes(entry("a") + b"\n" + entry("b") + b"\n")
    until(lambda: session.meta()["message_count"] == 3, 1.5)
    assert time.monotonic() - began < 1.5
    assert str(session.meta()["updated_at"]).endswith("+00:00")
    (at / "compact").write_text("crab-1\n")
    until(lambda: session.meta()["message_count"] == 1, 1.5)
    (at / "append").write_bytes(entry("c") + b"\n")
    until(lambda: session.meta()["message_count"] == 2, 1.5)


@pytest.mark.guarantee("G9a")
def test_the_count_is_written_within_a_second_of_an_append_that_goes_on(
    session: SessionOnDisk, mount: Mounts
) -> None:
    append = mount().path / session.slug / "append"
    counts = []
    end = time.monotonic() + 2.5
    with append.open("wb", buffering=0) as writing:
        while time.monotonic() < end:
            writing.write(entry("again") + b"\n")
            counts.append((len(session.numbers()), session.meta()["message_count"]))
            time.sleep(0.05)
    told = sorted({count for _, count in counts if isinstance(count, int)})
    assert len(told) >= 3
    assert all(count <= steps for steps, count in counts if isinstance(count, int))


@pytest.mark.guarantee("G9a")
def test_the_count_is_written_at_the_unmount(session: SessionOnDisk, mount: Mounts) -> None:
    mounted = mount()
    (mounted.path / session.slug / "append").write_bytes(entry("a") + b"\n")
    mounted.stop()
    assert session.meta()["message_count"] == 2


@pytest.mark.guarantee("G9b")
def test_the_count_changes_nothing_else_of_the_meta(session: SessionOnDisk, mount: Mounts) -> None:
    meta = session.path / "meta"
    meta.chmod(0o640)
    os.chown(meta, NOBODY, 12345)
    before = meta.read_bytes()
    (mount().path / session.slug / "append").write_bytes(entry("a") + b"\n")
    until(lambda: session.meta()["message_count"] == 2)
    after = meta.read_bytes()
    counted = before.replace(b'"message_count":1', b'"message_count":2')
    updated = json.dumps(session.meta()["updated_at"]).encode()
    assert after == counted.replace(b'"updated_at":""', b'"updated_at":' + updated)
    status = meta.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, NOBODY, 12345)


@pytest.mark.guarantee("G9b", "S4")
def test_a_broken_meta_is_left_alone_by_the_count(store: StoreOnDisk, mount: Mounts) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    broken = json.dumps(META)[:-1].encode()
    (session.path / "meta").write_bytes(broken)
    mounted = mount()
    mounted.expected.append("count crab_tg-42_1/meta.json")
    at = mounted.path / session.slug
    (at / "append").write_bytes(entry("two") + b"\n")
    until(lambda: len(mounted.errors()) == 1)
    assert json.loads(mounted.errors()[0])["operation"] == "count"
    assert (session.path / "meta").read_bytes() == broken
    assert (at / "history.jsonl").read_bytes() == entry("one") + b"\n" + entry("two") + b"\n"
