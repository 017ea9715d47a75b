"""Who suffers from a fault beside its subject: written once when it is raised, read as often as it is told.

The text is small, since a host may have ten thousand guests: `{"guest":{"blue":["guest-1", ...]}}`, by kind
and owner, sorted, so that the same guests are always the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import orjson

from homeostat.contracts.nouns import Owner, ResourceId, resource_subject
from homeostat.fleet.model import Resource
from homeostat.notices.model import Affected

NOBODY = "{}"


def written(resources: Iterable[Resource]) -> str:
    """The text of these resources."""
    by_kind: dict[str, dict[str, list[str]]] = {}
    for row in sorted(resources, key=lambda each: each.id):
        by_kind.setdefault(row.kind.value, {}).setdefault(row.owner, []).append(row.id)
    return orjson.dumps(by_kind, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=16)
def read(text: str) -> tuple[Affected, ...]:
    """The text as what notices tell. `detail` is the kind."""
    if text == NOBODY:
        return ()
    return tuple(
        Affected(resource_subject(ResourceId(name)), Owner(owner), kind)
        for kind, by_owner in orjson.loads(text).items()
        for owner, names in by_owner.items()
        for name in names
    )
