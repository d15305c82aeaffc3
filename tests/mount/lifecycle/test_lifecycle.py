"""A mount from its start to its end: signals, dead mounts, a service manager (G18)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fusefs import mounts as mountinfo
from fusefs.exits import Exit
from tests.support.commands import (
    SECONDS,
    STEPFS,
    clear,
    ended,
    environment,
    foreground,
    is_mounted,
    mounted,
    run,
    server_pid,
    stepfs,
    until,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)


def live(server: subprocess.Popen[str], mountpoint: Path) -> None:
    until(lambda: is_mounted(mountpoint) or server.poll() is not None)
    assert server.poll() is None
    assert os.listdir(mountpoint)


def test_the_command_returns_when_the_mount_is_live(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    assert set(os.listdir(mountpoint)) == {".stepfs", *os.listdir(store)}
    found = mountinfo.top(str(mountpoint))
    assert found is not None
    assert (found.kind, found.source) == ("fuse.stepfs", str(store))


@pytest.mark.parametrize("stay", [[], ["-f"]])
def test_a_refusal_by_the_kernel_is_reported_in_one_line(
    store: Path, mountpoint: Path, stay: list[str]
) -> None:
    command = [*STEPFS, "mount", *stay, str(store), str(mountpoint)]
    without = ["setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin"]
    answer = run([*without, *command])
    assert answer.returncode == Exit.PERMISSION
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.endswith(": Operation not permitted\n")


def test_umount_returns_when_the_server_has_finished(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    pid = server_pid(mountpoint)
    answer = stepfs("umount", mountpoint)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not is_mounted(mountpoint)
    assert ended(pid)


def test_the_server_holds_nothing_of_the_shell_that_started_it(
    store: Path, mountpoint: Path
) -> None:
    """Its pipes close, its directory is free, and Ctrl-C in it does not reach the server."""
    reading, writing = os.pipe()
    with open(reading, "rb") as ends:
        subprocess.run(
            [*STEPFS, "mount", store, mountpoint],
            env=environment(),
            cwd=store,
            pass_fds=[writing],
            timeout=SECONDS,
            check=True,
        )
        os.close(writing)
        assert ends.read() == b""
    pid = server_pid(mountpoint)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid


def test_relative_paths_are_those_of_the_caller(store: Path, mountpoint: Path) -> None:
    subprocess.run(
        [*STEPFS, "mount", "store", "mnt/"],
        env=environment(),
        cwd=store.parent,
        timeout=SECONDS,
        check=True,
    )
    assert is_mounted(mountpoint)


def test_a_second_start_is_refused_and_the_first_goes_on(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    answer = stepfs("mount", store, mountpoint)
    assert answer.returncode == Exit.MOUNTPOINT
    assert answer.stderr == (
        f"stepfs: {store} is already mounted at {mountpoint}; "
        f"unmount it first: stepfs umount {mountpoint}\n"
    )
    assert os.listdir(mountpoint)


def test_of_many_starts_at_once_one_is_live(store: Path, mountpoint: Path) -> None:
    starts = [
        subprocess.Popen(
            [*STEPFS, "mount", store, mountpoint], env=environment(), stderr=subprocess.DEVNULL
        )
        for _ in range(6)
    ]
    codes = sorted(start.wait(SECONDS) for start in starts)
    assert codes == [0] + [Exit.MOUNTPOINT] * 5
    assert [m.mountpoint for m in mountinfo.mounts()].count(str(mountpoint)) == 1


def test_a_dead_mount_is_cleared_and_one_elsewhere_left_alone(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (mountpoint, elsewhere):
        mounted(store, place)
        os.kill(server_pid(place), signal.SIGKILL)
    until(lambda: mountinfo.health(str(mountpoint)) is mountinfo.Health.DEAD)
    until(lambda: mountinfo.health(str(elsewhere)) is mountinfo.Health.DEAD)
    told = stepfs("status", mountpoint)
    assert told.returncode == Exit.NOT_STEPFS
    assert f"clear the mount: stepfs umount {mountpoint}" in told.stderr
    mounted(store, mountpoint)
    assert os.listdir(mountpoint)
    assert [m.mountpoint for m in mountinfo.mounts()].count(str(mountpoint)) == 1
    assert is_mounted(elsewhere)
    assert stepfs("umount", elsewhere).returncode == 0
    assert not is_mounted(elsewhere)


def test_a_mount_that_hangs_is_neither_waited_for_nor_cleared(
    store: Path, mountpoint: Path
) -> None:
    mounted(store, mountpoint)
    pid = server_pid(mountpoint)
    os.kill(pid, signal.SIGSTOP)
    try:
        second = stepfs("mount", store, mountpoint)
        assert second.returncode == Exit.MOUNTPOINT
        assert "is already mounted" in second.stderr
        assert "does not answer" in second.stderr
        assert stepfs("status", mountpoint).returncode == Exit.FAILED
        assert is_mounted(mountpoint)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert os.listdir(mountpoint)


def test_a_mount_in_use_is_unmounted_only_lazily(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    pid = server_pid(mountpoint)
    with subprocess.Popen(["sleep", "1000"], cwd=mountpoint) as sleeper:
        try:
            busy = stepfs("umount", mountpoint)
            assert busy.returncode == Exit.FAILED
            assert f"in use by sleep (pid {sleeper.pid})" in busy.stderr
            assert f"stepfs umount -l {mountpoint}" in busy.stderr
            assert is_mounted(mountpoint)
            assert stepfs("umount", "--lazy", mountpoint).returncode == 0
            assert not is_mounted(mountpoint)
        finally:
            sleeper.kill()
    until(lambda: ended(pid))


@contextmanager
def namespace_of_its_own() -> Iterator[subprocess.Popen[bytes]]:
    """A process with its own copy of all mounts, like a container's."""
    process = subprocess.Popen(["unshare", "-m", "sleep", "1000"])
    here = os.readlink("/proc/self/ns/mnt")
    try:
        until(lambda: os.readlink(f"/proc/{process.pid}/ns/mnt") != here)
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_mount_kept_by_another_namespace_is_reported_and_not_waited_for(
    store: Path, mountpoint: Path
) -> None:
    mounted(store, mountpoint)
    pid = server_pid(mountpoint)
    with namespace_of_its_own() as keeper:
        began = time.monotonic()
        answer = stepfs("umount", mountpoint)
        assert time.monotonic() - began < 10
        assert answer.returncode == Exit.FAILED
        assert f"the mount namespace of sleep (pid {keeper.pid}) still holds it" in answer.stderr
        assert not is_mounted(mountpoint)
        assert not ended(pid)
    until(lambda: ended(pid))


def test_a_server_whose_mount_was_replaced_leaves_the_new_one(
    store: Path, mountpoint: Path
) -> None:
    mounted(store, mountpoint)
    old = server_pid(mountpoint)
    with namespace_of_its_own():
        assert run(["umount", str(mountpoint)]).returncode == 0
        mounted(store, mountpoint)
        new = server_pid(mountpoint)
        assert new != old
        os.kill(old, signal.SIGTERM)
        until(lambda: ended(old))
        assert os.listdir(mountpoint)
        assert server_pid(mountpoint) == new
        assert stepfs("umount", mountpoint).returncode == 0
        assert ended(new)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount_in_order(
    store: Path, mountpoint: Path, ending: signal.Signals
) -> None:
    with foreground(store, mountpoint) as server:
        live(server, mountpoint)
        server.send_signal(ending)
        assert server.wait(SECONDS) == 0
        assert not is_mounted(mountpoint)
        _, log = server.communicate(timeout=SECONDS)
        assert log.splitlines() == [
            f"stepfs: {store} is mounted at {mountpoint}",
            f"stepfs: unmounted {mountpoint}",
        ]


def test_a_shell_whose_directory_is_in_the_mount_does_not_keep_it(
    store: Path, mountpoint: Path
) -> None:
    with foreground(store, mountpoint) as server:
        live(server, mountpoint)
        with subprocess.Popen(["sleep", "1000"], cwd=mountpoint) as sleeper:
            try:
                server.terminate()
                assert server.wait(SECONDS) == 0
                assert not is_mounted(mountpoint)
            finally:
                sleeper.kill()


def test_a_signal_before_the_mount_is_live_leaves_nothing(store: Path, mountpoint: Path) -> None:
    for _ in range(5):
        with foreground(store, mountpoint) as server:
            until(lambda: server.poll() is not None or takes_signals(server.pid))
            server.terminate()
            assert server.wait(SECONDS) == 0
            assert not is_mounted(mountpoint)


def takes_signals(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_an_umount_from_outside_ends_the_server_cleanly(store: Path, mountpoint: Path) -> None:
    with foreground(store, mountpoint) as server:
        live(server, mountpoint)
        assert run(["umount", str(mountpoint)]).returncode == 0
        assert server.wait(SECONDS) == 0


def test_usr1_tells_what_the_server_is_doing(store: Path, mountpoint: Path) -> None:
    with foreground(store, mountpoint) as server:
        live(server, mountpoint)
        server.send_signal(signal.SIGUSR1)
        assert server.stderr is not None
        first = server.stderr.readline()
        assert "is mounted at" in first
        assert server.stderr.readline().startswith("stepfs: notice: ")
        assert os.listdir(mountpoint)


def test_the_service_manager_is_told_each_state(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    with ExitStack() as stack:
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS)

        def told(word: str) -> list[str]:
            """The next message of that kind, skipping WATCHDOG and STATUS."""
            while True:
                message = manager.recv(4096).decode().splitlines()
                if any(line.startswith(word) for line in message):
                    return message
                assert message[0].startswith(("WATCHDOG=1", "STATUS="))

        server = stack.enter_context(
            foreground(
                store,
                mountpoint,
                NOTIFY_SOCKET=str(tmp_path / "notify"),
                WATCHDOG_USEC="200000",
            )
        )
        ready = told("READY=1")
        assert ready[1].startswith("STATUS=")
        assert is_mounted(mountpoint)
        assert os.listdir(mountpoint)
        assert told("WATCHDOG=1") == told("WATCHDOG=1") == ["WATCHDOG=1"]
        server.send_signal(signal.SIGHUP)
        assert told("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        told("READY=1")
        server.terminate()
        assert told("STOPPING=1") == ["STOPPING=1"]
        assert server.wait(SECONDS) == 0


def test_a_mount_in_the_background_speaks_to_no_manager(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        answer = run(
            [*STEPFS, "mount", str(store), str(mountpoint)],
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        assert answer.returncode == 0
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_the_log_goes_to_the_file_and_as_json(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    file = tmp_path / "log"
    mounted(store, mountpoint, "--log-file", str(file), "--log-format", "json")
    assert stepfs("umount", mountpoint).returncode == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["message"] for line in lines] == [
        f"{store} is mounted at {mountpoint}",
        f"unmounted {mountpoint}",
    ]


def test_a_mount_on_top_of_another_is_unmounted_alone(store: Path, mountpoint: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mountpoint], check=True, timeout=SECONDS)
    try:
        mounted(store, mountpoint)
        assert stepfs("umount", mountpoint).returncode == 0
        below = mountinfo.top(str(mountpoint))
        assert below is not None
        assert below.kind == "tmpfs"
    finally:
        clear(mountpoint.parent)
        subprocess.run(["umount", "-l", mountpoint], check=True, timeout=SECONDS)


def test_a_path_inside_a_mount_is_told_where_the_mount_is(store: Path, mountpoint: Path) -> None:
    mounted(store, mountpoint)
    inside = mountpoint / os.listdir(mountpoint)[0]
    answer = stepfs("umount", inside)
    assert answer.returncode == Exit.NOT_STEPFS
    assert f"the mount is {mountpoint}" in answer.stderr


def test_a_kernel_without_an_inotify_queue_left_is_said_in_one_sentence(
    store: Path, mountpoint: Path
) -> None:
    """In a user namespace, whose inotify limit affects nobody else."""
    limit = "/proc/sys/user/max_inotify_instances"
    script = f'echo 0 > {limit} && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, "sh", *STEPFS]
    answer = run([*words, "mount", str(store), str(mountpoint)])
    assert answer.returncode == Exit.STORE
    assert answer.stderr == (
        "stepfs: the kernel gives no inotify queue: raise fs.inotify.max_user_instances\n"
    )
