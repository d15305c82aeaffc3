"""The texts of archives, from an exported tree and from the database file."""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.archives import Memory

NAME = "crab-session-1"


@dataclass
class Entry:
    name: str
    content: str
    kind: int = 1
    aliases: list[str] = field(default_factory=list)


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def database(
    entries: list[Entry], magic: bytes = b"CRMEM\0", version: int = 1, flags: int = 0
) -> bytes:
    parts = [magic, struct.pack("<IH", version, flags), b"\1\2\3\4"]
    parts.append(struct.pack("<QI", 99, len(entries)))
    for number, entry in enumerate(entries):
        parts.append(struct.pack("<QQI", number, 1_700_000_000, entry.kind))
        parts += [string(entry.name), string(entry.content)]
        parts.append(struct.pack("<I", len(entry.aliases)))
        parts += map(string, entry.aliases)
    return b"".join(parts)


def replace(path: Path, data: bytes) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(data)
    aside.rename(path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "memory" / "archives").mkdir(parents=True)
    return tmp_path / "memory"


def test_without_a_memory_no_text_is_known() -> None:
    memory = Memory(None)
    assert memory.text(NAME) is None
    assert memory.version() == memory.version(NAME)
    memory.close()


@pytest.mark.guarantee("G31d")
def test_by_default_the_database_beside_the_store_counts_and_else_the_tree(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    for store in (f"{tmp_path}/sessions", f"{tmp_path}/sessions/"):
        memory = Memory.beside(store)
        assert memory.text(NAME) is None
        (tmp_path / "memory" / "archives").mkdir(parents=True, exist_ok=True)
        (tmp_path / "memory" / "archives" / f"{NAME}.md").write_text("of the tree")
        assert memory.text(NAME) == "of the tree"
        before = memory.version(NAME)
        (tmp_path / "memory.db").write_bytes(database([Entry(NAME, "of the database")]))
        assert memory.text(NAME) == "of the database"
        assert memory.version(NAME) != before
        memory.close()
        (tmp_path / "memory.db").unlink()
        (tmp_path / "memory" / "archives" / f"{NAME}.md").unlink()


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_an_archive_is_the_entry_of_its_name_whatever_its_kind(path: Path, kind: int) -> None:
    entries = [
        Entry("note", " n "),
        Entry(NAME, " text\nwith é \n", kind, ["x", "ü"]),
        Entry("", ""),
    ]
    path.write_bytes(database(entries))
    memory = Memory(str(path))
    assert memory.text(NAME) == " text\nwith é \n"
    assert memory.text("note") == " n "
    assert memory.text("") == ""
    assert memory.text("x") is None
    memory.close()


def test_a_replaced_database_is_read_again(path: Path) -> None:
    path.write_bytes(database([Entry(NAME, "old")]))
    memory = Memory(str(path))
    assert memory.text(NAME) == "old"
    before = memory.version(NAME)
    assert memory.version(NAME) == before
    replace(path, database([Entry(NAME, "new")]))
    assert memory.version(NAME) != before
    assert memory.text(NAME) == "new"
    path.unlink()
    assert memory.text(NAME) is None
    replace(path, database([Entry(NAME, "again")]))
    assert memory.text(NAME) == "again"
    memory.close()


def test_reading_again_and_again_keeps_one_descriptor(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    path.write_bytes(database([]))
    memory = Memory(str(path))
    for number in range(20):
        replace(path, database([Entry(NAME, str(number))]) if number % 3 else b"CRMEM")
        memory.text(NAME)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    memory.close()
    assert len(os.listdir("/proc/self/fd")) == before


GOOD = [Entry(NAME, "text"), Entry("b", "text", aliases=["c"])]
WRONG = {
    "magic": database(GOOD, magic=b"CRMEM\1"),
    "version": database(GOOD, version=2),
    "flags": database(GOOD, flags=1),
    "kind": database([*GOOD, Entry("d", "", kind=3)]),
    "empty": b"",
    "count": database(GOOD)[:24] + b"\xff\xff\xff\xff" + database(GOOD)[28:],
    "length": database(GOOD)[:48] + b"\xff\xff\xff\xff" + database(GOOD)[52:],
    "not UTF-8": database(GOOD).replace(b"text", b"te\xfft"),
    "alias not UTF-8": database([Entry(NAME, "text", aliases=["QQ"])]).replace(b"QQ", b"\xff\xff"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_database_is_unusable_and_warned_of_once_a_version(
    path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    path.write_bytes(WRONG[wrong])
    memory = Memory(str(path))
    assert [memory.text(name) for name in (NAME, "b", NAME)] == [None] * 3
    assert len(warnings(caplog)) == 1
    assert str(path) in warnings(caplog)[0]
    replace(path, WRONG[wrong])
    assert memory.text(NAME) is None
    assert len(warnings(caplog)) == 2
    replace(path, database(GOOD))
    assert memory.text(NAME) == "text"
    assert len(warnings(caplog)) == 2
    memory.close()


def test_a_fifo_or_a_missing_file_is_refused_as_a_memory(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(str(path))
    assert memory.text(NAME) is None
    assert warnings(caplog) == []
    os.mkfifo(path)
    assert memory.text(NAME) is None
    assert memory.text(NAME) is None
    assert len(warnings(caplog)) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
entries = st.lists(
    st.builds(Entry, texts, texts, st.integers(0, 2), st.lists(texts, max_size=3)), max_size=6
)


@given(entries, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_database_is_read_back_and_every_cut_one_refused(
    path: Path, written: list[Entry], data: st.DataObject
) -> None:
    whole = database(written)
    replace(path, whole)
    memory = Memory(str(path))
    for name, content in {entry.name: entry.content for entry in written}.items():
        assert memory.text(name) == content
    replace(path, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert [memory.text(entry.name) for entry in written] == [None] * len(written)
    memory.close()


@given(st.binary(max_size=80), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_the_reader_fail(path: Path, rest: bytes, header: bool) -> None:
    replace(path, database([])[:16] + rest if header else rest)
    memory = Memory(str(path))
    memory.text(NAME)
    memory.close()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("\n  text é \n\n", "text é"),
        ('<div id="meta">\n<dl>x</dl>\n</div>\n\nthe text\n', "the text"),
        ('\n<div id="meta"></div>text<div id="meta">kept</div>', 'text<div id="meta">kept</div>'),
        ('text <div id="meta">x</div>', 'text <div id="meta">x</div>'),
        ('<div id="meta">never closed', '<div id="meta">never closed'),
        ("", ""),
    ],
)
def test_the_meta_block_and_space_around_are_no_content(
    tree: Path, content: str, text: str
) -> None:
    (tree / "archives" / f"{NAME}.md").write_text(content)
    assert Memory(str(tree)).text(NAME) == text


def test_a_file_of_the_tree_is_read_as_it_is_now(tree: Path) -> None:
    memory = Memory(str(tree))
    file = tree / "archives" / f"{NAME}.md"
    versions = [memory.version(NAME)]
    assert memory.text(NAME) is None
    for content in ("one", "other", "third"):
        file.write_text(content)
        versions.append(memory.version(NAME))
        assert memory.text(NAME) == content
    assert len(set(versions)) == 4


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "", "a\0b", "x" * 300])
def test_no_archive_name_leads_out_of_the_tree(
    tree: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (tree / "secret.md").write_text("secret")
    (tree / "archives" / "a").mkdir()
    (tree / "archives" / "a" / "b.md").write_text("secret")
    (tree / "archives" / ".md").write_text("secret")
    memory = Memory(str(tree))
    assert memory.text(name) is None
    assert warnings(caplog) == []
    memory.version(name)


def test_dots_in_an_archive_name_are_only_dots(tree: Path) -> None:
    (tree / "archives" / "...md").write_text("dots")
    assert Memory(str(tree)).text("..") == "dots"


def test_only_regular_files_of_the_tree_have_a_text(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "secret.md").write_text("secret")
    archives = tree / "archives"
    (archives / "link.md").symlink_to("../secret.md")
    (archives / "loop.md").symlink_to("loop.md")
    (archives / "directory.md").mkdir()
    os.mkfifo(archives / "fifo.md")
    memory = Memory(str(tree))
    for name in ("link", "loop", "directory", "fifo"):
        assert memory.text(name) is None
    assert warnings(caplog) == []


def test_a_file_of_the_tree_that_is_not_utf8_is_warned_of_once(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "archives" / f"{NAME}.md").write_bytes(b"caf\xe9")
    memory = Memory(str(tree))
    assert memory.text(NAME) is None
    assert memory.text(NAME) is None
    assert len(warnings(caplog)) == 1


def test_a_tree_may_become_a_database(tree: Path) -> None:
    (tree / "archives" / f"{NAME}.md").write_text("tree")
    memory = Memory(str(tree))
    assert memory.text(NAME) == "tree"
    tree.rename(tree.with_name("old"))
    tree.write_bytes(database([Entry(NAME, "file")]))
    assert memory.text(NAME) == "file"
    memory.close()
