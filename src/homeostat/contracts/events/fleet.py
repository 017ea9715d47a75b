"""Events of hosts, of node processes, of the server itself, and of access to it (tokens, the dashboard).

They never hold a token or its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import HostId, Mark, Owner, ResourceId
from homeostat.kernel.journal import Upcast


@dataclass(frozen=True, slots=True)
class HostJoined:
    """A node reported for the first time."""

    host: HostId
    boot: str


@dataclass(frozen=True, slots=True)
class HostFactsChanged:
    """A node says for the first time, or anew, what its machine has. Units as in `nouns.HostFacts`."""

    host: HostId
    cpus: int
    memory_mb: int
    disk_gb: int
    architecture: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The node process is silent or died; its host and guests may well be fine."""

    host: HostId
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReturned:
    """The node process reports again."""

    host: HostId
    incarnation: str


@dataclass(frozen=True, slots=True)
class ObservationsLost:
    """A node's bounded list overflowed: `count` transitions nobody will ever see."""

    host: HostId
    count: int


@dataclass(frozen=True, slots=True)
class TermTaken:
    """A server became leader."""

    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class LoopCrashed:
    """A loop ended with an error that nobody expected, and was started again."""

    loop: str
    error: str


@dataclass(frozen=True, slots=True)
class HostDown:
    """A host is dead: its agent is silent and outside probes fail. `seen_ns` is the first failed evidence."""

    host: HostId
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class HostBack:
    """A host that was down answers again. `seen_ns` is the server's wall clock."""

    host: HostId
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class HostFenced:
    """Nothing runs on this host any more: `driver` or a person says so, and `receipt` is what was said."""

    host: HostId
    driver: str
    receipt: str


@dataclass(frozen=True, slots=True)
class HostMarked:
    """The cloud shows it so now: the host down or up, or what runs there in error or as it is."""

    host: HostId
    mark: Mark
    cloud: str


@dataclass(frozen=True, slots=True)
class HostHeld:
    """A person asked that no harm is done to this host, or (with `held` false) that it may be again."""

    host: HostId
    held: bool
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class NodeStoreFull:
    """A node cannot write its observation store as it should be: mostly its disk is full."""

    host: HostId
    reason: str


@dataclass(frozen=True, slots=True)
class NodeStoreWritable:
    """A node can write its observation store again."""

    host: HostId


@dataclass(frozen=True, slots=True)
class EvidenceLost:
    """Nothing can be said of the hosts any more: the monitor itself is suspected, and nobody is accused."""

    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class EvidenceBack:
    """The hosts can be judged again."""

    seen_ns: int


@dataclass(frozen=True, slots=True)
class ActRefused:
    """The gate did not let an act of `component` on `about` happen. Written once until the reason changes."""

    VERSION: ClassVar[int] = 2
    component: str
    act: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ComponentArmed:
    """A component may act from now on, or (with `armed` false) may only observe."""

    VERSION: ClassVar[int] = 2
    component: str
    armed: bool
    by: str


@dataclass(frozen=True, slots=True)
class HostRemoved:
    """A person had a host removed for good, with the rows of what was fixed to it."""

    host: HostId
    by: str
    resources: tuple[ResourceId, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeClaimRefused:
    """A node said what is not its to say: a later generation of a guest (0: none), or another project."""

    host: HostId
    resource: ResourceId
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class GuestClaimConfirmed:
    """A person confirmed that a guest is on this host under a later generation than the rows knew."""

    host: HostId
    resource: ResourceId
    generation: int
    by: str


@dataclass(frozen=True, slots=True)
class JournalPruned:
    """From here on, what is over and numbered up to `through` is being removed because it is old."""

    through: int


@dataclass(frozen=True, slots=True)
class ClaimGiven:
    """A host has this item of work until it says how it ended, for `deadline_s` at most."""

    claim: str
    work: str
    item: str
    host: HostId
    epoch: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class ClaimEnded:
    """A claim is over: done, failed, or expired without a word of the host."""

    claim: str
    host: HostId
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A token of this name works from now on; one that had the name before does not."""

    token: str
    role: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """The token of this name does not work any more."""

    token: str


@dataclass(frozen=True, slots=True)
class ConsoleOpened:
    """Somebody with this token came in by a one-time link and has the dashboard in a browser."""

    token: str
    role: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class ConsoleClosed:
    """Somebody logged out of the dashboard. A session that is simply over leaves no event."""

    token: str


EVENTS = events_in(globals())


def _component_for_room(old: dict[str, Any]) -> dict[str, Any]:
    return {"component" if name == "room" else name: value for name, value in old.items()}


UPCASTS: dict[tuple[str, int], Upcast] = {
    ("ActRefused", 1): _component_for_room,
    ("ComponentArmed", 1): _component_for_room,
}
EARLIER_KINDS = {"RoomArmed": "ComponentArmed"}
