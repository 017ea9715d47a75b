"""Lines between the node process and its roles: one JSON object a line on the role's stdin and stdout.

A role has no network and no store of its own. It reports every change and does nothing about it before the
node has answered `Recorded`: then the change, and the act intended with it, survive kill -9.
"""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Finish, Intent, ResourceLevel

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
