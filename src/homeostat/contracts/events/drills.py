"""What was broken on purpose, by whom, where, and what came of it. Samples stay with the tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import HostId, Owner, ResourceId


@dataclass(frozen=True, slots=True)
class DrillBegan:
    """A drill has its site for itself. Faults of these hosts and resources are its own until it ended."""

    VERSION: ClassVar[int] = 1
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

    VERSION: ClassVar[int] = 1
    run: str
    owner: Owner
    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class DrillEnded:
    """The site is free again. `how`: reported or lapsed; `verdict` is empty when nobody said."""

    VERSION: ClassVar[int] = 1
    run: str
    owner: Owner
    how: str
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrillReported:
    """The report of a drill whose claim had lapsed came after all."""

    VERSION: ClassVar[int] = 1
    run: str
    owner: Owner
    verdict: str


@dataclass(frozen=True, slots=True)
class DrillsHalted:
    """Every running drill is to stop, and none begins, until they are resumed."""

    VERSION: ClassVar[int] = 1
    by: str
    owner: Owner
    why: str


@dataclass(frozen=True, slots=True)
class DrillsResumed:
    """Drills may begin again."""

    VERSION: ClassVar[int] = 1
    by: str
    owner: Owner


EVENTS = (DrillBegan, DrillInjected, DrillEnded, DrillReported, DrillsHalted, DrillsResumed)
