"""The `-o` options of a mount, and the answers to mistakes in them."""

from __future__ import annotations

import os
import pwd

import pytest

from fusefs.config import MountOptions, OptionError, Sync, parse


def test_nothing_asked_is_the_documented_default() -> None:
    assert parse([]) == MountOptions(
        read_only=False,
        allow_other=False,
        uid=None,
        gid=None,
        umask=0,
        memory=None,
        cache=64 * 2**20,
        line_limit=16 * 2**20,
        sync=Sync.CLOSE,
    )


def test_every_option_of_several_lists_is_taken() -> None:
    asked = parse(
        [
            "ro,allow_other",
            "uid=12,gid=34,umask=027",
            "memory=/srv/memory.db,cache=1G,line_limit=512K,sync=always",
        ]
    )
    assert asked == MountOptions(
        True, True, 12, 34, 0o027, "/srv/memory.db", 2**30, 512 * 2**10, Sync.ALWAYS
    )


def test_the_last_of_a_repeated_option_counts() -> None:
    assert parse(["ro,cache=1M", "rw,cache=2M"]) == MountOptions(cache=2 * 2**20)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1k", 2**10),
        ("3M", 3 * 2**20),
        ("2GiB", 2 * 2**30),
        ("1T", 2**40),
        ("4MB", 2**22),
    ],
)
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert parse([f"cache={text}"]).cache == size


def test_users_and_groups_may_be_named() -> None:
    me = pwd.getpwuid(0)
    assert parse([f"uid={me.pw_name},gid=0"]) == MountOptions(uid=0, gid=0)


def test_the_memory_is_absolute_or_none(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert parse(["memory=none"]).memory == "none"
    assert parse(["memory=m.db"]).memory == os.path.join(str(tmp_path), "m.db")
    assert parse(["memory=/a\\,b"]).memory == "/a,b"


def test_what_mount_and_fstab_hand_to_every_file_system_changes_nothing() -> None:
    generic = (
        "defaults,rw,_netdev,nofail,user,users,dev,nodev,suid,nosuid,exec,noexec,auto,noauto,"
        "x-systemd.automount,x-systemd.requires=a.service,X-mount.mkdir,user=alice,relatime,,"
    )
    assert parse([generic]) == MountOptions()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("allow_othr", "unknown option allow_othr; did you mean allow_other?"),
        ("cash=1M", "unknown option cash; did you mean cache?"),
        ("zzz", "unknown option zzz; there are allow_other, cache, deadline, gid, line_limit, memory, "
                "notify, pending, ro, sync, uid, umask"),
        ("sync", "option sync needs a value, such as sync=close"),
        ("memory=", "option memory needs a value, such as memory=/srv/crabtalk/memory.db"),
        ("ro=1", "option ro takes no value"),
        ("nodev=1", "unknown option nodev; there are"),
        ("cache=0", "option cache=0 is not a size, such as 512K, 64M or 1G"),
        ("cache=-1", "option cache=-1 is not a size"),
        ("cache=1X", "option cache=1X is not a size"),
        ("cache=٣M", "option cache=٣M is not a size"),
        ("cache=99999999T", "is not a size"),
        ("umask=8", "option umask=8 is not an octal mask, such as 027"),
        ("umask=1777", "option umask=1777 is not an octal mask"),
        ("uid=no-such-user", "option uid=no-such-user names no user of this system"),
        ("gid=no-such-group", "option gid=no-such-group names no group of this system"),
        ("uid=4294967295", "beyond the greatest number, 4294967294"),
        ("notify=redis://", "option notify is no URL of a Redis, such as redis://redis.example:6379"),
        ("notify=http://:secret@a", "option notify is no URL of a Redis"),
        ("notify=redis://a:port", "option notify is no URL of a Redis"),
        ("sync=later", "option sync=later is none of close, always, never"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_a_hint_at_what_is_allowed(text: str, sentence: str) -> None:
    with pytest.raises(OptionError) as refused:
        parse(["ro", f"{text},cache=1M"])
    assert sentence in str(refused.value)
