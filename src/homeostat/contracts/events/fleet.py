"""What happened to hosts, nodes and the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import HostId, Mark


@dataclass(frozen=True, slots=True)
class HostJoined:
    """A node reported for the first time."""

    VERSION: ClassVar[int] = 1
    host: HostId
    boot: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The node process is silent or died; its host and guests may well be fine."""

    VERSION: ClassVar[int] = 1
    host: HostId
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReturned:
    """The node process reports again."""

    VERSION: ClassVar[int] = 1
    host: HostId
    incarnation: str


@dataclass(frozen=True, slots=True)
class ObservationsLost:
    """A node's bounded list overflowed: `count` transitions nobody will ever see."""

    VERSION: ClassVar[int] = 1
    host: HostId
    count: int


@dataclass(frozen=True, slots=True)
class TermTaken:
    """A server became leader."""

    VERSION: ClassVar[int] = 1
    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class LoopCrashed:
    """A loop ended with an error that nobody expected, and was started again."""

    VERSION: ClassVar[int] = 1
    loop: str
    error: str


@dataclass(frozen=True, slots=True)
class HostDown:
    """A host is dead: its agent is silent and outside probes fail. `seen_ns` is the first failed evidence."""

    VERSION: ClassVar[int] = 1
    host: HostId
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class HostBack:
    """A host that was down answers again. `seen_ns` is the server's wall clock."""

    VERSION: ClassVar[int] = 1
    host: HostId
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class HostFenced:
    """Nothing runs on this host any more: `driver` or a person says so, and `receipt` is what was said."""

    VERSION: ClassVar[int] = 1
    host: HostId
    driver: str
    receipt: str


@dataclass(frozen=True, slots=True)
class HostMarked:
    """The cloud shows it so now: the host down or up, or what runs there in error or as it is."""

    VERSION: ClassVar[int] = 1
    host: HostId
    mark: Mark
    cloud: str


@dataclass(frozen=True, slots=True)
class HostHeld:
    """A person asked that no harm is done to this host, or (with `held` false) that it may be again."""

    VERSION: ClassVar[int] = 1
    host: HostId
    held: bool
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class EvidenceLost:
    """Nothing can be said of the hosts any more: the monitor itself is suspected, and nobody is accused."""

    VERSION: ClassVar[int] = 1
    reason: str
    seen_ns: int


@dataclass(frozen=True, slots=True)
class EvidenceBack:
    """The hosts can be judged again."""

    VERSION: ClassVar[int] = 1
    seen_ns: int


@dataclass(frozen=True, slots=True)
class ActRefused:
    """The gate let an act of `room` on `about` not happen, for this reason. Told once until it changes."""

    VERSION: ClassVar[int] = 1
    room: str
    act: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RoomArmed:
    """A room may act from now on, or (with `armed` false) may only observe."""

    VERSION: ClassVar[int] = 1
    room: str
    armed: bool
    by: str


@dataclass(frozen=True, slots=True)
class JournalPruned:
    """From here on, what is over and numbered up to `through` is being removed because it is old."""

    VERSION: ClassVar[int] = 1
    through: int


EVENTS = (
    HostJoined,
    AgentLost,
    AgentReturned,
    ObservationsLost,
    TermTaken,
    LoopCrashed,
    HostDown,
    HostBack,
    HostFenced,
    HostMarked,
    HostHeld,
    EvidenceLost,
    EvidenceBack,
    ActRefused,
    RoomArmed,
    JournalPruned,
)
