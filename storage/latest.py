"""The latest session of each agent and sender: `.stepfs/latest/`.

Which one that is depends on the version of the daemon. Earlier ones take the greatest number among the
slugs that begin with the two names. Later ones, whose slugs are ULIDs, take the newest by the metas,
whatever the slugs: the one whose `created_at`, compared as text, is the greatest, then whose slug is. A
pair of agent and sender is ruled as the later ones do once one of its sessions has a ULID.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.formats.slug import (
    is_ulid,
    parse_session,
    sender_slug,
    sequence_number,
    session_prefix,
)
from storage.session.meta import Meta

MetaOf = Callable[[str], Meta | None]
"""The meta of a session, None for a broken one. It is asked only where there are ULIDs."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, order=True)
class _Dated:
    """A session, ordered as the later versions of the daemon do."""

    created_at: str
    raw_slug: bytes


def links(slugs: Iterable[str], meta_of: MetaOf) -> dict[str, str]:
    """Per `<agent>_<sender>` the latest session of `slugs`; where two pairs share a name, the newest."""
    slugs = list(slugs)
    if not any(map(is_ulid, slugs)):
        return _greatest(slugs)
    pairs, dated = _looked_at(slugs, meta_of)
    with_ulids = {pairs[slug] for slug in slugs if is_ulid(slug) and slug in pairs}
    candidates: dict[str, _Dated] = {}

    def offer(name: str, session: _Dated) -> None:
        candidates[name] = max(candidates.get(name, session), session)

    for slug, pair in pairs.items():
        if pair in with_ulids:
            offer("_".join(map(sender_slug, pair)), dated[slug])
    for name, slug in _greatest(
        slug for slug in slugs if pairs.get(slug) not in with_ulids
    ).items():
        offer(name, dated.get(slug, _Dated("", os.fsencode(slug))))
    return {name: os.fsdecode(session.raw_slug) for name, session in candidates.items()}


def session_of(agent: str, created_by: str, slugs: Iterable[str], meta_of: MetaOf) -> str | None:
    """The latest session of `slugs` of this agent and sender, None if there is none."""
    slugs = list(slugs)
    if any(map(is_ulid, slugs)):
        pairs, dated = _looked_at(slugs, meta_of)
        own = [slug for slug, pair in pairs.items() if pair == (agent, created_by)]
        if any(map(is_ulid, own)):
            return max(own, key=lambda slug: dated[slug])
    prefix = session_prefix(agent, created_by)
    numbered = (
        (sequence_number(slug[len(prefix) :]), slug) for slug in slugs if slug.startswith(prefix)
    )
    return max((pair for pair in numbered if pair[0] is not None), default=(0, None))[1]


def _looked_at(slugs: Iterable[str], meta_of: MetaOf) -> tuple[dict[str, Pair], dict[str, _Dated]]:
    pairs, dated = {}, {}
    for slug in slugs:
        if (meta := meta_of(slug)) is not None:
            pairs[slug] = meta["agent"], meta["created_by"]
            dated[slug] = _Dated(meta["created_at"], os.fsencode(slug))
    return pairs, dated


def _greatest(slugs: Iterable[str]) -> dict[str, str]:
    greatest: dict[str, tuple[int, str]] = {}
    for slug in slugs:
        name, _, tail = slug.rpartition("_")
        seq = sequence_number(tail)
        if seq is None or (name not in greatest and parse_session(f"{name}_1") is None):
            continue
        greatest[name] = max(greatest.get(name, (-1, "")), (seq, slug))
    return {name: slug for name, (_, slug) in greatest.items()}
