"""Users other than the one who runs the tests, mostly known by number only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from storage.errors import StoreError
from tests.support.commands import Answer, environment
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry

SECONDS = 60


@dataclass(frozen=True)
class Person:
    """A user with a group of the same number, and perhaps others."""

    number: int
    groups: Sequence[int] = field(default=())

    def run(self, *command: str | Path, at: Path | None = None, **changed: str) -> Answer:
        """Run a command as this user, to completion."""
        groups = ",".join(map(str, self.groups))
        become = [
            "setpriv",
            f"--reuid={self.number}",
            f"--regid={self.number}",
            f"--groups={groups}" if groups else "--clear-groups",
        ]
        return subprocess.run(
            [*become, *(["env", f"--chdir={at}"] if at else []), *map(str, command)],
            umask=0o022,
            cwd="/",
            env=environment(**changed),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def sh(self, script: str, at: Path | None = None) -> Answer:
        """Run a shell script as this user."""
        return self.run("bash", "-c", script, at=at)

    def become(self) -> None:
        """Make this process the user's, permanently."""
        os.setgroups(self.groups)
        os.setresgid(*[self.number] * 3)
        os.setresuid(*[self.number] * 3)


ANA, BEN, EVE = Person(61001), Person(61002), Person(61003)
NOBODY = Person(65534)
"""The only one with a name, which fusermount3 requires."""


def own(path: Path, person: Person, mode: int | None = None) -> None:
    """Give a file to a user; set the mode too, if given."""
    os.chown(path, person.number, person.number)
    if mode is not None:
        path.chmod(mode)


def session_of(
    store: StoreOnDisk, person: Person, directory: int, meta: int, slug: str = "crab_tg-42_1"
) -> SessionOnDisk:
    """A session of this user, whose directory and meta have these modes."""
    session = store.session(slug, entry("a secret"), compaction("crab-1"), entry("another"))
    for path in session.path.iterdir():
        own(path, person, 0o600)
    own(session.path / "meta", person, meta)
    own(session.path, person, directory)
    return session


@contextmanager
def public_directory() -> Iterator[Path]:
    """A temporary directory that everybody can reach."""
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


def errno_as_nobody(call: Callable[[], object]) -> int:
    """The errno with which `call` fails for another user, 0 if it succeeds."""
    child = os.fork()
    if child == 0:
        result = 255
        try:
            NOBODY.become()
            call()
            result = 0
        except StoreError as error:
            result = error.errno
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
