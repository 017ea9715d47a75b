"""Events of OCF resources on their hosts: their states, the acts of the runners, and the guests'
assignments.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind


@dataclass(frozen=True, slots=True)
class ResourceDown:
    """A resource that should run does not. `seen_ns` is the node's wall clock."""

    resource: ResourceId
    host: HostId
    kind: ResourceKind
    owner: Owner
    state: str
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class ResourceUp:
    """A resource is ready. `seen_ns` is the node's wall clock."""

    resource: ResourceId
    host: HostId
    kind: ResourceKind
    owner: Owner
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class ActionIntended:
    """An act is about to be done. `owner_of_act` is who does it, `action` is unique for ever.

    `uncommitted`: the disk of its node took nothing, so that the intent was only in memory when it began.
    """

    action: str
    verb: str
    owner_of_act: str
    deadline_s: float
    reason: str
    uncommitted: bool = False


@dataclass(frozen=True, slots=True)
class ActionFinished:
    """An intended act ended: ok, failed or unknown."""

    action: str
    outcome: str
    took_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class GuestAssigned:
    """A guest that any of several hosts could run belongs to this one, for the first time."""

    resource: ResourceId
    owner: Owner
    host: HostId
    generation: int


@dataclass(frozen=True, slots=True)
class GuestMoved:
    """A guest belongs to another host from now on: its own is dead and fenced, then the cause is the receipt,
    or lives, has stopped it and is not configured for it any more."""

    resource: ResourceId
    owner: Owner
    from_host: HostId
    host: HostId
    generation: int


@dataclass(frozen=True, slots=True)
class GuestStranded:
    """A guest of a dead and fenced host can start nowhere for now. Told once until the reason changes."""

    resource: ResourceId
    owner: Owner
    host: HostId
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class GuestFound:
    """A host has a guest under a later assignment than the rows knew: they follow. An older database does.

    `from_host` is where the rows had it, empty when they did not know it.
    """

    resource: ResourceId
    owner: Owner
    from_host: HostId | str
    host: HostId
    generation: int


EVENTS = events_in(globals())
