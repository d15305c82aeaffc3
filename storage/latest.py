"""The latest session of each agent and sender: `.stepfs/latest/`.

Which one that is depends on the version of the daemon. Earlier ones take the greatest number among the
slugs that begin with the two names. Later ones, whose slugs are ULIDs, take the newest by the metas,
whatever the slugs: the one whose `created_at`, compared as text, is the greatest, then whose slug is. A
pair of agent and sender is ruled as the later ones do once one of its sessions has a ULID.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

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
_Numbered = tuple[int, str]
"""A session by its number and its slug."""
_COMPARED = ("agent", "created_by", "created_at")


@dataclass(frozen=True, slots=True, order=True)
class _Dated:
    """A session, ordered as the later versions of the daemon do."""

    created_at: str
    raw_slug: bytes


class Latest:
    """What `links` tells of sessions that come and go, at the cost of what changed.

    Where one has a ULID all are looked through again after a change, by metas that are kept.
    """

    def __init__(self, meta_of: MetaOf) -> None:
        self._meta_of = meta_of
        self._metas: dict[str, Meta | None] = {}
        self._ulids: set[str] = set()
        self._greatest: dict[str, _Numbered] = {}
        self._doubtful: set[str] = set()
        """Pairs, by name, that have lost their greatest."""
        self._links: Mapping[str, str] | None = None
        """What was told last, None after a change."""

    def put(self, slug: str) -> None:
        """There is a session of that slug, or its meta is another."""
        self._links = None
        self._metas.pop(slug, None)
        if is_ulid(slug):
            self._ulids.add(slug)
        elif name := _pair_name(slug, self._greatest):
            _offer(self._greatest, name, slug)

    def discard(self, slug: str) -> None:
        """There is none any more."""
        self._links = None
        self._metas.pop(slug, None)
        self._ulids.discard(slug)
        name = slug.rpartition("_")[0]
        if self._greatest.get(name, (0, ""))[1] == slug:
            del self._greatest[name]
            self._doubtful.add(name)

    def links(self, slugs: Sequence[str]) -> Mapping[str, str]:
        """As the function of that name; `slugs` are those that were put, sorted."""
        if self._links is None:
            while self._doubtful:
                self._look_for(self._doubtful.pop(), slugs)
            plain = {name: slug for name, (_, slug) in self._greatest.items()}
            self._links = links(slugs, self._meta) if self._ulids else plain
        return self._links

    def _look_for(self, name: str, slugs: Sequence[str]) -> None:
        first = bisect_left(slugs, f"{name}_")
        own = takewhile(lambda at: slugs[at].startswith(f"{name}_"), range(first, len(slugs)))
        for slug in (slugs[at] for at in own):
            if _pair_name(slug, self._greatest) == name:
                _offer(self._greatest, name, slug)

    def _meta(self, slug: str) -> Meta | None:
        if slug not in self._metas:
            meta = self._meta_of(slug)
            kept = None if meta is None else {key: meta[key] for key in _COMPARED}
            self._metas[slug] = kept
        return self._metas[slug]


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
    greatest: dict[str, _Numbered] = {}
    for slug in slugs:
        if name := _pair_name(slug, greatest):
            _offer(greatest, name, slug)
    return {name: slug for name, (_, slug) in greatest.items()}


def _pair_name(slug: str, known: Mapping[str, _Numbered]) -> str:
    """The `<agent>_<sender>` of a slug with a number, `""` where it has none; `known` ones are such."""
    name, _, tail = slug.rpartition("_")
    is_name = name in known or parse_session(f"{name}_1") is not None
    return name if is_name and sequence_number(tail) is not None else ""


def _offer(greatest: dict[str, _Numbered], name: str, slug: str) -> None:
    number = sequence_number(slug[len(name) + 1 :])
    assert number is not None
    greatest[name] = max(greatest.get(name, (-1, "")), (number, slug))
