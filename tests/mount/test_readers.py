"""Ordinary programs read mounts of the sample store and of a store that another program wrote."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import pty
import stat
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.demo import demo
from storage.formats.kinds import Kind, NotAStep, classify
from tests.support.commands import until
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

Done = subprocess.CompletedProcess[bytes]
VIEWS = ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl")
CHANGING = ("errors.jsonl", "status.json")


def another_program(store: StoreOnDisk) -> None:
    """A store as others write it: pretty-printed steps, gaps, large steps, no final newlines."""
    store.session("crab_tg-42_1", *(entry(f"message {n} zebra") for n in range(3000)))
    gaps = store.session("otter_cli_7")
    gaps.put(3, b'{\n  "message": {\n    "role": "user",\n    "content": "pretty"\n  }\n}\n')
    gaps.put(900, compaction("archive-1"))
    gaps.put(1_000_000, entry("日本語 🦀 zebra"))
    gaps.put(1_000_001, event())
    gaps.put(1_000_002, entry("x" * 3_000_000, "assistant"))
    store.session("empty_nobody_1")
    store.session("crab_tg-42_2", entry("only"), compaction("all of it"))


STORES: dict[str, Callable[[StoreOnDisk], object]] = {
    "the sample store": lambda store: demo.write(str(store.path)),
    "another program's store": another_program,
}


@dataclass(frozen=True)
class Served:
    """A mount, and the histories of its sessions computed without it."""

    path: Path
    histories: dict[str, list[object]]


@pytest.fixture(scope="module", params=list(STORES))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A mount that is only read; in the end its store must be untouched."""
    directory = tmp_path_factory.mktemp("readers")
    store = StoreOnDisk(directory / "store")
    STORES[request.param](store)
    paths = [store.path, *sorted(store.path.rglob("*"))]
    histories = {path.name: replayed(SessionOnDisk(path)) for path in store.path.iterdir()}
    with mounted(store.path, directory) as mount:
        # Only now: the start probed the file system in a temporary directory.
        for path in paths:
            os.utime(path, ns=(0, path.lstat().st_mtime_ns))
        before = [told(path) for path in paths]
        yield Served(mount.path, histories)
    assert [told(path) for path in paths] == before
    assert [store.path, *sorted(store.path.rglob("*"))] == paths


def told(path: Path) -> tuple[int, ...]:
    """What shows whether a file was touched, including its access time."""
    found = path.lstat()
    times = found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
    return found.st_ino, found.st_size, *times


@pytest.fixture
def at(served: Served) -> Iterator[Path]:
    """The mountpoint of a store that is only read."""
    with time_limit(served.path.parent):
        yield served.path


def run(*command: str | Path, at: Path) -> Done:
    return subprocess.run(
        command,
        cwd=at,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=50,
        check=False,
    )


def output(*command: str | Path, at: Path) -> bytes:
    """The output of a command, which must succeed without errors."""
    done = run(*command, at=at)
    assert (done.returncode, done.stderr) == (0, b""), command
    return done.stdout


def sessions(at: Path) -> list[str]:
    return sorted(name for name in os.listdir(at) if name != ".stepfs")


def views(at: Path) -> list[Path]:
    return [at / slug / view for slug in sessions(at) for view in VIEWS]


def replayed(session: SessionOnDisk) -> list[object]:
    """The history, computed from the step files in a few lines of code."""
    history: list[object] = []
    for number in session.numbers():
        with contextlib.suppress(NotAStep):
            step = classify(session.step(number))
            if step.kind.is_compaction:
                history = []
            elif step.kind is Kind.ENTRY:
                history.append(step.value)
    return history


def longest(at: Path) -> Path:
    """The history with the most lines."""
    return max((at / slug / "history.jsonl" for slug in sessions(at)), key=lines_of)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


@pytest.mark.guarantee("G1c", "G4a")
def test_cat_and_jq_show_every_history(served: Served, at: Path) -> None:
    assert sessions(at) == sorted(served.histories)
    for slug, expected in served.histories.items():
        text = output("cat", f"{slug}/history.jsonl", at=at)
        assert text == (at / slug / "history.jsonl").read_bytes()
        assert [json.loads(line) for line in text.splitlines()] == expected
        roles = output("jq", "-r", ".message.role", f"{slug}/history.jsonl", at=at)
        assert len(roles.splitlines()) == len(expected)
        output("jq", "-c", ".", f"{slug}/log.jsonl", f"{slug}/meta.json", at=at)
    output("jq", "-c", ".", ".stepfs/sessions.jsonl", ".stepfs/status.json", at=at)
    assert len(output("jq", "-r", ".session", ".stepfs/sessions.jsonl", at=at).split()) == len(
        sessions(at)
    )


@pytest.mark.guarantee("G3a")
def test_sizes_are_those_of_what_is_read(at: Path) -> None:
    for path in views(at):
        found = path.stat()
        assert found.st_blocks == -(-found.st_size // 512)
        text = path.read_bytes()
        assert len(text) == found.st_size
        assert output("wc", "-c", path, at=at).split()[0] == b"%d" % len(text)
        assert output("wc", "-l", path, at=at).split()[0] == b"%d" % text.count(b"\n")
        assert output("head", "-n", "2", path, at=at) == b"".join(text.splitlines(True)[:2])
        assert output("head", "-c", "100", path, at=at) == text[:100]
        assert output("tail", "-n", "3", path, at=at) == b"".join(lines(text)[-3:])
        assert output("tail", "-c", "77", path, at=at) == text[-77:]
        assert output("tac", path, at=at) == b"".join(reversed(lines(text)))


def lines(text: bytes) -> list[bytes]:
    return [line + b"\n" for line in text.split(b"\n")[:-1]]


@pytest.mark.guarantee("G3a", "G13d")
def test_mappings_hold_what_is_read(at: Path) -> None:
    for path in views(at):
        if path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as all_:
                assert all_[:] == path.read_bytes()


@pytest.mark.guarantee("G4b")
def test_grep_and_ripgrep_go_through_everything(at: Path) -> None:
    word = "zebra" if b"zebra" in longest(at).read_bytes() else "disk"
    found = output("grep", "-r", "-c", word, ".", at=at)
    hits = {
        line.rpartition(b":")[0].decode(): int(line.rpartition(b":")[2])
        for line in found.splitlines()
    }
    for slug in sessions(at):
        text = (at / slug / "history.jsonl").read_bytes()
        assert hits[f"./{slug}/history.jsonl"] == sum(word.encode() in n for n in lines(text))
    assert sum(hits.values()) > 3
    path = max(hits, key=lambda name: hits[name] * name.endswith("history.jsonl"))
    for how in (["--mmap"], ["--no-mmap"], []):
        assert int(output("rg", *how, "-c", word, path, at=at)) == hits[path]
    assert output("rg", "-l", word, at=at).count(b"\n") > 0
    assert (at / ".stepfs/errors.jsonl").read_bytes() == b""


@pytest.mark.guarantee("G4b", "G3e")
def test_find_du_and_ls_go_through_everything(at: Path) -> None:
    files = output("find", ".", "-type", "f", "-size", "+0", "-printf", "%s %p\\n", at=at)
    assert files.count(b"\n") > len(VIEWS)
    for line in files.decode().splitlines():
        size, _, name = line.partition(" ")
        assert int(size) == len((at / name).read_bytes()) or name.endswith(CHANGING)
    output("ls", "-lRa", "--color=always", "-F", at=at)
    output("du", "-a", at=at)
    links = output("find", ".", "-type", "l", "-printf", "%p %l\\n", at=at)
    targets = [line.split()[1] for line in links.splitlines()]
    assert targets
    assert [target for target in targets if not target.startswith(b"../../")] == []


@pytest.mark.guarantee("G4b", "G3a")
@pytest.mark.parametrize(
    "command",
    [
        "cp -r . COPY",
        "cp -a . COPY",
        "mkdir COPY; tar cf - . | tar xf - -C COPY",
        "mkdir COPY; tar cSf - . | tar xSf - -C COPY",
        "rsync -a ./ COPY/",
    ],
)
def test_copies_of_everything_are_whole(at: Path, tmp_path: Path, command: str) -> None:
    copy = tmp_path / "copy"
    script = "set -o pipefail; " + command.replace("COPY", str(copy))
    output("bash", "-c", script, at=at)
    assert contents(copy) == contents(at)


def contents(top: Path) -> dict[str, bytes]:
    """All files below `top` except those that describe the mount's own activity."""
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = os.fsencode(path.readlink())
        elif path.is_file() and path.name not in CHANGING:
            found[name] = path.read_bytes()
        else:
            found[name] = b""
    return found


@pytest.mark.guarantee("G4b", "G3e")
def test_tar_lists_everything_and_sees_no_file_change(at: Path) -> None:
    listed = output("bash", "-c", "set -o pipefail; tar cf - . | tar tf - | sort", at=at)
    found = output(
        "bash", "-c", "find . -type d -printf '%p/\\n' , -not -type d -print | sort", at=at
    )
    assert listed == found


@pytest.mark.guarantee("G3a")
def test_less_pages_a_history_to_its_end(at: Path) -> None:
    path = longest(at).parent / "history.md"
    last = path.read_text().rstrip().splitlines()[-1][:40]
    with terminal("less", "-X", str(path)) as (process, screen):
        os.write(screen, b"G")
        shown = b""
        while last.encode() not in shown or b"(END)" not in shown:
            shown += os.read(screen, 1 << 16)
        os.write(screen, b"q")
        assert process.wait(10) == 0


@contextmanager
def terminal(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program on its own terminal, and the terminal's other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "TERM": "xterm", "LESS": "", "LESSHISTFILE": "-", "LC_ALL": "C.UTF-8"},
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# --- readers that wait, beside writers ---------------------------------------------------------------


@contextmanager
def following(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A `tail` that follows a file, and the file with its output."""
    printed = path.parents[1].parent / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            ["tail", "-s", "0.05", *options, path],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
    try:
        yield process, printed
    finally:
        process.kill()
        process.wait()


@pytest.mark.guarantee("G12b", "G13a", "G3a")
def test_tail_f_prints_every_step_once_as_it_comes(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount().path / session.slug
    with following(at / "history.jsonl", "-f", "-n", "+1") as (_, printed):
        expected = entry("first") + b"\n"
        for count in range(20):
            until(lambda: printed.read_bytes() == expected)  # noqa: B023
            if count % 2:
                session.add(entry(f"theirs {count}"))
                expected += entry(f"theirs {count}") + b"\n"
            else:
                (at / "append").write_bytes(entry(f"ours {count}") + b"\n")
                expected += entry(f"ours {count}") + b"\n"
        until(lambda: printed.read_bytes() == expected)


@pytest.mark.guarantee("G13b", "G13c")
def test_tail_with_retries_follows_the_name_across_a_compaction(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("crab_tg-42_1", entry("before"))
    at = mount().path / session.slug
    with following(at / "history.jsonl", "-F", "-n", "+1") as (_, printed):
        until(lambda: printed.read_bytes() == entry("before") + b"\n")
        (at / "compact").write_text("archive\n")
        until(lambda: b"has been replaced" in printed.read_bytes())
        (at / "append").write_bytes(entry("after") + b"\n")
        until(lambda: printed.read_bytes().endswith(entry("after") + b"\n"))
        text = printed.read_bytes()
    assert b"truncated" not in text
    assert text.count(entry("before")) == text.count(entry("after")) == 1


@pytest.mark.guarantee("G22a", "G4a")
def test_a_read_only_mount_is_read_and_refuses_every_write(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("crab_tg-42_1", entry("a"), compaction("archive"), entry("b"))
    at = mount("ro").path
    inside = at / session.slug
    before = {path: told(path) for path in (store.path, *store.path.rglob("*"))}
    assert (inside / "history.jsonl").read_bytes() == entry("b") + b"\n"
    assert (inside / "compact").read_text() == "archive\n"
    assert stat.S_ISREG((inside / "append").stat().st_mode)
    refused = 0
    for name in ("append", "compact", "meta.json", "history.jsonl", "../.stepfs/create"):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC):
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(inside / name, flags)
            refused += 1
    changes: list[Callable[[], object]] = [
        lambda: os.mkdir(at / "crab_tg-42_2"),
        lambda: os.rmdir(inside),
        lambda: os.unlink(inside / "append"),
        lambda: os.rename(inside, at / "other_name_1"),
        lambda: os.truncate(inside / "append", 0),
        lambda: os.utime(inside / "append"),
        lambda: os.chmod(inside / "append", 0o600),
        lambda: os.symlink("x", at / "link"),
        lambda: (inside / "new").touch(),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only file system"):
            change()
    assert {path: told(path) for path in before} == before
    session.add(entry("theirs"))
    assert (inside / "history.jsonl").read_bytes() == entry("b") + b"\n" + entry("theirs") + b"\n"
