"""Real shells, tools and Python write to the control files in every way they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from storage.formats.kinds import Kind, classify
from storage.session.snapshot import load
from tests.support.drivers import MountDriver, driving, within_time
from tests.support.mounted import SECONDS
from tests.support.stores import SessionOnDisk, StoreOnDisk, entry, event

A, B = entry("first"), event("second")
LONG = entry("long " * 5000)
"""A line longer than the buffers of shells, which are 8 KiB or less."""
SHELLS = ("bash", "dash")
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountDriver]:
    directory = tmp_path_factory.mktemp("shells")
    store = StoreOnDisk(directory / "store")
    with driving("mount", store.path, directory, "line_limit=64K") as driver:
        assert isinstance(driver, MountDriver)
        yield driver


@pytest.fixture
def driver(served: MountDriver) -> Iterator[MountDriver]:
    with within_time(served, SECONDS), served.checked():
        yield served


@pytest.fixture
def session(driver: MountDriver) -> SessionOnDisk:
    return driver.session()


def run(driver: MountDriver, session: SessionOnDisk, *command: str, given: bytes = b"") -> Done:
    """Run a command in the session's directory of the mount; `$A`, `$B`, `$LONG` are lines."""
    lines = {"A": A.decode(), "B": B.decode(), "LONG": LONG.decode()}
    return subprocess.run(
        command,
        cwd=driver.mount.path / session.slug,
        env={**os.environ, **lines, "LC_ALL": "C", "PY": sys.executable},
        input=given,
        capture_output=True,
        timeout=30,
        check=False,
    )


def quiet(done: Done) -> bool:
    """It succeeded without any output."""
    assert (done.returncode, done.stderr) == (0, b"")
    return True


def stored(session: SessionOnDisk) -> list[bytes]:
    """All steps, which must have consecutive numbers from 1."""
    assert session.numbers() == list(range(1, len(session.numbers()) + 1))
    return session.steps()


WAYS = {
    "redirected": ('echo "$A" > append; echo "$B" > append', [A, B]),
    "appended": ('echo "$A" >> append && echo "$B" >> append', [A, B]),
    "two at once": ('printf "%s\\n" "$A" "$B" > append', [A, B]),
    "no newline": ('printf %s "$A" > append', [A]),
    "the last without newline": ('printf "%s\\n%s" "$A" "$B" > append', [A, B]),
    "in a subshell": ('( echo "$A"; echo "$B" ) > append', [A, B]),
    "in a group": ('{ echo "$A"; /bin/echo "$B"; } > append', [A, B]),
    "in subshells": ('( ( echo "$A" ); ( /bin/echo "$B" ) ) >> append', [A, B]),
    "half, a child, the rest": (
        '{ printf %.10s "$A"; /bin/true; printf "%s\\n" "${A#??????????}"; } > append',
        [A],
    ),
    "half, a child, the rest without newline": (
        '{ printf %.10s "$A"; /bin/true; printf %s "${A#??????????}"; } > append',
        [A],
    ),
    "a child that exits in the middle of a line": (
        '{ sh -c \'printf %.10s "$A"\'; sh -c \'printf "%s\\n" "${A#??????????}"\'; } > append',
        [A],
    ),
    "a line, a child, its newline": (
        '{ printf %s "$A"; /bin/true; echo; printf %s "$B"; /bin/true; echo; } > append',
        [A, B],
    ),
    "a descriptor kept open": ('exec 3> append; echo "$A" >&3; echo "$B" >&3; exec 3>&-', [A, B]),
    "a duplicate": ('exec 3>> append 4>&3; echo "$A" >&4; exec 4>&-; echo "$B" >&3', [A, B]),
    "a loop": ('for line in "$A" "$B" "$A"; do echo "$line"; done > append', [A, B, A]),
    "in the background": ('{ sh -c \'echo "$A"\' & wait; echo "$B"; } > append', [A, B]),
    "here": ("cat > append <<END\n$A\n$B\nEND\n", [A, B]),
    "cat": ('printf "%s\\n" "$A" "$B" | cat > append', [A, B]),
    "cat, no newline": ('printf %s "$A" | cat >> append', [A]),
    "tee": ('printf "%s\\n" "$A" "$B" | tee append > /dev/null', [A, B]),
    "tee -a": ('echo "$A" | tee -a append > /dev/null', [A]),
    "tee to two": ('echo "$A" | tee append /dev/null | cat >> append', [A, A]),
    "dd": ('printf "%s\\n" "$A" "$B" | dd of=append bs=4 status=none', [A, B]),
    "dd, one byte": ('echo "$A" | dd of=append bs=1 status=none', [A]),
    "dd, seeking": ('echo "$A" | dd of=append bs=16 seek=3 conv=notrunc status=none', [A]),
    "dd, synced": ('echo "$A" | dd of=append bs=4 conv=fsync status=none', [A]),
    "cp": ('echo "$A" > "$TMP"; cp "$TMP" append', [A]),
    "cp -p": ('echo "$A" > "$TMP"; cp -p "$TMP" append', [A]),
    "sed": (
        'printf "%s\\n" "$A" | sed -u s/first/other/ > append',
        [A.replace(b"first", b"other")],
    ),
    "a long line": ('echo "$LONG" > append', [LONG]),
    "long lines": ('printf "%s\\n" "$LONG" "$A" "$LONG" > append', [LONG, A, LONG]),
    "a long line by cat": ('printf "%s\\n" "$A" "$LONG" | cat >> append', [A, LONG]),
    "truncated": ('truncate -s 0 append; echo "$A" >> append; : > append; touch append', [A]),
    "made writable": ('chmod u+w append; echo "$A" > append', [A]),
    "clobbered": ('set -C; echo "$A" >| append', [A]),
    "read and write": ('exec 3<> append; echo "$A" >&3; read -r line <&3; echo "$B" >&3', [A, B]),
    "jq": ('jq -nc \'{role:"user",content:"hi"}\' > append', [entry("hi").replace(b" ", b"")]),
    "nothing": (": > append; true >> append; cat /dev/null > append", []),
}


@pytest.mark.guarantee("G5a", "G5c", "G5d", "G7a", "G7b", "G7d")
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("script", "steps"), WAYS.values(), ids=WAYS.keys())
def test_a_shell_s_lines_are_steps(
    driver: MountDriver, session: SessionOnDisk, shell: str, script: str, steps: list[bytes]
) -> None:
    aside = driver.store.path.parent / "aside"
    done = run(driver, session, "env", f"TMP={aside}", shell, "-c", script)
    assert quiet(done)
    assert stored(session) == steps
    assert driver.text(f"{session.slug}/append") == b""
    assert not [line for line in driver.errors() if session.slug in line]


INVALID = "Invalid argument"
FAILURES = {
    "echo in bash": ("bash", 'echo "$BAD" > append', 1, f"echo: write error: {INVALID}"),
    "echo in dash": ("dash", 'echo "$BAD" > append', 1, "echo: I/O error"),
    "printf in bash": ("bash", 'printf "%s\\n" "$BAD" > append', 1, f"write error: {INVALID}"),
    "printf in dash": ("dash", 'printf "%s\\n" "$BAD" > append', 1, "printf: I/O error"),
    "/bin/echo": ("sh", '/bin/echo "$BAD" > append', 1, f"echo: write error: {INVALID}"),
    "cat": ("sh", 'echo "$BAD" | cat > append', 1, f"cat: write error: {INVALID}"),
    "tee": ("sh", 'echo "$BAD" | tee -a append > /dev/null', 1, f"tee: append: {INVALID}"),
    "dd": ("sh", 'echo "$BAD" | dd of=append', 1, f"dd: error writing 'append': {INVALID}"),
    "cp": ("sh", 'echo "$BAD" > "$TMP"; cp "$TMP" append', 1, f"cp: error writing 'append': {INVALID}"),
    "jq": ("sh", "jq -nc 42 > append", 2, f"writing output failed: {INVALID}"),
    "too long": ("bash", 'printf "%70000s\\n" x > append', 1, "write error: File too large"),
    "an empty name": ("bash", "echo > compact", 1, f"echo: write error: {INVALID}"),
}  # fmt: skip


@pytest.mark.guarantee("G6a", "G6c", "G8b")
@pytest.mark.parametrize(
    ("shell", "script", "code", "words"), FAILURES.values(), ids=FAILURES.keys()
)
def test_the_writer_of_a_refused_line_gets_an_error(
    driver: MountDriver, session: SessionOnDisk, shell: str, script: str, code: int, words: str
) -> None:
    driver.allow(f"write {session.slug}/")
    aside = driver.store.path.parent / "aside"
    done = run(driver, session, "env", f"TMP={aside}", "BAD=no JSON", shell, "-c", script)
    assert (done.returncode, words in done.stderr.decode()) == (code, True), done
    assert stored(session) == []
    assert [line for line in driver.errors() if session.slug in line]


ENDS = {
    "cat": ('printf %s "$BAD" | cat > append', 1, INVALID),
    "tee": ('printf %s "$BAD" | tee append > /dev/null', 1, INVALID),
    "dd": ('printf %s "$BAD" | dd of=append status=none', 1, INVALID),
    "cp": ('printf %s "$BAD" > "$TMP"; cp "$TMP" append', 1, INVALID),
    "/bin/echo": ('/bin/echo -n "$BAD" > append', 1, INVALID),
    "printf of a shell, which ignores what close says": ('printf %s "$BAD" > append', 0, ""),
}


@pytest.mark.guarantee("G7b", "G7c")
@pytest.mark.parametrize(("script", "code", "words"), ENDS.values(), ids=ENDS.keys())
def test_an_end_without_newline_that_is_no_line_is_lost_and_said(
    driver: MountDriver, session: SessionOnDisk, script: str, code: int, words: str
) -> None:
    driver.allow(f"release {session.slug}/append")
    aside = driver.store.path.parent / "aside"
    half = A[:-4].decode()
    done = run(driver, session, "env", f"TMP={aside}", f"BAD={half}", "dash", "-c", script)
    assert (done.returncode, words in done.stderr.decode()) == (code, True), done
    assert stored(session) == []
    told = driver.told(session)
    assert told["operation"] == "release"
    assert f"{len(half)} bytes" in told["error"]


def messages(count: int) -> list[bytes]:
    """Bare messages of many sizes."""
    return [
        json.dumps({"role": "user", "content": f"message {n} " + "é" * (n * 37 % 900)}).encode()
        for n in range(count)
    ]


def loads(session: SessionOnDisk, lines: list[bytes]) -> None:
    """The reference's replay must give exactly these messages."""
    directory = os.open(session.path, os.O_RDONLY)
    try:
        loaded = load(directory)
    finally:
        os.close(directory)
    assert loaded is not None
    assert [step.value["message"] for step in loaded.history] == [json.loads(n) for n in lines]


@pytest.mark.guarantee("G5a", "G5b", "G5c", "G6e")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_thousand_messages_through_cat_are_a_thousand_consecutive_steps(
    driver: MountDriver, session: SessionOnDisk, shell: str
) -> None:
    lines = messages(1000)
    script = "cat | cat > append"
    assert quiet(run(driver, session, shell, "-c", script, given=b"\n".join(lines) + b"\n"))
    assert stored(session) == [b'{"message":' + line + b"}" for line in lines]
    assert {classify(step).kind for step in session.steps()} == {Kind.ENTRY}
    loads(session, lines)
    assert driver.history(session).count(b"\n") == 1000


@pytest.mark.guarantee("G6a", "G6b")
@pytest.mark.parametrize("place", [0, 1, 499, 999])
def test_a_malformed_line_among_them_is_refused_at_its_place(
    driver: MountDriver, session: SessionOnDisk, place: int
) -> None:
    driver.allow(f"write {session.slug}/append: ")
    lines = messages(1000)
    bad = [*lines[:place], b'{"role":"user","content":', *lines[place + 1 :]]
    done = run(driver, session, "sh", "-c", "cat > append", given=b"\n".join(bad) + b"\n")
    assert done.returncode == 1
    assert b"cat: write error: Invalid argument" in done.stderr
    assert stored(session) == [b'{"message":' + line + b"}" for line in lines[:place]]
    loads(session, lines[:place])
    told = [json.loads(line) for line in driver.errors() if session.slug in line]
    assert [(line["file"], line["operation"], line["errno"]) for line in told] == [
        ("append", "write", "EINVAL")
    ]


def python(driver: MountDriver, session: SessionOnDisk, program: str) -> Done:
    start = "import os, json, sys; A, B = os.environ['A'], os.environ['B']\n"
    return run(driver, session, sys.executable, "-c", start + program)


PYTHON = {
    "print": "with open('append', 'w') as f: print(A, file=f); print(B, file=f)",
    "append": "with open('append', 'a') as f: f.write(A + '\\n' + B + '\\n')",
    "no newline": "with open('append', 'w') as f: f.write(A + '\\n' + B)",
    "unbuffered": "f = open('append', 'wb', 0); f.write((A + '\\n').encode()); f.write(B.encode())",
    "by line": "f = open('append', 'w', buffering=1); f.write(A + '\\n'); f.write(B + '\\n')",
    "never closed": "f = open('append', 'a'); f.write(A + '\\n' + B + '\\n'); globals()['k'] = f",
    "flushed in the middle": "f = open('append', 'w'); f.write(A[:9]); f.flush(); f.write(A[9:]);"
    "f.write('\\n' + B); f.close()",
    "forked in the middle": "f = open('append', 'w'); f.write(A[:9]); f.flush(); pid = os.fork()\n"
    "if pid == 0: os._exit(0)\nos.wait(); f.write(A[9:] + '\\n' + B + '\\n'); f.close()",
    "writev": "fd = os.open('append', os.O_WRONLY); os.writev(fd, [A.encode(), b'\\n', B.encode()])",
    "pwrite": "fd = os.open('append', os.O_WRONLY); os.pwrite(fd, (A + '\\n').encode(), 1 << 40);"
    "os.pwrite(fd, (B + '\\n').encode(), 3)",
    "seek": "f = open('append', 'r+b', 0); f.write((A + '\\n').encode()); f.seek(0);"
    "assert f.read() == b''; f.write((B + '\\n').encode())",
    "sent": "import shutil, io; shutil.copyfileobj(io.StringIO(A + '\\n' + B), open('append', 'w'), 3)",
    "fsync": "f = open('append', 'w'); print(A, file=f); f.flush(); os.fsync(f.fileno());"
    "print(B, file=f); f.truncate(0); f.close()",
    "json": "f = open('append', 'w')\nfor line in (A, B): json.dump(json.loads(line), f,"
    " separators=(',', ':')); f.write('\\n')\nf.close()",
}


@pytest.mark.guarantee("G5a", "G5d", "G7a", "G7b")
@pytest.mark.parametrize("program", PYTHON.values(), ids=PYTHON.keys())
def test_python_s_lines_are_steps(
    driver: MountDriver, session: SessionOnDisk, program: str
) -> None:
    assert quiet(python(driver, session, program))
    assert stored(session) == [A, B]


@pytest.mark.guarantee("G6b", "G6d", "G7d")
@pytest.mark.parametrize("bad", ["no JSON", "", '{"compact":"x"}'])
@pytest.mark.parametrize("mode", ["w", "a"])
def test_python_is_told_once_of_a_refusal_and_stores_nothing_twice(
    driver: MountDriver, session: SessionOnDisk, bad: str, mode: str
) -> None:
    """A buffer that failed is written again at close, without the part that was stored."""
    driver.allow(f"write {session.slug}/append: ")
    program = f"""
f = open('append', {mode!r})
f.write(A + '\\n' + {bad!r} + '\\n' + B + '\\n')
for end in (f.flush, f.close):
    try:
        end()
    except OSError as error:
        print(error.errno)
"""
    done = python(driver, session, program)
    assert quiet(done)
    assert done.stdout.split() == [b"22", b"22"]
    assert stored(session) == [A]


@pytest.mark.guarantee("G6a", "G6b")
def test_python_without_a_buffer_sees_where_a_write_stopped(
    driver: MountDriver, session: SessionOnDisk
) -> None:
    driver.allow(f"write {session.slug}/append: ")
    program = """
f = open('append', 'wb', buffering=0)
data = (A + '\\nbad\\n' + B + '\\n').encode()
count = f.write(data)
assert data[:count] == (A + '\\n').encode()
try:
    f.write(data[count:])
except OSError as error:
    print(error)
f.write((B + '\\n').encode())
f.close()
"""
    done = python(driver, session, program)
    assert quiet(done)
    assert done.stdout == b"[Errno 22] Invalid argument\n"
    assert stored(session) == [A, B]


@pytest.mark.guarantee("G8a", "G8c", "G8d")
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "script",
    [
        "echo archive-1 > compact",
        "printf archive-1 > compact",
        "printf '%s\\n' archive-1 | tee -a compact > /dev/null",
        "echo archive-1 | dd of=compact bs=2 status=none",
        "( echo archive-1 ) > compact",
        "echo archive-1 | cat >> compact",
        "{ printf archive; /bin/true; printf -- '-1\\n'; } 2> /dev/null > compact",
    ],
)
def test_a_shell_compacts(
    driver: MountDriver, session: SessionOnDisk, shell: str, script: str
) -> None:
    session.add(A)
    names = ["archive-1"] if "true" not in script else ["archive", "-1"]
    done = run(driver, session, shell, "-c", script + "; cat compact; wc -c < history.jsonl")
    assert quiet(done)
    assert [classify(step).archive for step in session.steps()[1:]] == names
    assert done.stdout.decode().split() == [names[-1], "0"]


@pytest.mark.guarantee("G5b", "G12a")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_reads_what_it_has_just_written(
    driver: MountDriver, session: SessionOnDisk, shell: str
) -> None:
    script = """
exec 3> append
for n in 1 2 3 4 5 6 7 8 9; do
    printf '{"role":"user","content":"%s"}\\n' $n >&3
    tail -n 1 history.jsonl
    [ "$(wc -l < history.jsonl)" = "$n" ] || echo wrong
done
"""
    done = run(driver, session, shell, "-c", script)
    assert quiet(done)
    assert done.stdout == b"".join(entry(str(n)) + b"\n" for n in range(1, 10))
