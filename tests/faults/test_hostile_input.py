"""Nothing that is written or lies in the store crashes or confuses the mount."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.kinds import NotAStep, classify
from tests.support import hostile, oracle
from tests.support.commands import failing
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
IN_THE_RUN = 20_000
SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
REFUSED = "(EINVAL)"
SLUG = "crab_tg-42_1"


def _kind(data: bytes) -> str | None:
    try:
        return classify(data).kind.value
    except NotAStep:
        return None


def _judged(line: bytes) -> bytes | None:
    """The stored form of an appended line, or None if it is refused."""
    try:
        return stored_form(line).data
    except StoreError as error:
        assert error.errno == errno.EINVAL
        assert error.sentence
        return None


def _is_one_value(document: bytes) -> bool:
    """False for `{"role":"user"},"content":""`, which only wrapping would turn into an entry."""
    try:
        json.loads(document)
    except (ValueError, RecursionError):
        return False
    return True


def _agrees_with_the_reference(document: bytes) -> None:
    kind = oracle.kind(document)
    assert _kind(document) == kind, document
    stored = _judged(document)
    if stored is not None:
        assert oracle.kind(stored) in ("entry", "event"), document
        assert stored in (document, b'{"message":' + document + b"}")
    elif kind in ("entry", "event"):
        pytest.fail(f"refused, though the reference loads it: {document!r}")
    elif _is_one_value(document) and oracle.kind(b'{"message":' + document + b"}") == "entry":
        assert any(key in document for key in hostile.KEYS_OF_STEPS), document


@pytest.mark.guarantee("G6e", "S3")
def test_what_is_accepted_the_reference_loads_and_what_it_skips_is_refused() -> None:
    for document in itertools.islice(hostile.documents(1), IN_THE_RUN):
        _agrees_with_the_reference(document)


@pytest.mark.soak
@pytest.mark.guarantee("G6e")
def test_millions_of_documents_are_judged_as_the_reference_judges_them() -> None:
    """About a million in two minutes; a new seed each time."""
    documents = hostile.documents(random.SystemRandom().randrange(2**32))
    for document in itertools.islice(documents, int(500_000 * min(SOAK_MINUTES, 30) / 3)):
        _agrees_with_the_reference(document)


def _send(path: Path, data: bytes) -> int:
    """Write once and close; returns the errno of whichever failed, or 0."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, data)
    except OSError as error:
        os.close(fd)
        return error.errno or 0
    try:
        os.close(fd)
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.guarantee("G6e", "G6a", "G19b")
def test_hostile_lines_through_the_mount_are_stored_or_refused_and_nothing_else(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG)
    at = mount()
    at.expected.append(REFUSED)
    stored: list[bytes] = []
    for document in itertools.islice(hostile.documents(3), 1200):
        answer = _send(at.path / SLUG / "append", document + b"\n")
        expected = _judged(document)
        assert answer == (errno.EINVAL if expected is None else 0), document
        stored += [] if expected is None else [expected]
    assert session.steps() == stored
    assert len(stored) > 200
    shown = (at.path / SLUG / "log.jsonl").read_bytes().split(b"\n")
    assert len(shown) == len(stored) + 1


@pytest.mark.guarantee("G6d", "G6a", "G6b")
def test_hostile_streams_cut_anywhere_store_exactly_their_good_lines(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG)
    at = mount()
    at.expected += [REFUSED, "had no newline"]
    chance = random.Random(5)
    lines = list(itertools.islice(hostile.documents(4), 600))
    data = b"".join(line + b"\n" for line in lines)
    fd = os.open(at.path / SLUG / "append", os.O_WRONLY)
    ends = list(itertools.accumulate(len(line) + 1 for line in lines))
    position = 0
    while position < len(data):
        size = chance.choice((1, 7, 200, 5000))
        try:
            position += os.write(fd, data[position : position + size])
        except OSError as error:
            assert error.errno == errno.EINVAL
            # The line is discarded; the writer continues after it.
            line = next(number for number, end in enumerate(ends) if end > position)
            assert any(_judged(bad) is None for bad in lines[line : line + 1]), lines[line]
            position = ends[line]
    os.close(fd)
    assert session.steps() == [form for line in lines if (form := _judged(line)) is not None]


@pytest.mark.guarantee("G6c", "G23a", "G19b")
def test_a_line_of_a_hundred_mebibytes_is_efbig_and_takes_no_memory(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG)
    at = mount()
    at.expected.append("(EFBIG)")
    assert at.server is not None
    before = _peak(at.server.pid)
    fd = os.open(at.path / SLUG / "append", os.O_WRONLY)
    piece, refused = b"x" * (1 << 20), 0
    os.write(fd, b'{"role":"user","content":"')
    for _ in range(100):
        try:
            os.write(fd, piece)
        except OSError as error:
            assert error.errno == errno.EFBIG
            refused += 1
    with pytest.raises(OSError):
        os.write(fd, b'"}\n')
    os.write(fd, b'{"role":"user","content":"next"}\n')
    os.close(fd)
    assert refused >= 1  # the kernel splits writes, and reports a refusal only at the start of one
    assert session.steps() == [entry("next")]
    assert _peak(at.server.pid) - before < 100 << 10


def _peak(pid: int) -> int:
    """Peak resident memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _bytes_of_all_kinds(chance: random.Random, count: int) -> Iterator[bytes]:
    alphabet = [b"a", b"\xc3\xa9", b"\x00", b"\x1f", b"\x7f", b"\xff", b"/", b"..", b"\xc2\x85"]
    for _ in range(count):
        yield b"".join(chance.choice(alphabet) for _ in range(chance.choice((0, 1, 5, 200, 300))))


@pytest.mark.guarantee("G8b", "G19b")
def test_hostile_archive_names_are_taken_or_refused_by_the_rule(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG)
    at = mount()
    at.expected.append(REFUSED)
    taken = []
    for name in [*_bytes_of_all_kinds(random.Random(6), 300), b"a" * 255, b"a" * 256]:
        answer = _send(at.path / SLUG / "compact", name + b"\n")
        try:
            text = name.decode()
            fine = 0 < len(name) <= 255 and not any(
                ord(c) < 32 or 127 <= ord(c) < 160 for c in text
            )
        except UnicodeDecodeError:
            fine = False
        assert answer == (0 if fine else errno.EINVAL), name
        taken += [name.decode()] if fine else []
    assert [json.loads(step)["archive_name"] for step in session.steps()] == taken
    assert len(taken) > 20


HOSTILE_PATCHES: list[bytes] = [
    b"[]", b"1", b'"x"', b"null", b"{}{}", b"{} x", b'{"agent":null}', b'{"agent":1}',
    b'{"created_at":"other"}', b'{"message_count":-1}', b'{"message_count":1e400}',
    b'{"message_count":18446744073709551616}', b'{"title":"\\ud800"}', b'{"title":"\x00"}',
    b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"title":"\xff"}', b"\xef\xbb\xbf{}", b"\x00",
    b'{"title":1,"title":2}', b'{"x":' * 127 + b"1" + b"}" * 127 + b"}", b'{"x":NaN}',
]  # fmt: skip


@pytest.mark.guarantee("G10b", "G19b")
def test_hostile_patches_of_the_meta_are_refused_and_change_nothing(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG)
    at = mount()
    at.expected.append(REFUSED)
    before = (session.path / "meta").read_bytes()
    for patch in HOSTILE_PATCHES:
        assert _send(at.path / SLUG / "meta.json", patch) == errno.EINVAL, patch
        assert (session.path / "meta").read_bytes() == before, patch
    for document in itertools.islice(hostile.documents(8), 120):
        assert _send(at.path / SLUG / "meta.json", document) in (0, errno.EINVAL), document
        meta = session.meta()
        assert isinstance(meta["agent"], str)
        assert meta["created_at"] == "2026-04-28T00:00:00+00:00"
    assert _send(at.path / SLUG / "meta.json", b'{"title":"still works"}') == 0
    assert session.meta()["title"] == "still works"


@pytest.mark.guarantee("G11a", "S4", "G21d", "G19b")
def test_hostile_names_make_sessions_inside_the_store_or_none(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path
) -> None:
    at = mount()
    at.expected += ["(EINVAL)", "(ENAMETOOLONG)"]
    around = sorted(os.listdir(tmp_path))
    names = [
        "../..",
        "..",
        "/etc",
        "a/b",
        ".",
        "",
        "\x00",
        "\x1b[31m",
        "x" * 255,
        "x" * 4096,
        "é",
        "Ⅷ",
    ]
    for name in names:
        who = json.dumps({"agent": name, "created_by": name}).encode()
        assert _send(at.path / ".stepfs/create", who) in (0, errno.EINVAL, errno.ENAMETOOLONG)
    for document in itertools.islice(hostile.documents(9), 300):
        assert _send(at.path / ".stepfs/create", document + b"}") == errno.EINVAL, document
    for raw in (b"..", b".hidden_a_1", b"a_b", b"a_b_x", b"a_b_99999999999", b"A_b_1", b"\xff_a_1",
                b"\x01_a_1", b"_", b"a_b_1\n"):  # fmt: skip
        with failing(errno.EEXIST if raw == b".." else errno.EINVAL):
            os.mkdir(os.fsencode(at.path) + b"/" + raw)
    longest = "a" * 251 + "_b_1"
    (at.path / longest).mkdir()
    assert sorted(os.listdir(tmp_path)) == around
    made = os.listdir(store.path)
    assert longest in made
    for slug in made:
        assert sorted(os.listdir(store.path / slug)) == ["meta"], slug
        assert slug in os.listdir(at.path)
        assert (at.path / slug / "history.jsonl").read_bytes() == b""


@pytest.mark.guarantee("S2", "S3", "G1a", "G19b")
def test_a_store_of_hostile_steps_shows_those_that_the_reference_loads(
    store: StoreOnDisk, mount: Mounting
) -> None:
    steps = list(itertools.islice(hostile.documents(10), 1500))
    store.session(SLUG, *steps)
    at = mount()
    shown = (at.path / SLUG / "log.jsonl").read_bytes().split(b"\n")[:-1]
    kinds = [oracle.kind(step) for step in steps]
    good = [step for step, kind in zip(steps, kinds, strict=True) if kind is not None]
    assert len(shown) == len(good)
    for line, step in zip(shown, good, strict=True):
        if b"\r" in step.strip(b" \t\r\n"):
            assert b"\r" not in line
            assert line.translate(None, b" \t") == step.translate(None, b" \t\r\n"), step
        else:
            assert line == step.strip(b" \t\r\n")
    last = max(n for n, kind in enumerate(kinds) if kind in ("compaction", "legacy compaction"))
    entries = (at.path / SLUG / "history.jsonl").read_bytes().count(b"\n")
    assert entries == kinds[last:].count("entry")
    assert (at.path / SLUG / "messages.jsonl").read_bytes()
    assert (at.path / SLUG / "history.md").read_bytes().decode()


def _strange(path: Path) -> None:
    """Put files that are not regular in place of steps."""
    os.mkfifo(path / "step-000002")
    os.mknod(path / "step-000003", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: endless
    (path / "step-000004").mkdir()
    (path / "step-000005").symlink_to("nowhere")
    (path / "step-000006").symlink_to("step-000006")
    (path / "step-000007").symlink_to("/etc/passwd")
    (path / "step-000008").symlink_to(path / "step-000001")
    (path / "step-00x").write_bytes(entry("no step"))
    (path / "step-000009.tmp.1").write_bytes(entry("no step"))
    (path / os.fsdecode(b"step-\xff")).write_bytes(entry("no step"))
    (path / "step-18446744073709551615").write_bytes(entry("far"))


@pytest.mark.guarantee("S2", "S1", "G21d", "G19b")
def test_what_is_no_file_in_place_of_a_step_is_skipped_with_a_warning(
    store: StoreOnDisk, mount: Mounting
) -> None:
    session = store.session(SLUG, entry("first"))
    _strange(session.path)
    at = mount()
    at.expected.append("(EOVERFLOW)")
    shown = (at.path / SLUG / "history.jsonl").read_bytes()
    assert shown == entry("first") + b"\n" + entry("far") + b"\n"
    for number in range(2, 9):
        assert f"step-{number:06} is skipped" in at.log()
    assert _send(at.path / SLUG / "append", entry("more") + b"\n") in (0, errno.EOVERFLOW)


@pytest.mark.guarantee("S2", "S4", "G21d", "G19b")
@pytest.mark.timeout(60)
def test_what_is_no_meta_makes_no_session_and_a_broken_one_hides_no_history(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path
) -> None:
    for name in ("fifo", "device", "directory", "dangling", "looping", "outside"):
        (store.session(f"{name}_a_1", entry("hidden")).path / "meta").unlink()
    os.mkfifo(store.path / "fifo_a_1/meta")
    os.mknod(store.path / "device_a_1/meta", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (store.path / "directory_a_1/meta").mkdir()
    (store.path / "dangling_a_1/meta").symlink_to("nowhere")
    (store.path / "looping_a_1/meta").symlink_to("meta")
    (store.path / "outside_a_1/meta").symlink_to("/etc/passwd")
    os.mkfifo(store.path / "pipe_a_1")
    (store.path / "loop_a_1").symlink_to("loop_a_1")
    outside = StoreOnDisk(tmp_path / "outside").session("real_a_1", entry("outside"))
    (store.path / "link_a_1").symlink_to(outside.path)
    raw = store.session(os.fsdecode(b"caf\xe9_a_1"), entry("raw"))
    broken = store.session("broken_a_1", entry("shown"))
    (broken.path / "meta").write_bytes(b'{"agent":' + b"[" * 5000)
    at = mount()
    assert sorted(os.listdir(at.path)) == sorted([".stepfs", raw.slug, broken.slug])
    for name in (
        "fifo",
        "device",
        "directory",
        "dangling",
        "looping",
        "outside",
        "pipe",
        "loop",
        "link",
    ):
        assert not os.path.lexists(at.path / f"{name}_a_1"), name
    for session, text in ((raw, "raw"), (broken, "shown")):
        assert (at.path / session.slug / "history.jsonl").read_bytes() == entry(text) + b"\n"
    at.expected.append(REFUSED)
    (at.path / ".stepfs/sessions.jsonl").read_bytes().decode()
    assert _send(at.path / broken.slug / "append", entry("more") + b"\n") == 0
    assert _send(at.path / broken.slug / "meta.json", b'{"title":"x"}') == errno.EINVAL
    assert (broken.path / "meta").read_bytes().startswith(b'{"agent":[[')


@pytest.mark.guarantee("G21d", "S4")
def test_a_session_swapped_for_a_symlink_while_it_is_open_leads_nowhere(
    store: StoreOnDisk, mount: Mounting, tmp_path: Path
) -> None:
    session = store.session(SLUG, entry("inside"))
    outside = StoreOnDisk(tmp_path / "outside").session(SLUG, entry("outside"))
    at = mount()
    at.expected += ["(ENOENT)", "(ESTALE)"]
    append = os.open(at.path / SLUG / "append", os.O_WRONLY)
    session.path.rename(tmp_path / "away")
    session.path.symlink_to(outside.path)
    with pytest.raises(OSError) as refused:
        (at.path / SLUG / "history.jsonl").read_bytes()
    assert refused.value.errno in (errno.ENOENT, errno.ESTALE)
    with pytest.raises(OSError):
        os.write(append, entry("lost") + b"\n")
    os.close(append)
    assert outside.numbers() == [1]
