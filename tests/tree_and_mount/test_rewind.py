"""A rewind: the daemon deletes every step of a session and writes those that it keeps again.

Its numbers continue, or begin at 1 again under names that other steps had (G13, G16).
"""

from __future__ import annotations

import time

import pytest

from tests.support.commands import until
from tests.support.drivers import Driver
from tests.support.model import HISTORY, LOG, MESSAGES, VIEWS, shown
from tests.support.stores import SessionOnDisk, compaction, entry, event

NUMBERINGS = pytest.mark.parametrize("first", [1, 9], ids=["from-1-again", "going-on"])
BEFORE = [
    compaction("archive"),
    entry("one"),
    event("one"),
    entry("two", "assistant"),
    entry("three"),
    event("two"),
    entry("four", "assistant"),
]
AGAIN = compaction("archive").replace(b'"archived_at":"', b'"archived_at":"later-')
"""The same archive, at another time."""
HERE = [entry(f"here {n}") for n in range(5)]
UNSEEN = 1.5
"""Seconds within which a displaced step would have been restored."""


def rewind(session: SessionOnDisk, kept: list[bytes], first: int) -> None:
    """Rewind as the daemon does: remove all but the meta, then write the kept documents."""
    for path in session.path.glob("step-*"):
        path.unlink()
    for number, document in enumerate(kept, first):
        session.put(number, document)


@pytest.mark.guarantee("G13b", "G13c")
@NUMBERINGS
@pytest.mark.parametrize(
    "kept",
    [[AGAIN, entry("one"), entry("two", "assistant")], [entry("one")], []],
    ids=["two-entries-of-an-archive", "one-entry", "nothing"],
)
def test_names_are_new_inodes_and_open_files_keep_what_they_showed(
    driver: Driver, first: int, kept: list[bytes]
) -> None:
    session = driver.session(*BEFORE)
    paths = [f"{session.slug}/{view}" for view in VIEWS]
    texts = [driver.text(path) for path in paths]
    held = [driver.open(path) for path in paths]
    try:
        inodes = [driver.fstat(handle).ino for handle in held]
        rewind(session, kept, first)
        assert [driver.text(path) for path in paths] == [shown(kept, view) for view in VIEWS]
        for path, ino, handle, text in zip(paths, inodes, held, texts, strict=True):
            assert driver.stat(path).ino != ino
            assert driver.fstat(handle).ino == ino
            assert driver.read(handle) == text
        driver.append(session, entry("on it goes") + b"\n")
        assert driver.history(session) == shown([*kept, entry("on it goes")], HISTORY)
    finally:
        for handle in held:
            driver.close(handle)


@pytest.mark.guarantee("G13a")
@NUMBERINGS
def test_a_reader_in_between_sees_what_is_there_then(driver: Driver, first: int) -> None:
    session = driver.session(*BEFORE)
    assert driver.history(session) == shown(BEFORE, HISTORY)
    for number in session.numbers():
        (session.path / f"step-{number:06}").unlink()
        for view in (HISTORY, MESSAGES, LOG):
            assert driver.text(f"{session.slug}/{view}") == shown(session.steps(), view)
    for number, document in enumerate([AGAIN, entry("one")], first):
        session.put(number, document)
        for view in (HISTORY, MESSAGES, LOG):
            assert driver.text(f"{session.slug}/{view}") == shown(session.steps(), view)


@pytest.mark.guarantee("G29b", "G30a")
@NUMBERINGS
def test_the_past_is_that_of_the_rewritten_steps(driver: Driver, first: int) -> None:
    session = driver.session(entry("zero"), *BEFORE)
    epochs, at = f"{session.slug}/.epochs", f"{session.slug}/.at"
    assert sorted(driver.listdir(epochs)) == ["1", "2"]
    with driver.opened(f"{at}/5/{HISTORY}") as held:
        text = driver.read(held)
        rewind(session, [entry("one"), entry("two", "assistant")], first)
        assert driver.listdir(epochs) == ["1"]
        assert driver.text(f"{epochs}/1/{HISTORY}") == shown(session.steps(), HISTORY)
        assert driver.text(f"{at}/{first}/{HISTORY}") == entry("one") + b"\n"
        assert driver.text(f"{at}/{first - 1}/{HISTORY}") == b""
        assert driver.read(held) == text == shown(BEFORE[:4], HISTORY)


def appended_then_rewound(driver: Driver, first: int, kept: list[bytes]) -> SessionOnDisk:
    """A session in which the daemon kept nothing that was appended through the mount."""
    session = driver.session(entry("one"))
    driver.append(session, b"".join(line + b"\n" for line in HERE))
    until(lambda: driver.history(session).count(b"\n") == 1 + len(HERE))
    rewind(session, kept, first)
    return session


@pytest.mark.guarantee("G16a", "G16c")
@NUMBERINGS
def test_what_was_appended_here_and_deleted_by_the_daemon_stays_deleted(
    driver: Driver, kind: str, first: int
) -> None:
    kept = [entry("one"), entry("two"), entry("three")]
    taken = [line for number, line in enumerate(HERE, 2) if first <= number < first + len(kept)]
    session = appended_then_rewound(driver, first, kept)
    end = time.monotonic() + UNSEEN
    while time.monotonic() < end:
        steps = session.steps()
        assert steps[: len(kept)] == kept
        back = steps[len(kept) :]
        # Without events, steps whose names were reused look displaced, and are restored once.
        assert back == [] or (kind == "far" and back == [line for line in taken if line in back])
        assert kind == "far" or driver.history(session) == shown(kept, HISTORY)
        time.sleep(0.1)
