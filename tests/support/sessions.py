"""Sessions in a store that a test holds open, and how a refusal is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import StoreError
from storage.session import meta
from storage.times import now


def put_session(root: Path, slug: str) -> Path:
    """Make a session, or what only looks like one, of that name."""
    (root / slug).mkdir()
    (root / slug / "meta").write_bytes(meta.fresh("a", "b", now()))
    return root / slug


def refused(number: int, call: Callable[..., object], *args: object, **named: bool) -> StoreError:
    """The error that a call is refused with, which has that errno."""
    with pytest.raises(StoreError) as caught:
        call(*args, **named)
    assert caught.value.errno == number, caught.value.sentence
    return caught.value
