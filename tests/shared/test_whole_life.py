"""The past, forks and summaries of sessions between two hosts, inside a fixture (G25, G29 to G31)."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.shared.two_hosts import Host, both_hosts, until, user

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(300),
]
ORIGIN = "crab_tg-42_1"


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    """The store is mounted on both hosts, with a memory that both share beside it."""
    pair = both_hosts(f"life{abs(hash(request.node.name)):x}")
    memory = f"memory{pair[0].store.name}"
    (pair[0].store.parent / memory / "archives").mkdir(parents=True)
    until((pair[1].store.parent / memory / "archives").is_dir)
    with ExitStack() as stack:
        for host in pair:
            stack.enter_context(host.mounted(f"memory={host.store.parent / memory}"))
        (pair[0].path / ORIGIN).mkdir()
        until((pair[1].path / ORIGIN).is_dir)
        yield pair


def forked(host: Host, **how: object) -> str:
    with open(host.path / ".stepfs/create", "r+b", buffering=0) as control:
        control.write(json.dumps({"from": ORIGIN, **how}).encode() + b"\n")
        return control.read(300).decode().strip()


def first_message(host: Host) -> str:
    lines = (host.path / ORIGIN / "messages.jsonl").read_bytes().splitlines()
    return str(json.loads(lines[0])["content"])


@pytest.mark.guarantee("G29c", "G25a")
def test_the_epochs_that_another_host_ends_are_there_after_its_close(
    hosts: tuple[Host, Host],
) -> None:
    for epoch in range(1, 5):
        writer, reader = hosts if epoch % 2 else hosts[::-1]
        said = [f"{epoch}.{number}" for number in range(3)]
        writer.write(ORIGIN, [user(text) for text in said])
        assert reader.contents(ORIGIN, f".epochs/{epoch}/history.jsonl") == said
        with open(reader.path / ORIGIN / f".epochs/{epoch}/history.jsonl", "rb") as opened:
            writer.write(ORIGIN, [f"archive-{epoch}"], file="compact")
            names = sorted(os.listdir(reader.path / ORIGIN / ".epochs"))
            assert names == [str(number) for number in range(1, epoch + 2)]
            assert len(opened.read().splitlines()) == len(said)
        assert reader.contents(ORIGIN) == []
        for host in hosts:
            assert host.contents(ORIGIN, f".epochs/{epoch}/history.jsonl") == said
    assert [host.errors() for host in hosts] == [[], []]


@pytest.mark.guarantee("G30a", "G25a")
def test_the_past_at_a_step_is_the_same_on_both_hosts_whatever_comes_after_it(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    for number in range(6):
        hosts[number % 2].write(ORIGIN, [user(f"line {number}")])
        for host in hosts:
            at = [host.contents(ORIGIN, f".at/{n}/history.jsonl") for n in range(1, number + 2)]
            assert at == [[f"line {n}" for n in range(last + 1)] for last in range(number + 1)]
    a.write(ORIGIN, ["archive"], file="compact")
    assert b.contents(ORIGIN, ".at/6/history.jsonl") == [f"line {n}" for n in range(6)]
    assert b.contents(ORIGIN, ".at/7/history.jsonl") == b.contents(ORIGIN) == []
    with pytest.raises(OSError) as refused:
        (b.path / ORIGIN / ".at/3/history.jsonl").write_bytes(b"{}")
    assert refused.value.errno in (errno.EROFS, errno.EACCES)


@pytest.mark.guarantee("G30f", "G25a")
def test_a_fork_of_what_another_host_wrote_is_whole_on_both(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    a.write(ORIGIN, [user(f"line {number}") for number in range(8)])
    forks = {forked(host, at=last): last for last in (3, 8) for host in hosts}
    assert len(forks) == 4
    for slug, last in forks.items():
        for host in hosts:
            until(partial((host.path / slug).is_dir))
            assert host.contents(slug) == host.contents(ORIGIN, f".at/{last}/history.jsonl")
            told = json.loads((host.path / slug / "meta.json").read_bytes())
            assert told["forked_from"] == {"session": ORIGIN, "step": last}
    for number, slug in enumerate(forks):
        writer, reader = hosts if number % 2 else hosts[::-1]
        writer.write(slug, [user("goes on")])
        assert reader.contents(slug)[-1] == "goes on"
    assert a.contents(ORIGIN) == b.contents(ORIGIN) == [f"line {number}" for number in range(8)]


@pytest.mark.guarantee("G31a", "G25a")
def test_the_summary_that_another_host_stores_begins_the_messages_after_its_close(
    hosts: tuple[Host, Host],
) -> None:
    for number in range(4):
        writer, reader = hosts if number % 2 else hosts[::-1]
        writer.write(ORIGIN, [user(f"line {number}")])
        summary = json.dumps({"archive_name": f"a-{number}", "summary": f"what was {number}"})
        writer.write(ORIGIN, [summary], file="compact")
        assert f"what was {number}" in first_message(reader)
        assert first_message(reader) == first_message(writer)
        assert (reader.path / ORIGIN / "compact").read_text() == f"a-{number}\n"
