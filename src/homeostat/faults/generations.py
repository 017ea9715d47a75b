"""Whose word counts about a guest that can move: generations as fencing tokens. Pure."""

from __future__ import annotations

from homeostat.contracts.events.resources import GuestFound
from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import ResourceLevel
from homeostat.fleet.model import Topology

AHEAD_MAX = 10_000
"""Moves of one guest that a database may not know of. Too small: an old one never learns where a guest is.
Too large: one node that says nonsense uses up all generations that can be stored."""


def speaks_for(topology: Topology, host: HostId, level: ResourceLevel) -> bool | None:
    """Whether a host may say this of a guest that can move; None when it cannot move at all.

    The highest generation is right whoever has it, so that a server with an old database learns what is so.
    """
    row = topology.resources.get(level.resource)
    if (row is None or row.generation == 0) and level.generation == 0:
        return None
    if row is None or level.generation > row.generation:
        return _may_lead(topology, host, level)
    return row.host == host and level.generation in (0, row.generation)


def _may_lead(topology: Topology, host: HostId, level: ResourceLevel) -> bool:
    """Whether a node may know of a later assignment than the rows: it could run the guest, and one database
    is not older than another by more than so many moves."""
    row = topology.resources.get(level.resource)
    known = 0 if row is None else row.generation
    offers = level.resource in topology.offers.get(host, ())
    ours = row is not None and row.host == host
    return (offers or ours) and level.generation - known <= AHEAD_MAX


def found(topology: Topology, host: HostId, level: ResourceLevel) -> GuestFound | None:
    """That a node has a guest under a later assignment than the rows knew."""
    row = topology.resources.get(level.resource)
    if level.generation <= (0 if row is None else row.generation):
        return None
    return GuestFound(level.resource, level.owner, "" if row is None else row.host, host, level.generation)
