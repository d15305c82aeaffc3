"""`mount.stepfs`, which mount(8) runs for fstab, automounts and `mount -t fuse.stepfs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from fusefs import config as options
from fusefs.exits import CommandError, Exit, guarded

USAGE = "usage: mount.stepfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS]"

# mount(8): 1 incorrect invocation, 2 system error, 32 mount failure.
SYSTEM_ERROR = 2
MOUNT_FAILURE = 32
CODES = {
    Exit.OK: 0,
    Exit.USAGE: 1,
    Exit.STORE: MOUNT_FAILURE,
    Exit.MOUNTPOINT: MOUNT_FAILURE,
    Exit.PERMISSION: SYSTEM_ERROR,
    Exit.FAILED: MOUNT_FAILURE,
}


@dataclass(slots=True)
class Asked:
    """The command line of a mount helper, as mount(8) gives it."""

    places: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount as mount(8) asks; returns an exit code of mount(8) once the mount is live or has failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = guarded("mount.stepfs", lambda: _run(given))
    return CODES.get(Exit(code), code) if code in list(Exit) else code


def _run(given: list[str]) -> int:
    if given in (["-h"], ["--help"]):
        print(USAGE)
        return Exit.OK
    asked = _parsed(given)
    wanted = options.parse(asked.options)
    store, mountpoint = asked.places
    if "f" in asked.flags:
        return Exit.OK
    from fusefs.cli.mount import Mounting, mount

    mount(Mounting(store, mountpoint, wanted))
    if "v" in asked.flags:
        print(f"mount.stepfs: {store} mounted on {mountpoint}.")
    return Exit.OK


def _parsed(given: list[str]) -> Asked:
    """Parse the arguments: flags may be combined (`-sn`) and follow the paths; `-t` and `-N` take a
    value. Raises `CommandError`."""
    asked = Asked()
    words = iter(given)
    for word in words:
        if word in ("-o", "-t", "-N"):
            value = next(words, None)
            if value is None:
                raise CommandError(Exit.USAGE, f"{word} needs a value; {USAGE}")
            if word == "-o":
                asked.options.append(value)
        elif word.startswith("-") and set(word[1:]) <= set("sfnv"):
            asked.flags |= set(word[1:])
        elif word.startswith("-"):
            raise CommandError(Exit.USAGE, f"unknown flag {word}; {USAGE}")
        else:
            asked.places.append(word)
    if len(asked.places) != 2:
        raise CommandError(Exit.USAGE, USAGE)
    return asked
