"""What really happened in a run: the log outside Homeostat, which checkers compare with the database.

Facts are written by the simulated world, never by the code under test. Times are virtual seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from homeostat.contracts.nouns import HostId, ResourceId

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Said:
    """Something that only people need."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Died:
    """A process of a service ended by our hand; `wall_ns` is its host's clock."""

    resource: ResourceId
    host: HostId
    wall_ns: int

    def __str__(self) -> str:
        return f"the process of {self.resource} dies"


@dataclass(frozen=True, slots=True)
class Faltered:
    """An agent's action went wrong or was cut short: a second reason for a resource to be wrong."""

    resource: ResourceId
    host: HostId
    what: str

    def __str__(self) -> str:
        return f"{self.resource}: {self.what}"


@dataclass(frozen=True, slots=True)
class Ready:
    """A node reported on disk that a resource is up."""

    resource: ResourceId
    host: HostId

    def __str__(self) -> str:
        return f"{self.resource} is up, says its runner"


@dataclass(frozen=True, slots=True)
class MemoryLost:
    """A node lost observations for good, so that it cannot tell what was in them."""

    host: HostId
    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Watching:
    """A node process began or ended to watch its resources."""

    host: HostId
    watching: bool

    def __str__(self) -> str:
        return "the node process starts" if self.watching else "the node process ends"


@dataclass(frozen=True, slots=True)
class IntentRecorded:
    """An intent is on the disk of its node."""

    host: HostId
    action: str

    def __str__(self) -> str:
        return f"intent {self.action} is on disk"


@dataclass(frozen=True, slots=True)
class ActBegan:
    """Something was done to a resource: a start or a stop."""

    host: HostId
    resource: ResourceId
    verb: str
    action: str

    def __str__(self) -> str:
        return f"{self.verb} of {self.resource} begins for {self.action or 'nobody'}"


@dataclass(frozen=True, slots=True)
class Left:
    """A node process said goodbye: its silence means nothing."""

    host: HostId

    def __str__(self) -> str:
        return "the node process said goodbye and ends"


@dataclass(frozen=True, slots=True)
class HostDied:
    """A whole host went off, with everything that ran there."""

    host: HostId
    why: str

    def __str__(self) -> str:
        return f"the host is off: {self.why}"


@dataclass(frozen=True, slots=True)
class HostBooted:
    """A host that was off is on again; nothing of it runs yet."""

    host: HostId

    def __str__(self) -> str:
        return "the host boots"


@dataclass(frozen=True, slots=True)
class FenceBegan:
    """A server told the power switch to fence a host."""

    host: HostId

    def __str__(self) -> str:
        return f"the power switch is told to fence {self.host}"


@dataclass(frozen=True, slots=True)
class Trial:
    """In peace a host is let die, to see that it is noticed; `until_s` is when it may come back."""

    host: HostId
    until_s: float

    def __str__(self) -> str:
        return f"{self.host} dies in peace, to be noticed"


@dataclass(frozen=True, slots=True)
class GuestRuns:
    """From now on a process of this guest runs on this host, whoever knows it."""

    guest: ResourceId
    host: HostId

    def __str__(self) -> str:
        return f"guest {self.guest} runs"


@dataclass(frozen=True, slots=True)
class GuestEnded:
    """The process of this guest on this host has ended."""

    guest: ResourceId
    host: HostId

    def __str__(self) -> str:
        return f"guest {self.guest} does not run any more"


@dataclass(frozen=True, slots=True)
class TermTook:
    """A server took the term."""

    epoch: int

    def __str__(self) -> str:
        return f"leads, epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class Wrote:
    """A server's submission is in the database: its epoch, and the epoch of the term at that moment."""

    epoch: int
    term: int
    loop: str
    seqs: tuple[int, ...]

    def __str__(self) -> str:
        return f"commits {self.loop} {list(self.seqs)} under epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class AckSent:
    """A server acknowledged; `committed` is what the database held for that store at that moment."""

    host: HostId
    boot: str
    seq: int
    committed: int

    def __str__(self) -> str:
        return f"acknowledges {self.host} up to {self.seq}"


@dataclass(frozen=True, slots=True)
class Received:
    """A consumer has read a whole notice. `queued` says whether the outbox held it at that moment."""

    subscription: str
    key: str
    fault: str
    transition: str
    body: str
    queued: bool
    answered: str

    def __str__(self) -> str:
        return f"hears {self.key} and answers {self.answered}"


@dataclass(frozen=True, slots=True)
class Crashed:
    """A loop of a server ended with an error that nobody expected."""

    loop: str
    error: str

    def __str__(self) -> str:
        return f"its loop {self.loop} crashes: {self.error}"


Fact = (
    Said
    | Crashed
    | Died
    | Faltered
    | Ready
    | MemoryLost
    | Watching
    | IntentRecorded
    | ActBegan
    | Left
    | HostDied
    | HostBooted
    | FenceBegan
    | Trial
    | GuestRuns
    | GuestEnded
    | TermTook
    | Wrote
    | AckSent
    | Received
)


@dataclass(frozen=True, slots=True)
class Line:
    """One fact, when, and who did it."""

    at_s: float
    actor: str
    fact: Fact

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
class Story:
    """The facts of one run, in their order. `calm_s` is when misfortune ended, `guests` is what can move."""

    lines: list[Line] = field(default_factory=list)
    calm_s: float = 0.0
    witnesses: Witnesses = field(default_factory=Witnesses)
    guests: tuple[ResourceId, ...] = ()

    def of(self, kind: type[F]) -> Iterator[tuple[float, F]]:
        """Time and fact, of one kind."""
        for line in self.lines:
            fact: Any = line.fact
            if isinstance(fact, kind):
                yield line.at_s, fact
