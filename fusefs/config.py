"""The mount options after `-o`, of `stepfs mount` and mount(8)."""

from __future__ import annotations

import difflib
import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from fusefs.exits import CommandError, Exit

SIZE = re.compile(r"([0-9]+)([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
OCTAL = re.compile(r"[0-7]{1,4}", re.ASCII)
NUMBER = re.compile(r"[0-9]+", re.ASCII)
REDIS_SCHEMES = ("redis", "rediss", "unix")
UNESCAPED_COMMA = re.compile(r"(?<!\\),")

# Options that mount(8) and fstab pass to every file system: already applied, or without effect here.
GENERIC = frozenset(
    {
        *(
            "async",
            "auto",
            "noauto",
            "defaults",
            "dev",
            "nodev",
            "exec",
            "noexec",
            "suid",
            "nosuid",
        ),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
        *("group", "owner", "user", "nouser", "users", "nofail", "silent", "_netdev"),
    }
)
GENERIC_WITH_VALUE = frozenset({"user", "comment"})
GENERIC_PREFIXES = ("x-", "X-")


class OptionError(CommandError):
    """An unknown option or an invalid value."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Exit.USAGE, sentence)


class Sync(Enum):
    """When written steps are synced to disk (G17)."""

    CLOSE = "close"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The options of a mount.

    `uid` and `gid` replace the owners shown, `umask` clears bits of the modes shown. `memory` is the
    daemon's memory: None for `memory.db` beside the store, or the tree `memory` there if that is
    missing; `"none"` for no memory; else an absolute path. `cache`, `pending` and `line_limit` are in
    bytes (G23, G6), `deadline` is in seconds (G27). `notify` is the URL of the Redis that carries
    hints to other hosts (G28).
    """

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    memory: str | None = None
    cache: int = 64 * 2**20
    line_limit: int = 16 * 2**20
    sync: Sync = Sync.CLOSE
    pending: int = 64 * 2**20
    deadline: float = 60.0
    notify: str | None = None


def parse(texts: Sequence[str]) -> MountOptions:
    """Parse the values of several `-o`, each a comma-separated list; of a repeated option the last wins.

    A comma within a value is written `\\,`. A relative `memory` is resolved now. Raises
    `OptionError`.
    """
    options = MountOptions()
    for text in texts:
        for word in _words(text):
            options = _with(options, word)
    return options


def _words(text: str) -> Iterator[str]:
    for word in UNESCAPED_COMMA.split(text):
        if word:
            yield word.replace("\\,", ",")


def _with(options: MountOptions, word: str) -> MountOptions:
    name, equals, value = word.partition("=")
    if name in SWITCHES:
        if equals:
            raise OptionError(f"option {name} takes no value")
        field, setting = SWITCHES[name]
        return replace(options, **{field: setting})
    if name in VALUED:
        if not value:
            raise OptionError(f"option {name} needs a value, such as {name}={EXAMPLES[name]}")
        return replace(options, **{name: VALUED[name](name, value)})
    if _is_generic(name, has_value=bool(equals)):
        return options
    raise OptionError(_unknown(name))


def _is_generic(name: str, *, has_value: bool) -> bool:
    if name.startswith(GENERIC_PREFIXES):
        return True
    return name in (GENERIC_WITH_VALUE if has_value else GENERIC)


def _unknown(name: str) -> str:
    own = sorted({*SWITCHES, *VALUED} - {"rw"})
    near = difflib.get_close_matches(name, own, n=1)
    if near:
        return f"unknown option {name}; did you mean {near[0]}?"
    return f"unknown option {name}; there are {', '.join(own)}"


def _size(name: str, value: str) -> int:
    found = SIZE.fullmatch(value)
    size = int(found[1]) << (10 * " KMGT".index(found[2].upper() or " ")) if found else 0
    if not 0 < size < 2**63:
        raise OptionError(f"option {name}={value} is not a size, such as 512K, 64M or 1G")
    return size


def _seconds(name: str, value: str) -> float:
    seconds = int(value) if NUMBER.fullmatch(value) and len(value) < 8 else 0
    if not seconds:
        raise OptionError(f"option {name}={value} is not a number of seconds, such as 60")
    return float(seconds)


def _owner(name: str, value: str) -> int:
    """A user or group, by number or by name."""
    try:
        if NUMBER.fullmatch(value):
            number = int(value)
        else:
            number = pwd.getpwnam(value).pw_uid if name == "uid" else grp.getgrnam(value).gr_gid
    except KeyError:
        kind = "user" if name == "uid" else "group"
        raise OptionError(f"option {name}={value} names no {kind} of this system") from None
    if number >= 2**32 - 1:
        raise OptionError(f"option {name}={value} is beyond the greatest number, {2**32 - 2}")
    return number


def _umask(name: str, value: str) -> int:
    if not OCTAL.fullmatch(value) or int(value, 8) > 0o777:
        raise OptionError(f"option {name}={value} is not an octal mask, such as 027")
    return int(value, 8)


def _memory(_name: str, value: str) -> str:
    return value if value == "none" else os.path.abspath(value)


def _redis(name: str, value: str) -> str:
    """The URL of a Redis. No connection is tried: hints are not worth delaying a mount."""
    try:
        parts = urlsplit(value)
        place = parts.path if parts.scheme == "unix" else parts.hostname and parts.port != 0
    except ValueError:  # an invalid port
        place = None
    if not place or parts.scheme not in REDIS_SCHEMES:
        raise OptionError(f"option {name} is no URL of a Redis, such as {EXAMPLES[name]}")
    return value


def _sync(name: str, value: str) -> Sync:
    try:
        return Sync(value)
    except ValueError:
        raise OptionError(f"option {name}={value} is none of close, always, never") from None


SWITCHES: dict[str, tuple[str, Any]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "allow_other": ("allow_other", True),
}
VALUED: dict[str, Callable[[str, str], Any]] = {
    "uid": _owner,
    "gid": _owner,
    "umask": _umask,
    "memory": _memory,
    "cache": _size,
    "line_limit": _size,
    "pending": _size,
    "deadline": _seconds,
    "notify": _redis,
    "sync": _sync,
}
EXAMPLES = {
    "uid": "1000",
    "gid": "1000",
    "umask": "027",
    "memory": "/srv/crabtalk/memory.db",
    "cache": "64M",
    "line_limit": "16M",
    "pending": "64M",
    "deadline": "60",
    "notify": "redis://redis.example:6379",
    "sync": "close",
}
