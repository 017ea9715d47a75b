"""Faults: raised once, cleared once under the same id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, Severity


@dataclass(frozen=True, slots=True)
class FaultRaised:
    """Something is wrong with `about` (a journal subject); `owner` may read it.

    `seen_ns` is the source's wall clock.
    """

    VERSION: ClassVar[int] = 1
    fault: FaultId
    kind: FaultKind
    severity: Severity
    about: str
    owner: Owner
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class FaultCleared:
    """It is right again.

    `outage_ms` is from the source's monotonic clock when one clock saw both ends, else None.
    """

    VERSION: ClassVar[int] = 1
    fault: FaultId
    about: str
    reason: str
    seen_ns: int
    outage_ms: float | None


@dataclass(frozen=True, slots=True)
class FaultInhibited:
    """Something is wrong with `about` and no fault is raised: the fault `by` says it already."""

    VERSION: ClassVar[int] = 1
    about: str
    kind: FaultKind
    owner: Owner
    by: FaultId
    reason: str


EVENTS = (FaultRaised, FaultCleared, FaultInhibited)
