"""Archivers, copiers and searchers over a mount of a thousand sessions, for root and for others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from tests.support.commands import run
from tests.support.mounted import Mount, mounted, time_limit
from tests.support.people import EVE, Person, own, public_directory
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

SESSIONS = 1000
FILES_OF_ALL = {"README", "SKILL.md", "create"}
PRIVATE = {"sessions.jsonl", "status.json", "errors.jsonl"}
ROOT = Person(0)
SECONDS = 300


def steps_of(number: int) -> list[bytes]:
    steps = [entry("earlier"), compaction(f"crab-{number}")] if number % 3 == 0 else []
    steps += [entry(f"question {number}"), event(), entry(f"answer {number} " + "x" * number)]
    return steps


@pytest.fixture(scope="module")
def thousand() -> Iterator[Mount]:
    """A mount, readable by everybody, of a healthy store with a thousand sessions."""
    with public_directory() as place, time_limit(place, SECONDS):
        store = StoreOnDisk(place / "store")
        for number in range(1, SESSIONS + 1):
            store.session(f"crab_tg-{number % 50}_{number}", *steps_of(number))
        store.path.chmod(0o755)
        with mounted(store.path, place, "allow_other") as mount:
            yield mount


@pytest.fixture
def copies(person: Person) -> Iterator[Path]:
    """A directory in which the person may write."""
    with public_directory() as place:
        own(place, person, 0o755)
        yield place


@pytest.fixture(scope="module")
def wanted(thousand: Mount) -> dict[str, bytes]:
    """The expected contents of each file, from the steps in the store and from `cat`."""
    found = {}
    for number in range(1, SESSIONS + 1):
        slug = f"crab_tg-{number % 50}_{number}"
        steps = steps_of(number)
        kept = steps[2:] if number % 3 == 0 else steps
        said = [step for step in kept if step.startswith(b'{"message"')]
        found[f"{slug}/log.jsonl"] = b"".join(step + b"\n" for step in steps)
        found[f"{slug}/history.jsonl"] = b"".join(step + b"\n" for step in said)
        found[f"{slug}/append"] = b""
        found[f"{slug}/compact"] = f"crab-{number}\n".encode() if number % 3 == 0 else b""
        names = [f"{slug}/{name}" for name in ("messages.jsonl", "history.md", "meta.json")]
        found.update(cat(thousand.path, names))
    found.update(cat(thousand.path, [f".stepfs/{name}" for name in FILES_OF_ALL | PRIVATE]))
    return found


def cat(at: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (at / name).read_bytes() for name in names}


def compare(copy: Path, wanted: dict[str, bytes], person: Person) -> None:
    """The copy must have exactly the files that the person may read, with the same bytes."""
    found = {
        os.path.relpath(os.path.join(directory, name), copy): Path(directory, name)
        for directory, _, names in os.walk(copy)
        for name in names
        if not Path(directory, name).is_symlink()
    }
    expected = dict(wanted)
    if person is not ROOT:
        for name in PRIVATE:
            del expected[f".stepfs/{name}"]
    assert found.keys() == expected.keys()
    status = ".stepfs/status.json"
    wrong = [n for n, p in found.items() if n != status and p.read_bytes() != expected[n]]
    assert wrong == []
    assert len(os.listdir(copy / ".stepfs/latest")) == 50
    if person is ROOT:
        assert found[status].stat().st_size == len(expected[status])
        json.loads(found[status].read_bytes())


COPIES = {
    "tar": "tar c . | tar x -C {copy}",
    "tar -S": "tar cS . | tar x -C {copy}",
    "cp -r": "cp -r . {copy}",
    "rsync -a": "rsync -a ./ {copy}/",
}


OTHERS_TOOLS = [
    pytest.param(EVE, tool, marks=[pytest.mark.soak] if tool in ("tar -S", "cp -r") else [])
    for tool in COPIES
]


@pytest.mark.guarantee("G4b", "G3a")
@pytest.mark.parametrize(
    ("person", "tool"),
    [*((ROOT, tool) for tool in COPIES), *OTHERS_TOOLS],
    ids=[f"{tool} as {who}" for who in ("root", "another") for tool in COPIES],
)
def test_a_copy_is_what_cat_gives(
    thousand: Mount, wanted: dict[str, bytes], person: Person, copies: Path, tool: str
) -> None:
    script = "set -o pipefail; " + COPIES[tool].format(copy=copies)
    done = person.sh(script, at=thousand.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    compare(copies, wanted, person)
    if tool == "rsync -a":
        again = person.sh(f"rsync -ai ./ {copies}/", at=thousand.path)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.guarantee("G4b")
@pytest.mark.parametrize("person", [ROOT, EVE], ids=["root", "another"])
def test_searches_find_everything_and_print_no_error(
    thousand: Mount, wanted: dict[str, bytes], person: Person
) -> None:
    mine = [n for n in wanted if person is ROOT or n not in {f".stepfs/{p}" for p in PRIVATE}]
    hits = sorted(f"./{name}" for name in mine if b"answer 77" in wanted[name])
    assert len(hits) > 10
    for script in ("grep -rl 'answer 77' .", "rg -l --hidden --no-ignore 'answer 77' ."):
        done = person.sh(script, at=thousand.path)
        assert (done.returncode, done.stderr) == (0, ""), script
        assert sorted(done.stdout.splitlines()) == hits, script
    listed = person.sh("find . -ls | wc -l; tar c . | tar t | wc -l", at=thousand.path)
    assert listed.stderr == ""
    entries = len(mine) + 50 + SESSIONS + 3
    assert listed.stdout.split() == [str(entries)] * 2


@pytest.mark.guarantee("G3a")
def test_sizes_told_are_sizes_read(thousand: Mount, wanted: dict[str, bytes]) -> None:
    done = run(["find", str(thousand.path), "-type", "f", "-printf", "%P\\t%s\\t%b\\n"])
    told = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    sizes = {name: f"{len(data)}\t{-(-len(data) // 512)}" for name, data in wanted.items()}
    assert told == sizes
    total = run(["bash", "-c", f"cat {thousand.path}/*/log.jsonl | wc -c"])
    assert int(total.stdout) == sum(len(d) for n, d in wanted.items() if n.endswith("log.jsonl"))


# --- what reading does not do ------------------------------------------------------------------------


@pytest.fixture
def sessions(store: StoreOnDisk) -> list[SessionOnDisk]:
    """Sessions whose files were read before their last change, so that relatime would update atimes."""
    made = [store.session(f"crab_tg-42_{number}", *steps_of(number)) for number in range(1, 6)]
    for path in [*store.path.rglob("*"), store.path]:
        found = path.stat()
        os.utime(path, ns=(found.st_mtime_ns - 10**9, found.st_mtime_ns))
    return made


LISTINGS = (
    "ls",
    "ls -a",
    "ls -R",
    "ls -i1",
    "find .",
    "find . -name history.md",
    "find . -type f",
    "echo */*",
)


@pytest.mark.guarantee("G3b")
def test_a_listing_opens_no_step(
    sessions: list[SessionOnDisk], mount: Callable[..., Mount]
) -> None:
    at = mount().path
    with INotify() as inotify:
        for session in sessions:
            inotify.add_watch(session.path, flags.OPEN | flags.ACCESS)

        def steps_opened() -> list[str]:
            names = [found.name for found in inotify.read(timeout=0)]
            return [name for name in names if name.startswith("step-")]

        for script in LISTINGS:
            done = run(["bash", "-c", f"cd {at} && {script}"])
            assert (done.returncode, done.stderr) == (0, "")
            assert steps_opened() == [], script
        status = json.loads((at / ".stepfs/status.json").read_bytes())
        assert (status["cache"]["text_bytes"], status["operations"].get("open")) == (0, None)
        run(["ls", "-l", str(at / sessions[0].slug)])
        assert set(steps_opened()) >= {"step-000001"}


@pytest.mark.guarantee("G4a")
def test_reading_leaves_no_trace_in_the_store(
    store: StoreOnDisk, sessions: list[SessionOnDisk], mount: Callable[..., Mount]
) -> None:
    files = {path: path.lstat() for session in sessions for path in steps_and_meta(session)}
    directories = [store.path, *(session.path for session in sessions)]
    at = mount("memory=none").path
    # Only now: the start probed the file system in a temporary directory.
    before = files | {path: path.lstat() for path in directories}
    for script in ("ls -lR", "cat */* .stepfs/* || :", "tar c . | cat > /dev/null", "grep -rc x ."):
        assert run(["bash", "-c", f"cd {at} && {script}"]).returncode == 0
    assert {path: path.lstat() for path in before} == before


def steps_and_meta(session: SessionOnDisk) -> list[Path]:
    """The files of a session, found without a listing, which itself would change an atime."""
    steps = [session.path / f"step-{number:06}" for number in range(1, 6)]
    return [session.path / "meta", *(step for step in steps if step.exists())]
