"""Lines between the node process and its roles: one JSON object a line on the role's stdin and stdout.

A role has no network and no store of its own. It reports every change and does nothing about it before the
node has answered `Recorded`: then the change, and the act intended with it, survive kill -9.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Finish, Intent, ResourceLevel
from homeostat.kernel.errors import BadInput

_STRICT = ConfigDict(extra="forbid")


def scratch_of(state_dir: Path) -> Path:
    """The agents' HA_RSCTMP on a node."""
    return state_dir.absolute() / "runner" / "rsctmp"


def pid_file_of(state_dir: Path, resource: str) -> Path:
    """Where ocf:homeostat:process keeps the pid of a resource."""
    return scratch_of(state_dir) / f"homeostat-process-{resource}.pid"


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


@checked(frozen=True, slots=True, config=_STRICT)
class Recorded:
    """Node to role: report `number` is on disk."""

    number: int


@checked(frozen=True, slots=True, config=_STRICT)
class Recalled:
    """Node to role, the first line: what the store remembers from before the role started.

    `open_intents` maps a resource to the act that was intended and never finished.
    """

    levels: tuple[ResourceLevel, ...]
    open_intents: dict[ResourceId, Intent]


@checked(frozen=True, slots=True, config=_STRICT)
class Assigned:
    """Node to role: the guests that are to run here, with their generations; all others are not.

    `confirmed` says that a server told this life of the node; otherwise it is what was on the disk before,
    and a guest that does not run may have been moved meanwhile.
    """

    mine: dict[ResourceId, int]
    confirmed: bool


_FROM_NODE: TypeAdapter[Recorded | Assigned] = TypeAdapter(Recorded | Assigned)


def from_node(line: bytes) -> Recorded | Assigned:
    """Any line but the first that a node says to a role. BadInput."""
    try:
        return _FROM_NODE.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(where or "line", first.get("input"), first["msg"]) from error
