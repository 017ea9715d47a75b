"""The plain records in which components hand each other where a guest is to run and which hosts are reserved.

`recovery` decides; `leases` publishes what is reserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from homeostat.contracts import wire
from homeostat.contracts.nouns import HostId, Owner, ResourceId


@dataclass(frozen=True, slots=True)
class Assignment:
    """A guest is to run on host `to`, under `generation`, as the host offers.

    `from_host` is the dead and fenced host that had it, None when it is assigned for the first time.
    """

    offer: wire.Candidate
    to: HostId
    generation: int
    from_host: HostId | None = None

    @property
    def resource(self) -> ResourceId:
        return self.offer.resource


@dataclass(frozen=True, slots=True)
class Stranded:
    """A guest that can be started nowhere, and the name and sentence of the reason."""

    resource: ResourceId
    owner: Owner
    host: HostId
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What was decided of several guests at one moment."""

    assigned: tuple[Assignment, ...] = ()
    stranded: tuple[Stranded, ...] = ()


@dataclass(frozen=True, slots=True)
class HostReservation:
    """A whole host is reserved for one project until `end_ns` (UTC wall clock)."""

    host: HostId
    project: Owner
    end_ns: int
    lease: str


class StrandedGuests(Protocol):
    """The guests of dead hosts that can be started nowhere now, and why. In `app.state.stranded`, too."""

    def __call__(self) -> Mapping[ResourceId, str]: ...
