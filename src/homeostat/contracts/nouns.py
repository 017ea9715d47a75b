"""The nouns that components share. Plain, frozen records; ids are distinct types, not bare strings.

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

HOST_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""A host with a node process: part of the subjects of NATS, so without dots."""
HOST_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$"
"""Any other host, and a host in the DNS: may be a full domain name."""
RESOURCE_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
OWNER = r"^[A-Za-z0-9_.-]{1,100}$"
LABEL = r"^[a-z0-9-]{1,63}$"
"""The name of a subscription or a token: what people choose, and read in URLs."""
DRILL_NAME = r"^[a-z][a-z0-9-]{0,62}$"
"""Of drills, suites, their monitors and operations: fit for a file name everywhere."""
RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""A run, and the fault that it injects: part of names of files on hosts. The undo keeper has its own copy."""
WORD = r"^[!-~]{1,255}$"
"""A name in a filter, also of what does not exist here."""

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
    NODE_STORE_FULL = "node_store_full"
    CLAIM_REFUSED = "claim_refused"
    WITNESS_LOST = "witness_lost"
    RUNNER_SILENT = "runner_silent"
    RESERVATION_MISSING = "reservation_missing"
    RESERVATION_MOVED = "reservation_moved"


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


class SetPointState(StrEnum):
    """Where a promise stands now."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SetPoint:
    """A promise with a number: one row of `homeostat status`.

    `value` is the measured value in `unit`, None when nothing was measured: then it is never *kept*.
    `project` is whose row it is where each project has one, empty otherwise. `needs_nodes`: it is known only
    while the server hears its nodes; False for what it measures by itself.
    """

    component: str
    promise: str
    limit: float
    unit: str
    value: float | None
    standing: SetPointState
    detail: str = ""
    project: str = ""
    needs_nodes: bool = True


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a machine has: logical processors, memory in MiB, the file system of its node's state in GiB."""

    cpus: int
    memory_mb: int
    disk_gb: int
    architecture: str


FLEET_SUBJECT = "fleet"
"""The journal's subject of what concerns all hosts together."""

GATE_SUBJECT = "fleet/gate"
"""The journal's subject of what the gate says of all hosts together."""


def node_subject(host: HostId) -> str:
    return f"node/{host}"


def store_subject(host: HostId) -> str:
    """The journal's subject of the observation store of a node."""
    return f"store/{host}"


def runner_subject(host: HostId) -> str:
    """Of the process that looks after what runs on this host, beside its node process."""
    return f"runner/{host}"


def cloud_subject(host: HostId) -> str:
    return f"cloud/{host}"


def assignment_subject(host: HostId) -> str:
    """Of what the node of this host claims about guests and projects, beside its node process."""
    return f"assignment/{host}"


def witness_subject(host: HostId) -> str:
    """Of the outside probes of this host."""
    return f"witness/{host}"


def resource_subject(resource: ResourceId) -> str:
    return f"resource/{resource}"


def fault_subject(fault: FaultId) -> str:
    return f"fault/{fault}"


def drill_subject(run: str) -> str:
    return f"drill/{run}"


DRILLS_SUBJECT = "drills"
"""The journal's subject of what concerns all drills."""
