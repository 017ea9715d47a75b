"""Faults: raised once, cleared once under the same id."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, Owner, ResourceId, Severity


@dataclass(frozen=True, slots=True)
class FaultRaised:
    """Something is wrong with `about` (a journal subject); `owner` may read it.

    `seen_ns` is the source's wall clock.
    """

    fault: FaultId
    kind: FaultKind
    severity: Severity
    about: str
    owner: Owner
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class FaultCleared:
    """It is right again; with `superseded_by` it is not, and that fault says so from now on.

    The outage was between `outage_lower_ms` and `outage_ms`, by a clock that saw both ends; None: nobody
    knows.
    """

    fault: FaultId
    about: str
    reason: str
    seen_ns: int
    outage_ms: float | None
    outage_lower_ms: float | None = None
    superseded_by: str = ""


@dataclass(frozen=True, slots=True)
class GuestRecovered:
    """A guest that suffered from `fault` is up on `host`, another one than the host that died.

    `seen_ns` is the wall clock of `host`; the outage was between the two bounds, None: nobody knows.
    """

    fault: FaultId
    guest: ResourceId
    owner: Owner
    host: HostId
    seen_ns: int
    outage_lower_ms: float | None
    outage_upper_ms: float | None


@dataclass(frozen=True, slots=True)
class FaultInjected:
    """Somebody broke this host on purpose and says when: `injected_ns` is the injector's wall clock.

    Only a stamp for timelines; nothing is concluded from it.
    """

    host: HostId
    what: str
    injected_ns: int
    by: str


@dataclass(frozen=True, slots=True)
class FaultInhibited:
    """Something is wrong with `about` and no fault is raised: the fault `by` says it already."""

    about: str
    kind: FaultKind
    owner: Owner
    by: FaultId
    reason: str


EVENTS = events_in(globals())
