"""Lines between the node process and its roles: one JSON object a line on the role's stdin and stdout.

A role has no network and no store of its own. It reports every change and does nothing about it before the
node has answered `Recorded`: then the change, and the act intended with it, survive kill -9, unless the disk
takes nothing and the node holds them in memory.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import MESSAGE_BYTES_MAX, Finish, Intent, ResourceStatus
from homeostat.kernel.errors import BadInput

LOOKED_EVERY_S = 1.0
"""Seconds between two `Looked` of a role: a node notices by its silence that it is frozen."""

M = TypeVar("M")
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, slots=True, config=_STRICT)
class Report:
    """Role to node: one resource changed. `number` counts within this role process."""

    number: int
    resource: ResourceId
    kind: ResourceKind
    owner: Owner
    agent: str
    state: ResourceState
    reason: str
    at_ns: int
    mono_ns: int
    intended: Intent | None = None
    finished: Finish | None = None
    pid: int | None = None
    generation: int = 0
    before_mono_ns: int = 0


@checked(frozen=True, slots=True, config=_STRICT)
class Recorded:
    """Node to role: report `number` is on disk, or as safe as a full disk lets it be."""

    number: int


@checked(frozen=True, slots=True, config=_STRICT)
class Recalled:
    """Node to role, the first lines: what the store remembers from before the role started.

    `open_intents` maps a resource to the act that was intended and never finished. `more`: another line of
    it follows. `hears_looked`: the node understands `Looked`.
    """

    levels: tuple[ResourceStatus, ...]
    open_intents: dict[ResourceId, Intent]
    more: bool = False
    hears_looked: bool = False


@checked(frozen=True, slots=True, config=_STRICT)
class Looked:
    """Role to node, at once and every LOOKED_EVERY_S: whether every resource has been looked at since this
    role process began, and what was found is reported. `number` is that of its last report before this.

    `seen_mono_ns` (CLOCK_BOOTTIME, 0: not known): every guest that is reported as up by now was so then."""

    number: int
    looked: bool
    seen_mono_ns: int = 0


@checked(frozen=True, slots=True, config=_STRICT)
class Assigned:
    """Node to role: the guests that are to run here, with their generations; all others are not.

    `confirmed` says that a server told this life of the node; otherwise it is what was on the disk before,
    and a guest that does not run may have been moved meanwhile.
    """

    mine: dict[ResourceId, int]
    confirmed: bool


_FROM_NODE: TypeAdapter[Recorded | Assigned] = TypeAdapter(Recorded | Assigned)
_FROM_RUNNER: TypeAdapter[Report | Looked] = TypeAdapter(Report | Looked)


def parse_runner_line(line: bytes) -> Report | Looked:
    """Any line that a runner says to its node. BadInput."""
    if len(line) > MESSAGE_BYTES_MAX:
        raise BadInput("line", f"{len(line)} bytes", f"at most {MESSAGE_BYTES_MAX} are read")
    return _parsed(_FROM_RUNNER, line)


def parse_node_line(line: bytes) -> Recorded | Assigned:
    """Any line after the first ones that a node says to a role. BadInput."""
    return _parsed(_FROM_NODE, line)


def _parsed(adapter: TypeAdapter[M], line: bytes) -> M:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(where or "line", first.get("input"), first["msg"]) from error
