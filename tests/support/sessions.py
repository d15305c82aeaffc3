"""Sessions that a test makes in a store, and a check of the error of a refused call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import StoreError
from storage.session import meta
from storage.times import now


def put_session(root: Path, slug: str) -> Path:
    """Make a directory of that name with a meta; for a slug, a session."""
    (root / slug).mkdir()
    (root / slug / "meta").write_bytes(meta.fresh("a", "b", now()))
    return root / slug


def refused(number: int, call: Callable[..., object], *args: object, **named: bool) -> StoreError:
    """Call, which must fail with a `StoreError` of that errno; return the error."""
    with pytest.raises(StoreError) as caught:
        call(*args, **named)
    assert caught.value.errno == number, caught.value.sentence
    return caught.value
