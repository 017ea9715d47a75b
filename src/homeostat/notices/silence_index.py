"""Which silences may cover a fault, found without looking at all of them. Pure.

By the whole scope: silences that name the same things are in one bucket, and for a fault there are as many
buckets to look into as there are *combinations* of named things, at most 32, times whose fault and whose
subscription it is. What is found is judged by `silencing.decide`, as everything is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from homeostat.contracts.nouns import INFRASTRUCTURE, ResourceId, resource_subject
from homeostat.notices.model import FaultPicture, Silence, Subscription
from homeostat.notices.silencing import Why, decide

_Scope = tuple[str, ...]


class SilenceIndex:
    """Silences as they were given, which never change. `zones` is the zone of each host."""

    def __init__(self, rows: Iterable[Silence], zones: Mapping[str, str]) -> None:
        self._zones = zones
        self._buckets: dict[_Scope, list[Silence]] = {}
        for row in sorted(rows, key=_lasting, reverse=True):
            self._buckets.setdefault(_scope_of(row), []).append(row)
        self._shapes = {tuple(map(bool, scope[:-1])) for scope in self._buckets}

    def covering(self, subscription: Subscription, fault: FaultPicture, now_ns: int) -> Silence | None:
        """As `silencing.covering` of all of them: of several the one that lasts longest."""
        found: Silence | None = None
        for scope in self._scopes(subscription, fault):
            for row in self._buckets.get(scope, ()):
                if found is not None and _lasting(row) < _lasting(found):
                    break
                if decide(row, subscription, fault, now_ns, self._zones) is Why.COVERED:
                    found = row
                    break
        return found

    def _scopes(self, subscription: Subscription, fault: FaultPicture) -> Iterator[_Scope]:
        """Every scope that could cover it, among the shapes that there are."""
        zone, kind = self._zones.get(fault.host, ""), fault.kind.value
        owners = {fault.owner, subscription.owner}
        projects = {INFRASTRUCTURE, subscription.owner}
        for shape in self._shapes:
            for owner in owners if shape[4] else ("",):
                named = (fault.host, zone, fault.about, kind, owner)
                scope = tuple(value if is_named else "" for value, is_named in zip(named, shape, strict=True))
                if tuple(map(bool, scope)) != shape:
                    continue  # it is on no host, or in no zone
                for project in projects:
                    yield (*scope, project)


def _scope_of(row: Silence) -> _Scope:
    about = resource_subject(ResourceId(row.resource)) if row.resource else ""
    return (row.host, row.zone, about, row.kind, row.owner, row.project)


def _lasting(row: Silence) -> tuple[int, str]:
    return row.ends_ns, row.id
