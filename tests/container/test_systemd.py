"""The installed service under a real systemd, from its start to its removal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.documents.pool import MEMORY_BYTES
from tests.container.machine import Machine, NoMachineError, base, copied, eventually
from tests.support.readme import blocks
from tests.support.redis import NO_REDIS, Redis

PROJECT = Path(__file__).resolve().parents[2]
UNIT = "stepfs@demo.service"
STORE, MOUNTPOINT = "/srv/store", "/srv/sessions"
CONFIGURATION = f"STORE={STORE}\nMOUNTPOINT={MOUNTPOINT}\nOPTIONS=allow_other\n"
DROP_IN = "/etc/systemd/system/stepfs@demo.service.d/test.conf"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root with the distribution, and stepfs installed by `make install`."""
    try:
        source = base()
    except NoMachineError as reason:
        pytest.skip(f"no container with systemd can be made here: {reason}")
    root = tmp_path_factory.mktemp("machine") / "root"
    copied(source, root)
    subprocess.run(
        ["make", "-C", PROJECT, "install", f"DESTDIR={root}", "EXTRAS=redis"],
        check=True,
        capture_output=True,
    )
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def machine(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    root = tmp_path_factory.mktemp("booted") / "root"
    copied(installed, root)
    try:
        with Machine(root) as booted:
            booted.sh("useradd --create-home crab; useradd --create-home dolphin")
            yield booted
    except NoMachineError as reason:
        pytest.skip(str(reason))
    finally:
        shutil.rmtree(root)


@pytest.fixture
def store(machine: Machine) -> Iterator[str]:
    """A sample store; yields one of its sessions."""
    machine.sh(f"stepfs demo {STORE} && mkdir -p /etc/stepfs")
    machine.run("sh", "-c", "cat >/etc/stepfs/demo.conf", text=CONFIGURATION)
    yield machine.sh(f"ls {STORE} | head -n 1").strip()
    machine.sh(f"rm -rf {STORE} /etc/stepfs/demo.conf; rmdir {MOUNTPOINT} || true")


@pytest.fixture
def session(machine: Machine, store: str) -> Iterator[str]:
    """The running service; yields the path of a session in the mount."""
    machine.run("systemctl", "start", UNIT)
    yield f"{MOUNTPOINT}/{store}"
    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "reset-failed", UNIT, check=False)
    assert not mounted(machine)


def mounted(machine: Machine, mountpoint: str = MOUNTPOINT) -> bool:
    return (
        machine.run("findmnt", "-n", "-t", "fuse.stepfs", mountpoint, check=False).returncode == 0
    )


def append(machine: Machine, session: str, text: str, user: str | None = None) -> None:
    line = f'{{"role":"user","content":"{text}"}}'
    machine.sh(f"printf '%s\\n' '{line}' >{session}/append", user=user)
    assert text in machine.sh(f"cat {session}/history.jsonl", user=user)


def kill(machine: Machine, number: signal.Signals, unit: str = UNIT) -> None:
    machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", unit)


def test_the_mount_is_seen_and_used_from_outside_of_the_unit(
    machine: Machine, session: str
) -> None:
    assert mounted(machine)
    assert machine.run("findmnt", "-no", "SOURCE", MOUNTPOINT).stdout.strip() == STORE
    append(machine, session, "from outside")
    assert STORE in machine.show(UNIT, "StatusText")


def test_another_user_reads_what_the_store_lets_everybody_read(
    machine: Machine, session: str
) -> None:
    machine.sh(f"chmod -R a+rX {STORE}")
    machine.run("cat", f"{session}/history.jsonl", user="dolphin")


def test_a_reload_goes_on_with_the_same_process(machine: Machine, session: str) -> None:
    before = machine.show(UNIT, "MainPID")
    machine.run("systemctl", "reload", UNIT)
    assert machine.show(UNIT, "MainPID") == before
    assert machine.show(UNIT, "ActiveState") == "active"
    append(machine, session, "after the reload")


def test_workers_for_long_documents_start_work_and_are_bounded_under_the_hardening(
    machine: Machine, session: str
) -> None:
    machine.sh(
        """python3 -c 'print("{\\"role\\":\\"user\\",\\"content\\":[" + "[]," * 400000 + "1]}")'"""
        f" >{session}/append; cd {session}; wc -c history.jsonl messages.jsonl history.md log.jsonl"
    )
    assert machine.run("tail", "-c", "8", f"{session}/history.jsonl").stdout == "[],1]}}\n"
    server = machine.show(UNIT, "MainPID")
    bounded = machine.sh(
        f"for pid in $(pgrep -P {server}); do"
        " grep -qx 1000 /proc/$pid/oom_score_adj && grep 'Max address space' /proc/$pid/limits;"
        " done || true"
    )
    assert str(MEMORY_BYTES) in bounded


def test_a_killed_server_is_started_again_and_what_was_appended_is_there(
    machine: Machine, session: str
) -> None:
    append(machine, session, "before the kill")
    before = machine.show(UNIT, "MainPID")
    kill(machine, signal.SIGKILL)
    assert eventually(lambda: restarted(machine, before))
    assert machine.sh(f"cat {session}/history.jsonl").count("before the kill") == 1
    append(machine, session, "after the kill")


def restarted(machine: Machine, before: str) -> bool:
    return machine.show(UNIT, "MainPID") not in ("0", before) and (
        machine.show(UNIT, "ActiveState") == "active"
    )


@pytest.mark.usefixtures("session")
def test_a_server_killed_and_not_started_again_leaves_no_dead_mount(machine: Machine) -> None:
    machine.sh(
        f"mkdir -p {os.path.dirname(DROP_IN)}; printf '[Service]\\nRestart=no\\n' >{DROP_IN}"
    )
    machine.run("systemctl", "daemon-reload")
    try:
        assert mounted(machine)
        kill(machine, signal.SIGKILL)
        assert eventually(lambda: machine.show(UNIT, "ActiveState") == "failed")
        assert not mounted(machine)
        machine.run("ls", MOUNTPOINT)
    finally:
        machine.sh(f"rm -r {os.path.dirname(DROP_IN)}; systemctl daemon-reload")


def test_a_stop_succeeds_with_a_shell_in_the_mount_and_a_file_open(
    machine: Machine, session: str
) -> None:
    script = f"cd {session} && exec 3<history.jsonl && echo ready && exec sleep 60"
    with subprocess.Popen(machine.command("sh", "-c", script), stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"ready\n"
        try:
            machine.run("systemctl", "stop", UNIT)
            assert machine.show(UNIT, "Result") == "success"
            assert not mounted(machine)
        finally:
            shell.kill()


def test_a_hung_server_is_found_by_the_watchdog_and_started_again(
    machine: Machine, session: str
) -> None:
    machine.sh(
        f"systemctl stop {UNIT}; mkdir -p {os.path.dirname(DROP_IN)};"
        f"printf '[Service]\\nWatchdogSec=2\\nTimeoutAbortSec=2\\n' >{DROP_IN};"
        f"systemctl daemon-reload; systemctl start {UNIT}"
    )
    try:
        before = machine.show(UNIT, "MainPID")
        kill(machine, signal.SIGSTOP)
        assert eventually(lambda: restarted(machine, before))
        assert "Watchdog timeout" in machine.run("journalctl", "-u", UNIT, "--no-pager").stdout
        append(machine, session, "after the watchdog")
    finally:
        machine.sh(f"rm -r {os.path.dirname(DROP_IN)}; systemctl daemon-reload")


def test_it_serves_as_a_chosen_user(machine: Machine, store: str) -> None:
    machine.sh(
        f"chown -R crab: {STORE}; mkdir -p {os.path.dirname(DROP_IN)};"
        f"printf '[Service]\\nUser=crab\\n' >{DROP_IN}; systemctl daemon-reload"
    )
    try:
        machine.run("systemctl", "start", UNIT)
        assert machine.sh(f"ps -o user= -p {machine.show(UNIT, 'MainPID')}").strip() == "crab"
        append(machine, f"{MOUNTPOINT}/{store}", "as crab", user="crab")
        assert set(machine.sh(f"stat -c %U {STORE}/{store}/*").split()) == {"crab"}

        before = machine.show(UNIT, "MainPID")
        kill(machine, signal.SIGKILL)
        assert eventually(lambda: restarted(machine, before))
        append(machine, f"{MOUNTPOINT}/{store}", "as crab again", user="crab")
        machine.run("systemctl", "stop", UNIT)
        assert machine.show(UNIT, "Result") == "success"
        assert not mounted(machine)
    finally:
        machine.sh(f"systemctl stop {UNIT}; rm -r {os.path.dirname(DROP_IN)}")
        machine.run("systemctl", "daemon-reload")


@NO_REDIS
@pytest.mark.guarantee("G28b")
def test_with_the_drop_in_of_the_examples_hints_pass_through_the_hardening(
    machine: Machine, store: str, tmp_path: Path
) -> None:
    """The container has this machine's network, and so the Redis of this test."""
    redis = Redis(tmp_path, port=free_port())
    redis.start()
    configuration = CONFIGURATION.replace("allow_other", f"notify={redis.url}")
    machine.run("sh", "-c", "cat >/etc/stepfs/demo.conf", text=configuration)
    try:
        machine.run("systemctl", "start", UNIT)
        assert hints(machine)["state"] != "connected", "the unit has no network of its own"
        machine.sh(
            f"systemctl stop {UNIT}; mkdir -p {os.path.dirname(DROP_IN)};"
            f"sed s/192.0.2.10/127.0.0.1/ /usr/local/share/doc/stepfs/examples/notify.conf >{DROP_IN};"
            f"systemctl daemon-reload; systemctl start {UNIT}"
        )
        assert eventually(lambda: hints(machine)["state"] == "connected")
        append(machine, f"{MOUNTPOINT}/{store}", "hinted")
        assert eventually(lambda: hints(machine)["sent"] == 1)
    finally:
        machine.sh(f"systemctl stop {UNIT}; rm -rf {os.path.dirname(DROP_IN)}")
        machine.run("systemctl", "daemon-reload")
        redis.stop()


def hints(machine: Machine) -> dict[str, object]:
    status = json.loads(machine.sh(f"cat {MOUNTPOINT}/.stepfs/status.json"))
    found: dict[str, object] = status["notify"]
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.mark.usefixtures("store")
def test_a_missing_store_is_reported_in_one_sentence(machine: Machine) -> None:
    machine.sh(f"rm -r {STORE}")
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "reset-failed", UNIT, check=False)
    log = machine.run("journalctl", "-u", UNIT, "--no-pager").stdout
    assert STORE in log
    assert "Traceback" not in log


def test_a_user_has_a_service_of_their_own(machine: Machine) -> None:
    machine.sh("loginctl enable-linger crab")
    assert eventually(lambda: machine.run(
        "systemctl", "--user", "is-system-running", user="crab", check=False
    ).returncode == 0)  # fmt: skip
    machine.sh("mkdir -p ~/.crabtalk && stepfs demo ~/.crabtalk/sessions", user="crab")
    try:
        machine.sh(blocks()["container user"], user="crab")
        session = machine.sh("ls -d ~/crabtalk/*/ | head -n 1", user="crab").strip()
        append(machine, session, "at home", user="crab")
        assert machine.run("ls", "/home/crab/crabtalk", user="dolphin", check=False).returncode != 0

        before = machine.show("stepfs", "MainPID", user="crab")
        machine.run("kill", "-KILL", before, user="crab")
        assert eventually(
            lambda: (
                machine.show("stepfs", "MainPID", user="crab") not in ("0", before)
                and machine.show("stepfs", "ActiveState", user="crab") == "active"
            )
        )
        append(machine, session, "at home again", user="crab")
        machine.run("systemctl", "--user", "stop", "stepfs", user="crab")
        assert not mounted(machine, "/home/crab/crabtalk")
    finally:
        machine.run("systemctl", "--user", "disable", "--now", "stepfs", user="crab", check=False)
        machine.sh("loginctl disable-linger crab; rm -rf ~crab/.crabtalk")


def test_fstab_and_mount_know_the_type(machine: Machine, store: str) -> None:
    line = f"{STORE} {MOUNTPOINT} stepfs noauto,nofail,allow_other 0 0"
    machine.sh(f"mkdir -p {MOUNTPOINT}; cp /etc/fstab /tmp/fstab; echo '{line}' >>/etc/fstab")
    try:
        machine.run("mount", MOUNTPOINT)
        assert mounted(machine)
        append(machine, f"{MOUNTPOINT}/{store}", "by mount")
        machine.run("umount", MOUNTPOINT)
        machine.run("mount", "-t", "fuse.stepfs", STORE, MOUNTPOINT)
        assert mounted(machine)
        machine.run("umount", MOUNTPOINT)
        assert machine.run("mount", "-t", "stepfs", "/nowhere", MOUNTPOINT, check=False).returncode
    finally:
        machine.sh("mv /tmp/fstab /etc/fstab")
        machine.run("umount", MOUNTPOINT, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/autofs"), reason="this kernel has no /dev/autofs")
def test_an_automount_of_fstab_mounts_at_the_first_look(machine: Machine, store: str) -> None:
    line = f"{STORE} {MOUNTPOINT} stepfs noauto,nofail,allow_other,x-systemd.automount 0 0"
    machine.sh(f"mkdir -p {MOUNTPOINT}; cp /etc/fstab /tmp/fstab; echo '{line}' >>/etc/fstab")
    try:
        machine.sh("systemctl daemon-reload; systemctl start srv-sessions.automount")
        assert not mounted(machine)
        assert store in machine.run("ls", MOUNTPOINT).stdout
        assert mounted(machine)
    finally:
        machine.sh(
            "systemctl stop srv-sessions.mount srv-sessions.automount;"
            "mv /tmp/fstab /etc/fstab; systemctl daemon-reload"
        )


def test_uninstall_stops_what_runs_and_leaves_nothing(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    copied(installed, root)
    subprocess.run(["cp", "-r", PROJECT / "systemd", root / "root/systemd"], check=True)
    try:
        with Machine(root) as machine:
            machine.sh(f"stepfs demo {STORE}")
            machine.run("sh", "-c", "cat >/etc/stepfs/demo.conf", text=CONFIGURATION)
            machine.run("systemctl", "enable", "--now", UNIT)
            machine.run("/root/systemd/install.sh", "uninstall")
            assert not mounted(machine)
            assert machine.run("pgrep", "-f", "stepfs", check=False).stdout == ""
            assert machine.sh("find / -xdev -name '*stepfs*' -not -path '/root/*'").split() == [
                "/etc/stepfs"
            ], "the administrator's own configuration stays"
            units = machine.run("systemctl", "list-unit-files", "stepfs*", check=False).stdout
            assert "0 unit files listed" in units
    finally:
        shutil.rmtree(root)


def test_the_commands_of_the_readme_start_a_service(machine: Machine) -> None:
    machine.sh("stepfs demo /home/crab/.crabtalk/sessions")
    try:
        said = machine.sh(blocks()["container"])
        assert "active (running)" in said
        assert machine.sh("ls /srv/sessions") == machine.sh("ls /home/crab/.crabtalk/sessions")
    finally:
        machine.sh("systemctl disable --now stepfs@crab; rm -rf /home/crab/.crabtalk")
