"""Events of drills: begun, injected, ended, reported, halted, resumed.

Samples stay with the tool that took them.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import HostId, Owner, ResourceId


@dataclass(frozen=True, slots=True)
class DrillBegan:
    """A drill has its site for itself. Faults of these hosts and resources are its own until it ended."""

    run: str
    drill: str
    suite: str
    site: str
    hosts: tuple[HostId, ...]
    resources: tuple[ResourceId, ...]
    seed: int
    owner: Owner
    by: str


@dataclass(frozen=True, slots=True)
class DrillInjected:
    """The fault began between these moments of the tool's wall clock. A stamp; nothing is concluded."""

    run: str
    owner: Owner
    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class DrillEnded:
    """The site is free again. `how`: reported or lapsed; `verdict` is empty when nobody said."""

    run: str
    owner: Owner
    how: str
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrillReported:
    """The report of a drill whose claim had lapsed came after all."""

    run: str
    owner: Owner
    verdict: str


@dataclass(frozen=True, slots=True)
class DrillsHalted:
    """Every running drill is to stop, and none begins, until they are resumed."""

    by: str
    owner: Owner
    why: str


@dataclass(frozen=True, slots=True)
class DrillsResumed:
    """Drills may begin again."""

    by: str
    owner: Owner


EVENTS = events_in(globals())
