"""Metas as the daemon writes them, and Hypothesis strategies for metas and patches."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from storage.session import meta

FULL = {
    "agent": "Crab",
    "created_by": "tg:42",
    "created_at": "2026-01-01T00:00:00+00:00",
    "title": "",
    "updated_at": "",
    "message_count": 0,
}
REQUIRED = {key: FULL[key] for key in ("agent", "created_by", "created_at")}

_keys = st.sampled_from(["a", "b", "c", "é"])
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3)
)
objects = st.dictionaries(_keys, _values, max_size=4)
"""Members of JSON objects."""


def compact(value: object) -> bytes:
    """Compact JSON, as the daemon writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def patching(patch: dict[str, Any]) -> meta.Change:
    """The change that merges `patch` into a meta."""
    return lambda value: meta.merged(value, patch)


def rfc7396(target: Any, patch: Any) -> Any:
    """MergePatch, literally as in section 2 of the RFC."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        target = dict(target)
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = rfc7396(target.get(name), value)
        return target
    return patch
