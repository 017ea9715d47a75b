"""Messages between server and nodes. JSON on NATS core, which keeps nothing and may lose anything.

Therefore observation is *level-triggered*: a node keeps the latest state of every resource and a bounded,
fsynced list of transitions that the server has not acknowledged. Transitions are numbered, sent again until
the server says that they are committed, and dropped by the server when it already has them.

Subjects: a node publishes below `node.<host>.` and hears only `to.<host>.`; the server the other way round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from homeostat.contracts.nouns import HostFacts, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.kernel.errors import BadInput

M = TypeVar("M")

_STRICT = ConfigDict(extra="forbid")
MESSAGE_BYTES_MAX = 512 * 1024
"""Half of the NATS default `max_payload`. Larger messages are refused unread."""

REQUEST_WAIT_MAX_S = 3600.0
"""Of a node for the leader."""

PARTS_MAX = 1000
"""Of one picture: about a million resources on one host."""

# What a database can hold. What it cannot must be refused here, where one message fails alone: in the fault
# path it would take the batch with it, and come again.
_STORABLE = Field(ge=0, lt=2**63)
_NAME = Field(pattern=r"^[^\x00-\x20]{1,255}$")
Number = Annotated[int, _STORABLE]
Span = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, _NAME]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class Outcome(StrEnum):
    """How an act ended. An act whose end nobody saw is `unknown`, not failed."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@checked(frozen=True, slots=True, config=_STRICT)
class Intent:
    """An act that a node has written down and is about to do. `action` is unique for ever.

    `uncommitted`: its disk took nothing, so that it was only in the node's memory when the act began.
    """

    action: Name
    verb: Name
    deadline_s: Span
    reason: Text
    uncommitted: bool = False


@checked(frozen=True, slots=True, config=_STRICT)
class Finish:
    """How an intended act ended. `took_ms` is from the node's monotonic clock."""

    action: Name
    outcome: Outcome
    took_ms: Span
    reason: Text


@checked(frozen=True, slots=True, config=_STRICT)
class ResourceStatus:
    """The latest state of one resource, as its node sees it. `seq` is the transition that made it so.

    `pid` is its process on that host while it is up, None when the agent does not say which it is.
    `generation` is the assignment under which the node runs it: 0 for what is fixed to its host, else one
    more with every move. It is a fencing token: what is said under an old one changes nothing.
    """

    resource: Annotated[ResourceId, _NAME]
    kind: ResourceKind
    owner: Annotated[Owner, _NAME]
    agent: Name
    state: ResourceState
    reason: Text
    at_ns: Number
    seq: Number
    pid: Number | None = None
    generation: Number = 0


@checked(frozen=True, slots=True, config=_STRICT)
class Candidate:
    """A guest that a node is configured to run when it is told to. `home` is where it belongs, or empty."""

    resource: Annotated[ResourceId, _NAME]
    kind: ResourceKind
    owner: Annotated[Owner, _NAME]
    agent: Name
    home: Text = ""


@checked(frozen=True, slots=True, config=_STRICT)
class ResourceTransition:
    """One change of one resource. `at_ns` is the node's wall clock, `mono_ns` its CLOCK_BOOTTIME, 0
    when nobody saw the moment: no length is measured from it. `before_mono_ns` is the last moment on that
    clock at which it was seen to be otherwise (the last good before a failure, the last bad before it was
    up), 0 when nobody knows.

    `level.seq` numbers it within the node's observation store. `intended` and `finished` are the acts that
    the node's runner began or ended with this change.
    """

    level: ResourceStatus
    mono_ns: Number
    intended: Intent | None = None
    finished: Finish | None = None
    before_mono_ns: Number = 0


@checked(frozen=True, slots=True, config=_STRICT)
class Observations:
    """node.<host>.observations: what the server has not acknowledged, oldest first.

    `boot` names the node's observation store; a new one means that the old numbers are gone. `first` is the
    oldest number that the node can still send: a server that misses an older one will never get it.
    `sent_mono_ns` on the node's clock gives the age of each transition without comparing the clocks of two
    machines.
    """

    host: Annotated[HostId, _NAME]
    boot: Name
    sent_mono_ns: Number
    first: Number
    transitions: tuple[ResourceTransition, ...]


@checked(frozen=True, slots=True, config=_STRICT)
class Heartbeat:
    """node.<host>.heartbeat: about 250 bytes, never journaled. One per node, none per guest.

    `incarnation` is new at every start of the node process; `first` as in Observations. `offers` is the
    digest of the guests that it could run, empty when there are none; `assigned` that of what it was told to
    run, empty until a server has told this incarnation. `store` is why the observation store cannot be
    written as it should be (its disk is full), empty while it can. `asks`: an earlier life may have given
    numbers that its disk never had; the server is to say how far it knows. `looked`: since this incarnation
    began, its runner has looked at everything that `digest` is of, and still does; else a state may be old.
    None: a node that does not say.

    The rest are times of the node's CLOCK_BOOTTIME, 0: not known. `sent_mono_ns` is now; `looked_mono_ns`
    when its runner last said that it looks at everything, `seen_mono_ns` the last moment at which that had
    seen all of its guests that `digest` has as up: what died before it, the node has been told.
    """

    host: Annotated[HostId, _NAME]
    boot: Name
    incarnation: Name
    seq: Number
    digest: Text
    first: Number = 0
    offers: Text = ""
    assigned: Text = ""
    store: Text = ""
    asks: bool = False
    looked: bool | None = None
    sent_mono_ns: Number = 0
    looked_mono_ns: Number = 0
    seen_mono_ns: Number = 0


@checked(frozen=True, slots=True, config=_STRICT)
class Goodbye:
    """node.<host>.goodbye: the node process stops because it was asked to; this is not a fault."""

    host: Annotated[HostId, _NAME]
    incarnation: Name


@checked(frozen=True, slots=True, config=_STRICT)
class Snapshot:
    """node.<host>.levels: everything the node knows, the answer to a resync. `first` as in Observations.

    `offers` are the guests that it could run, all of them in all parts together.
    What does not fit into one message comes in `parts` of them, this is number `part` from 1 on. Each part
    stands for itself; only all parts of one `seq` together say that nothing else is there.
    """

    host: Annotated[HostId, _NAME]
    boot: Name
    incarnation: Name
    seq: Number
    levels: tuple[ResourceStatus, ...]
    first: Number = 0
    offers: tuple[Candidate, ...] = ()
    part: Annotated[int, Field(ge=1, le=PARTS_MAX)] = 1
    parts: Annotated[int, Field(ge=1, le=PARTS_MAX)] = 1


@checked(frozen=True, slots=True, config=_STRICT)
class HostFactsReport:
    """node.<host>.facts: what the machine has, at the start, when it changed, after a resync, and now and
    then. `number` counts within the incarnation; sent again until that number is acknowledged.
    """

    host: Annotated[HostId, _NAME]
    incarnation: Name
    number: Number
    cpus: Number
    memory_mb: Number
    disk_gb: Number
    architecture: Name

    @property
    def facts(self) -> HostFacts:
        return HostFacts(self.cpus, self.memory_mb, self.disk_gb, self.architecture)


@checked(frozen=True, slots=True, config=_STRICT)
class HostFactsAcknowledged:
    """to.<host>.facts: this report of this incarnation is committed."""

    incarnation: Name
    number: Number
    epoch: Number


@checked(frozen=True, slots=True, config=_STRICT)
class Acknowledged:
    """to.<host>.acknowledged: everything up to `seq` of store `boot` is committed."""

    boot: Name
    seq: Number
    epoch: Number


@checked(frozen=True, slots=True, config=_STRICT)
class ResyncRequested:
    """to.<host>.resync: send `Levels` and every transition not yet acknowledged."""

    epoch: Number
    reason: Text


@checked(frozen=True, slots=True, config=_STRICT)
class AssignmentGiven:
    """to.<host>.assigned: all guests that this life of the node is to run, each with its generation.

    A node that has a higher `number` of the same epoch, or another incarnation, does not heed it.
    """

    epoch: Number
    number: Number
    incarnation: Name
    mine: dict[Annotated[ResourceId, _NAME], Number]


@checked(frozen=True, slots=True, config=_STRICT)
class NodeRequest:
    """to.<host>.asked: a question. Under the same name it may come any number of times.

    `words["ask"]` names the verb: `component.verb`, or without a dot one of drills, as in 0.1. (A node
    of 0.1 would drop a message with a field of its own; a verb that it does not know it refuses by name.)
    `life`: the incarnation of the node process that it is for; any other one refuses it. Empty: whoever is
    there. `until_ns` on the node's CLOCK_BOOTTIME: it is not begun later; 0: whenever it comes.
    """

    question: Name
    epoch: Number
    words: dict[str, Any]
    life: Text = ""
    until_ns: Number = 0


@checked(frozen=True, slots=True, config=_STRICT)
class RequestFailure:
    """An error of the kernel's tree by its name; the last three are those of a BadInput."""

    kind: Name
    message: Text
    field: Text | None = None
    value: Text | None = None
    accepted: Text | None = None


@checked(frozen=True, slots=True, config=_STRICT)
class NodeResponse:
    """node.<host>.answered: what came of a question, or that it is being worked on (`taken`).

    `life` is the incarnation that says it, `at_ns` its CLOCK_BOOTTIME when it did.
    """

    host: Annotated[HostId, _NAME]
    question: Name
    life: Name
    at_ns: Number
    taken: bool = False
    answer: Any = None
    refusal: RequestFailure | None = None


@checked(frozen=True, slots=True, config=_STRICT)
class LeaderRequest:
    """node.<host>.requests: what a node asks of the leader. Under the same name it may come any number of
    times.

    `verb` is `component.verb`. `incarnation` is the life of the node process that asks. `wait_s` from now on
    it waits for the response: the leader does not work on it for longer.
    """

    host: Annotated[HostId, _NAME]
    request: Name
    incarnation: Name
    verb: Name
    arguments: dict[str, Any]
    wait_s: Annotated[float, Field(ge=0, le=REQUEST_WAIT_MAX_S, allow_inf_nan=False)]


@checked(frozen=True, slots=True, config=_STRICT)
class LeaderResponse:
    """to.<host>.responses: what came of a request of a node, or that it is being worked on (`taken`).

    `epoch` is that of the leader which says it; a node that knows a higher one does not heed it.
    """

    request: Name
    epoch: Number
    taken: bool = False
    answer: Any = None
    refusal: RequestFailure | None = None


class Subjects:
    """The NATS subjects of one host."""

    def __init__(self, host: HostId) -> None:
        self.heartbeat = f"node.{host}.heartbeat"
        self.observations = f"node.{host}.observations"
        self.levels = f"node.{host}.levels"
        self.goodbye = f"node.{host}.goodbye"
        self.answered = f"node.{host}.answered"
        self.facts = f"node.{host}.facts"
        self.facts_acknowledged = f"to.{host}.facts"
        self.requests = f"node.{host}.requests"
        self.responses = f"to.{host}.responses"
        self.acknowledged = f"to.{host}.acknowledged"
        self.resync = f"to.{host}.resync"
        self.assigned = f"to.{host}.assigned"
        self.asked = f"to.{host}.asked"


def digest(states: Mapping[ResourceId, ResourceState]) -> str:
    """Sixteen hex digits that differ when any resource's state differs."""
    return _hashed(f"{resource}={state.value}" for resource, state in sorted(states.items()))


def assigned_digest(mine: Mapping[ResourceId, int]) -> str:
    """Sixteen hex digits that differ when any guest or generation of an assignment differs."""
    return _hashed(f"{resource}={generation}" for resource, generation in sorted(mine.items()))


def candidates_digest(offers: Iterable[Candidate]) -> str:
    """Sixteen hex digits that differ when any offer differs; empty when there are none."""
    lines = sorted(f"{o.resource}={o.kind.value},{o.owner},{o.agent},{o.home}" for o in offers)
    return _hashed(lines) if lines else ""


def _hashed(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def encode(message: object) -> bytes:
    return orjson.dumps(message)


_adapters: dict[type, TypeAdapter[object]] = {}


def decode(message: type[M], body: bytes) -> M:
    """A message from JSON; BadInput names the first field that is wrong, without echoing the whole body."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise BadInput(message.__name__, f"{len(body)} bytes", f"at most {MESSAGE_BYTES_MAX} are read")
    adapter = _adapters.get(message)
    if adapter is None:
        adapter = _adapters[message] = TypeAdapter(message)
    try:
        return adapter.validate_json(body)  # type: ignore[return-value]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in (message.__name__, *first["loc"]))
        value = None if first["type"] == "missing" else first.get("input")
        raise BadInput(where, value, first["msg"]) from error
