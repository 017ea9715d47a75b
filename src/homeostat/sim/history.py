"""The history of a simulated run: what really happened, kept outside Homeostat and compared with its
database.

Facts are written by the simulated cluster, never by the code under test. Times are virtual seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from homeostat.contracts.nouns import HostId, ResourceId

F = TypeVar("F")


class HistoryFact:
    """Something that happened in a run; as text it is a line for people, by default its `WORDS`."""

    __slots__ = ()
    WORDS: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.WORDS.format(self)


@dataclass(frozen=True, slots=True)
class Remark(HistoryFact):
    """Something that only people need."""

    WORDS = "{0.text}"
    text: str


@dataclass(frozen=True, slots=True)
class ProcessKilled(HistoryFact):
    """A process of a service ended by our hand; `wall_ns` is its host's clock."""

    WORDS = "the process of {0.resource} dies"
    resource: ResourceId
    host: HostId
    wall_ns: int


@dataclass(frozen=True, slots=True)
class ResourceDisturbed(HistoryFact):
    """An agent's action went wrong or was cut short: a second reason for a resource to be wrong."""

    WORDS = "{0.resource}: {0.what}"
    resource: ResourceId
    host: HostId
    what: str


@dataclass(frozen=True, slots=True)
class ResourceReady(HistoryFact):
    """A node reported on disk that a resource is up."""

    WORDS = "{0.resource} is up, says its runner"
    resource: ResourceId
    host: HostId


@dataclass(frozen=True, slots=True)
class NodeMemoryLost(HistoryFact):
    """A node lost observations for good, so that it cannot tell what was in them."""

    WORDS = "{0.what}"
    host: HostId
    what: str


@dataclass(frozen=True, slots=True)
class NodeWatching(HistoryFact):
    """A node process began or ended to watch its resources."""

    host: HostId
    watching: bool

    def __str__(self) -> str:
        return "the node process starts" if self.watching else "the node process ends"


@dataclass(frozen=True, slots=True)
class IntentRecorded(HistoryFact):
    """An intent is on the disk of its node."""

    WORDS = "intent {0.action} is on disk"
    host: HostId
    action: str


@dataclass(frozen=True, slots=True)
class ActBegan(HistoryFact):
    """Something was done to a resource: a start or a stop."""

    host: HostId
    resource: ResourceId
    verb: str
    action: str

    def __str__(self) -> str:
        return f"{self.verb} of {self.resource} begins for {self.action or 'nobody'}"


@dataclass(frozen=True, slots=True)
class NodeLeft(HistoryFact):
    """A node process said goodbye: its silence means nothing."""

    WORDS = "the node process said goodbye and ends"
    host: HostId


@dataclass(frozen=True, slots=True)
class HostDied(HistoryFact):
    """A whole host went off, with everything that ran there."""

    WORDS = "the host is off: {0.why}"
    host: HostId
    why: str


@dataclass(frozen=True, slots=True)
class HostBooted(HistoryFact):
    """A host that was off is on again; nothing of it runs yet."""

    WORDS = "the host boots"
    host: HostId


@dataclass(frozen=True, slots=True)
class FenceBegan(HistoryFact):
    """A server told the power switch to fence a host."""

    WORDS = "the power switch is told to fence {0.host}"
    host: HostId


@dataclass(frozen=True, slots=True)
class DeathTrial(HistoryFact):
    """In peace a host is let die, to see that it is noticed; `until_s` is when it may come back."""

    WORDS = "{0.host} dies in peace, to be noticed"
    host: HostId
    until_s: float


@dataclass(frozen=True, slots=True)
class GuestRuns(HistoryFact):
    """From now on a process of this guest runs on this host, whoever knows it."""

    WORDS = "guest {0.guest} runs"
    guest: ResourceId
    host: HostId


@dataclass(frozen=True, slots=True)
class GuestEnded(HistoryFact):
    """The process of this guest on this host has ended."""

    WORDS = "guest {0.guest} does not run any more"
    guest: ResourceId
    host: HostId


@dataclass(frozen=True, slots=True)
class TermAcquired(HistoryFact):
    """A server took the term."""

    WORDS = "leads, epoch {0.epoch}"
    epoch: int


@dataclass(frozen=True, slots=True)
class SubmissionCommitted(HistoryFact):
    """A server's submission is in the database: its epoch, and the epoch of the term at that moment."""

    epoch: int
    term: int
    loop: str
    seqs: tuple[int, ...]

    def __str__(self) -> str:
        return f"commits {self.loop} {list(self.seqs)} under epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class AckSent(HistoryFact):
    """A server acknowledged; `committed` is what the database held for that store at that moment."""

    WORDS = "acknowledges {0.host} up to {0.seq}"
    host: HostId
    boot: str
    seq: int
    committed: int


@dataclass(frozen=True, slots=True)
class NoticeReceived(HistoryFact):
    """A consumer has read a whole notice. `queued` says whether the outbox held it at that moment."""

    WORDS = "hears {0.key} and answers {0.answered}"
    subscription: str
    key: str
    fault: str
    transition: str
    body: str
    queued: bool
    answered: str


@dataclass(frozen=True, slots=True)
class ServerLoopCrashed(HistoryFact):
    """A loop of a server ended with an error that nobody expected."""

    WORDS = "its loop {0.loop} crashes: {0.error}"
    loop: str
    error: str


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One fact, when, and who did it."""

    at_s: float
    actor: str
    fact: HistoryFact

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} s  {self.actor:<10} {self.fact}"


@dataclass(slots=True)
class Witnesses:
    """What each server was told of each host, and when: too much to be told line by line.

    Keys are server and host; `heard` are moments at which a message of the host's agent came in, `probed`
    moments at which a probe ended and whether the host had answered it.
    """

    heard: dict[tuple[str, HostId], list[float]] = field(default_factory=lambda: defaultdict(list))
    probed: dict[tuple[str, HostId], list[tuple[float, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )


@dataclass(slots=True)
class RunHistory:
    """The facts of one run, in their order. `guests` is what can move."""

    lines: list[HistoryLine] = field(default_factory=list)
    witnesses: Witnesses = field(default_factory=Witnesses)
    guests: tuple[ResourceId, ...] = ()

    def of(self, kind: type[F]) -> Iterator[tuple[float, F]]:
        for line in self.lines:
            if isinstance(line.fact, kind):
                yield line.at_s, line.fact
