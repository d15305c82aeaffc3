"""The modes and owners of the store decide who may do what; with real users."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import STEPFS, is_mounted, serving, until
from tests.support.mounted import Mount, time_limit
from tests.support.people import ANA, BEN, EVE, NOBODY, Person, own, public_directory, session_of
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

Mounts = Callable[..., Mount]
TEAM = 61500
DENIED = "Permission denied"
READABLE = ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl", "compact", "meta.json")
WRITES = (
    'echo \'{"role":"user","content":"hi"}\' > append',
    "echo crab-9 > compact",
    'echo \'{"title":"x"}\' > meta.json',
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with public_directory() as place:
        yield place


def may(person: Person, script: str, at: Path) -> bool:
    """Whether the person can do that; if not, the reason must be a lack of permission."""
    done = person.sh(f"cd '{at}' && {{ {script}; }}")
    assert done.returncode == 0 or DENIED in done.stderr, done
    return done.returncode == 0


def read(person: Person, at: Path) -> list[str]:
    return [name for name in READABLE if may(person, f"cat {name}", at)]


def written(person: Person, at: Path) -> list[str]:
    return [script for script in WRITES if may(person, script, at)]


@pytest.mark.guarantee("G21a")
def test_a_private_session_is_its_owners_alone(store: StoreOnDisk, mount: Mounts) -> None:
    own(store.path, ANA, 0o755)
    session = session_of(store, ANA, 0o700, 0o600)
    at = mount("allow_other").path / session.slug
    assert not may(EVE, "ls", at)
    assert EVE.sh(f"cat {at}/history.jsonl").returncode == 1
    assert EVE.sh(f"echo {{}} > {at}/append").returncode == 1
    assert len(session.numbers()) == 3
    assert read(ANA, at) == list(READABLE)
    assert written(ANA, at) == list(WRITES)
    assert "a secret" in ANA.sh(f"cat {at}/log.jsonl").stdout
    assert json.loads(session.steps()[-1])["archive_name"] == "crab-9"


@pytest.mark.guarantee("G21a")
def test_a_store_that_only_its_owner_may_enter_is_closed_to_others(
    store: StoreOnDisk, mount: Mounts
) -> None:
    own(store.path, ANA, 0o700)
    session = session_of(store, ANA, 0o755, 0o644)
    at = mount("allow_other").path
    assert not may(EVE, "ls", at)
    assert not may(EVE, f"cat {session.slug}/history.jsonl", at)
    assert may(ANA, f"cat {session.slug}/history.jsonl", at)


@pytest.mark.guarantee("G21a")
@pytest.mark.parametrize(
    ("directory", "meta", "reads", "writes"),
    [
        (0o755, 0o644, READABLE, ()),
        (0o755, 0o600, (), ()),
        (0o777, 0o600, (), WRITES),
        (0o777, 0o644, READABLE, WRITES),
        (0o711, 0o644, READABLE, ()),
        (0o744, 0o644, (), ()),
        (0o776, 0o644, (), ()),
    ],
)
def test_reading_goes_by_the_meta_and_writing_by_the_directory(
    store: StoreOnDisk,
    mount: Mounts,
    directory: int,
    meta: int,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
) -> None:
    session = session_of(store, ANA, directory, meta)
    at = mount("allow_other").path / session.slug
    assert tuple(name for name in READABLE if may(EVE, f"cat {at}/{name}", Path("/"))) == reads
    done = tuple(s for s in WRITES if EVE.sh(s.replace("> ", f"> {at}/")).returncode == 0)
    assert done == writes
    assert read(ANA, at) == list(READABLE)


@pytest.mark.guarantee("G21a")
def test_a_group_counts_also_as_one_of_many(store: StoreOnDisk, mount: Mounts) -> None:
    session = session_of(store, ANA, 0o770, 0o640)
    kept = session_of(store, ANA, 0o750, 0o640, "crab_tg-42_2")
    for path in (session.path, session.path / "meta", kept.path, store.path):
        os.chown(path, ANA.number, TEAM)
    store.path.chmod(0o775)
    mounted = mount("allow_other")
    mounted.expected.append("is not yours to delete")
    at = mounted.path
    member = Person(BEN.number, (TEAM - 1, TEAM, TEAM + 1))
    assert not may(BEN, "ls", at / session.slug)
    assert read(member, at / session.slug) == list(READABLE)
    assert written(member, at / session.slug) == list(WRITES)
    assert not may(member, f"rmdir {kept.slug}", at)
    assert not may(BEN, f"rmdir {session.slug}", at)
    assert may(member, f"rmdir {session.slug}", at)
    until(lambda: os.listdir(store.path) == [kept.slug])
    told = json.loads(mounted.errors()[-1])
    assert (told["command"], told["errno"], told["session"]) == ("rmdir", "EACCES", kept.slug)


@pytest.mark.guarantee("G21b", "G21a")
def test_new_steps_have_the_mode_of_the_meta_and_the_owner_of_the_directory(
    store: StoreOnDisk, mount: Mounts
) -> None:
    session = session_of(store, ANA, 0o2777, 0o640)
    os.chown(session.path, ANA.number, TEAM)
    at = mount("allow_other").path / session.slug
    shown = at.stat()
    assert (shown.st_uid, shown.st_gid, shown.st_mode & 0o777) == (ANA.number, TEAM, 0o777)
    assert (at / "history.jsonl").stat().st_uid == ANA.number
    assert EVE.sh(WRITES[0], at).returncode == 0
    assert EVE.sh(WRITES[1], at).returncode == 0
    for number in (4, 5):
        status = (session.path / f"step-{number:06}").stat()
        assert (status.st_uid, status.st_gid) == (ANA.number, TEAM)
        assert status.st_mode & 0o7777 == 0o640


@pytest.mark.guarantee("G21b", "G11c")
def test_new_sessions_are_the_store_owners(store: StoreOnDisk, mount: Mounts) -> None:
    own(store.path, ANA, 0o755)
    at = mount("allow_other").path
    made = ANA.sh(
        "mkdir crab_tg-42_7; exec 3<>.stepfs/create;"
        ' echo \'{"agent":"Crab","created_by":"x"}\' >&3; cat <&3',
        at,
    )
    assert (made.stdout, made.stderr) == ("crab_x_1\n", "")
    assert not may(EVE, "mkdir crab_tg-42_8", at)
    assert not may(EVE, "exec 3<>.stepfs/create", at)
    assert sorted(os.listdir(store.path)) == ["crab_tg-42_7", "crab_x_1"]
    for path in store.path.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (ANA.number, ANA.number)
    assert written(ANA, at / "crab_x_1") == list(WRITES)
    assert may(ANA, "rmdir crab_x_1", at)


@pytest.mark.guarantee("G21c")
def test_what_tells_of_all_sessions_is_the_mounting_users_alone(
    store: StoreOnDisk, mount: Mounts
) -> None:
    own(store.path, ANA, 0o755)
    session_of(store, ANA, 0o700, 0o600)
    at = mount("allow_other").path / ".stepfs"
    private = ["errors.jsonl", "sessions.jsonl", "status.json"]
    for name in private:
        status = (at / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (0, 0o400)
        assert not may(ANA, f"cat {name}", at)
    assert ANA.run("ls", at=at).stdout.split() == ["README", "SKILL.md", "create", "latest"]
    assert sorted(os.listdir(at)) == sorted(["README", "SKILL.md", "create", "latest", *private])
    assert may(EVE, "cat README && readlink latest/crab_tg-42", at)
    told = EVE.run("grep", "-r", "secret", ".", at=at)
    assert (told.returncode, told.stderr) == (1, "")


@pytest.mark.guarantee("G21a")
def test_options_change_what_is_shown(store: StoreOnDisk, mount: Mounts) -> None:
    own(store.path, ANA, 0o755)
    session = session_of(store, ANA, 0o755, 0o644)
    at = mount("allow_other", f"uid={BEN.number},gid={TEAM},umask=027").path
    for path, mode in ((at, 0o750), (at / session.slug, 0o750)):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (BEN.number, TEAM)
        assert status.st_mode & 0o777 == mode
    inside = at / session.slug
    modes = {name: (inside / name).stat().st_mode & 0o777 for name in os.listdir(inside)}
    assert modes["history.jsonl"] == modes["log.jsonl"] == 0o440
    assert modes["append"] == modes["compact"] == modes["meta.json"] == 0o640
    assert read(BEN, inside) == list(READABLE)
    assert written(BEN, inside) == list(WRITES)
    assert not may(EVE, "ls", at)
    assert (session.path / "step-000004").stat().st_uid == ANA.number


@pytest.mark.guarantee("G21a")
def test_without_allow_other_the_mount_is_the_mounting_users_alone(
    store: StoreOnDisk, mount: Mounts
) -> None:
    store.path.chmod(0o777)
    session_of(store, ANA, 0o777, 0o666)
    at = mount().path
    for person in (ANA, EVE):
        assert not may(person, "ls", at)


@pytest.mark.guarantee("G31b", "G21a")
def test_a_summary_is_stored_only_by_who_may_make_files_in_the_memory(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    own(store.path, ANA, 0o755)
    session = session_of(store, ANA, 0o777, 0o644)
    archives = tmp_path / "memory" / "archives"
    archives.mkdir(parents=True)
    for path in (archives.parent, archives):
        own(path, ANA, 0o755)
    mounted = mount("allow_other")
    mounted.expected.append("you may not store summaries in")
    line = """echo '{"archive_name":"plan","summary":"Plan B."}' > compact"""
    assert not may(EVE, line, mounted.path / session.slug)
    assert (len(session.numbers()), os.listdir(archives)) == (3, [])
    assert may(EVE, "echo by-name > compact", mounted.path / session.slug)
    assert may(ANA, line, mounted.path / session.slug)
    stored = (archives / "plan.md").stat()
    assert (stored.st_uid, stored.st_mode & 0o777) == (archives.stat().st_uid, 0o644)


# --- a user's own mount ------------------------------------------------------------------------------


@contextmanager
def mounted_by(person: Person, store: Path, place: Path) -> Iterator[Path]:
    """A mount by a user who is not root."""
    if person.run(sys.executable, "-c", "import fusefs.cli.main").returncode:
        pytest.skip("another user cannot read this checkout or its Python")
    path = place / "theirs"
    path.mkdir()
    own(path, person)
    with time_limit(place):
        started = person.run(*STEPFS, "mount", store, path)
        assert (started.returncode, started.stderr) == (0, "")
        try:
            yield path
        finally:
            ended = person.run("fusermount3", "-u", path)
        assert (ended.returncode, ended.stderr) == (0, "")
        until(lambda: not is_mounted(path) and not serving(place))


@pytest.mark.guarantee("G21a", "G21b", "G21c")
def test_a_user_mounts_a_store_of_their_own(store: StoreOnDisk, tmp_path: Path) -> None:
    own(store.path, NOBODY, 0o700)
    session = session_of(store, NOBODY, 0o700, 0o600)
    with mounted_by(NOBODY, store.path, tmp_path) as path:
        at = path / session.slug
        assert read(NOBODY, at) == list(READABLE)
        assert written(NOBODY, at) == list(WRITES)
        assert may(NOBODY, "cat status.json errors.jsonl sessions.jsonl", path / ".stepfs")
        assert may(NOBODY, "mkdir crab_x_1 && rmdir crab_x_1", path)
        assert not may(EVE, "ls", path)
        with pytest.raises(PermissionError):
            os.listdir(path)
    status = (session.path / "step-000004").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (NOBODY.number, 0o600)


@pytest.mark.guarantee("G21a", "G4b")
def test_a_session_that_the_mounting_user_may_not_enter_does_no_harm(
    store: StoreOnDisk, tmp_path: Path
) -> None:
    own(store.path, NOBODY, 0o755)
    mine = session_of(store, NOBODY, 0o700, 0o600)
    session_of(store, BEN, 0o700, 0o600, "crab_tg-42_2")
    unreadable = session_of(store, BEN, 0o755, 0o600, "crab_tg-42_3")
    read_only = session_of(store, BEN, 0o755, 0o644, "crab_tg-42_4")
    for path in read_only.path.glob("step-*"):
        path.chmod(0o644)
    with mounted_by(NOBODY, store.path, tmp_path) as path:
        assert read(NOBODY, path / mine.slug) == list(READABLE)
        assert not may(NOBODY, "cat crab_tg-42_2/history.jsonl", path)
        assert not may(NOBODY, f"cat {unreadable.slug}/history.jsonl", path)
        assert read(NOBODY, path / read_only.slug) == list(READABLE)
        assert written(NOBODY, path / read_only.slug) == []
        assert not may(NOBODY, f"rmdir {unreadable.slug}", path)
        listed = NOBODY.run("ls", "-l", at=path)
        assert (listed.returncode, listed.stderr) == (0, "")
        sessions = NOBODY.sh(
            "cat .stepfs/sessions.jsonl | wc -l && ls .stepfs/latest/*/ | wc -l", path
        )
        assert (sessions.returncode, sessions.stderr) == (0, "")


# --- what leads out of the store ---------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> SessionOnDisk:
    """A session-like directory outside the store that only root may read."""
    (tmp_path / "outside").mkdir()
    session = StoreOnDisk(tmp_path / "outside").session("crab_tg-42_1", entry("root's secret"))
    for path in session.path.iterdir():
        path.chmod(0o600)
    return session


@pytest.mark.guarantee("G21d", "S2")
def test_no_symlink_in_the_store_leads_out_of_it(
    store: StoreOnDisk, mount: Mounts, secret: SessionOnDisk
) -> None:
    own(store.path, EVE, 0o755)
    session = session_of(store, EVE, 0o755, 0o644)
    targets: dict[str, str | Path] = {
        "crab_tg-42_2": secret.path,
        "crab_tg-42_3": "../outside/crab_tg-42_1",
        f"{session.slug}/step-000004": secret.path / "step-000001",
    }
    for name, target in targets.items():
        assert EVE.run("ln", "-s", target, store.path / name).returncode == 0
    by_meta = session_of(store, EVE, 0o755, 0o644, "crab_tg-42_4")
    (by_meta.path / "meta").unlink()
    (by_meta.path / "meta").symlink_to(secret.path / "meta")
    at = mount("allow_other").path
    assert sorted(os.listdir(at)) == [".stepfs", session.slug]
    for name in ("crab_tg-42_2", "crab_tg-42_3", by_meta.slug, "..", f"{session.slug}/.."):
        assert EVE.sh(f"cat {at}/{name}/history.jsonl").returncode == 1
    assert b"root's" not in (at / session.slug / "log.jsonl").read_bytes()
    assert EVE.sh(f"rmdir {at}/crab_tg-42_2").returncode == 1
    assert len(secret.numbers()) == 1


@pytest.mark.guarantee("G21d", "G20b")
def test_a_session_replaced_by_a_symlink_is_gone(
    store: StoreOnDisk, mount: Mounts, secret: SessionOnDisk
) -> None:
    own(store.path, EVE, 0o755)
    session = session_of(store, EVE, 0o755, 0o644)
    mounted = mount("allow_other")
    mounted.expected += ["append", "meta.json"]
    at = mounted.path / session.slug
    history = os.open(at / "history.jsonl", os.O_RDONLY)
    append, meta = (os.open(at / name, os.O_WRONLY) for name in ("append", "meta.json"))
    before = (secret.path / "meta").read_bytes()
    moved = store.path / "aside"
    session.path.rename(moved)
    session.path.symlink_to(secret.path)
    assert os.read(history, 1 << 16) == entry("another") + b"\n"
    for fd, text in ((append, entry("x") + b"\n"), (meta, b'{"title":"x"}')):
        with pytest.raises(OSError) as refused:
            os.write(fd, text)
        assert refused.value.errno == errno.ENOENT
        os.close(fd)
    os.close(history)
    until(lambda: not at.exists())
    assert (secret.path / "meta").read_bytes() == before
    assert len(secret.numbers()) == 1
