"""The nouns that more than one room uses. Plain, frozen records; ids are distinct types, not bare strings.

A *host* is a machine, a *node* a host with our process on it, a *guest* what a tenant runs there, a
*resource* something an OCF agent starts, watches and stops. An *owner* is a project: it decides who may read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

HostId = NewType("HostId", str)
ResourceId = NewType("ResourceId", str)
FaultId = NewType("FaultId", str)
Owner = NewType("Owner", str)

INFRASTRUCTURE = Owner("infrastructure")
"""Owns hosts and nodes. Only administrators read what belongs to it."""


class ResourceKind(StrEnum):
    """What a resource is to the people who depend on it."""

    SERVICE = "service"
    GUEST = "guest"


class ResourceState(StrEnum):
    """What a node last saw. `unknown` is a state, never a kind of failure."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class FaultKind(StrEnum):
    """What is wrong. The words are the API's, the CLI's and the notices'."""

    RESOURCE_DOWN = "resource_down"
    AGENT_LOST = "agent_lost"
    HOST_DOWN = "host_down"
    EVIDENCE_LOST = "evidence_lost"
    ACTS_STOPPED = "acts_stopped"


class Mark(StrEnum):
    """What a cloud is told of a dead host, and what takes it back. The words are the acts' in the journal."""

    MARK_DOWN = "mark_down"
    SET_ERROR = "set_error"
    MARK_UP = "mark_up"
    CLEAR_ERROR = "clear_error"


class Severity(StrEnum):
    """X.733, worst first (source: ETSI GS NFV-IFA 005, by way of Doctor's gap table)."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"


class Standing(StrEnum):
    """Where a promise stands now."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SetPoint:
    """A promise with a number: one row of `homeostat status`.

    `value` is the measured value in `unit`, None when nothing has been measured yet.
    """

    room: str
    promise: str
    limit: float
    unit: str
    value: float | None
    standing: Standing
    detail: str = ""


FLEET_SUBJECT = "fleet"
"""The journal's subject of what concerns all hosts together."""

GATE_SUBJECT = "fleet/gate"
"""The journal's subject of what the gate says of all hosts together."""


def node_subject(host: HostId) -> str:
    """The journal's subject of a node."""
    return f"node/{host}"


def cloud_subject(host: HostId) -> str:
    """The journal's subject of what a cloud is told of a host."""
    return f"cloud/{host}"


def resource_subject(resource: ResourceId) -> str:
    """The journal's subject of a resource."""
    return f"resource/{resource}"


def fault_subject(fault: FaultId) -> str:
    """The journal's subject of a fault."""
    return f"fault/{fault}"


def drill_subject(run: str) -> str:
    """The journal's subject of a run of a drill."""
    return f"drill/{run}"


DRILLS_SUBJECT = "drills"
"""The journal's subject of what concerns all drills."""
