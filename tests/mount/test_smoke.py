"""The main job, end to end: read a history, append, compact."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry


@pytest.mark.guarantee("G5a", "G8a")
def test_an_appended_message_is_read_back_until_a_compaction(
    store: StoreOnDisk, mount: Callable[..., Mount]
) -> None:
    session = store.session("crab_tg-42_1", entry("first"))
    at = mount().path / session.slug
    (at / "append").write_bytes(b'{"role":"user","content":"second"}\n')
    assert (at / "history.jsonl").read_bytes() == entry("first") + b"\n" + entry("second") + b"\n"
    assert session.step(2) == entry("second")
    (at / "compact").write_text("archive-1\n")
    assert (at / "history.jsonl").read_bytes() == b""
    assert (at / "compact").read_text() == "archive-1\n"
