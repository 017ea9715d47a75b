"""The Protocols at the edge, and the plain records that cross it.

A port says what Homeostat needs of the world outside; drivers satisfy it, tests have their own. Nothing here
does I/O. An outcome that is not known is a value of its own, never an exception that somebody may forget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from homeostat.contracts.wire import Outcome
from homeostat.kernel.journal import EventIndex, Seq


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One HTTP POST. Headers may hold a signature, never a secret."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """The other side answered. `said` is the beginning of its body, for people.

    `answered_mono_ns` is our monotonic clock when its status line was there, None when the driver cannot say.
    `consumer_ns` is when it had read and when it had handled the request, on its own wall clock, if it says.
    """

    status: int
    retry_after_s: float | None = None
    said: str = ""
    answered_mono_ns: int | None = field(default=None, compare=False)
    consumer_ns: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True, slots=True)
class NoWebhookReply:
    """Nobody knows whether the request arrived: no connection, a broken one, or the deadline."""

    reason: str


@dataclass(frozen=True, slots=True)
class WebhookRefused:
    """We did not send: the target is one that we do not talk to."""

    reason: str


WebhookResult = WebhookReply | NoWebhookReply | WebhookRefused


class Transport(Protocol):
    """Carries a request to a webhook."""

    async def post(self, request: WebhookRequest) -> WebhookResult:
        """Send once, follow nothing. Does not raise for what the network or the other side does."""

    async def close(self) -> None:
        """Let all connections go."""


@dataclass(frozen=True, slots=True)
class ActFailed:
    """It was tried and did not work, or only of some."""

    reason: str


@dataclass(frozen=True, slots=True)
class ActUnknown:
    """Nobody knows how far it got: the deadline was over first."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing runs on the host any more; `receipt` is what was said about it."""

    receipt: str


FenceResult = Fenced | ActFailed | ActUnknown


class Fence(Protocol):
    """Makes sure that nothing runs on a host. Fencing a fenced host again changes nothing."""

    name: str

    async def fence(self, host: str) -> FenceResult:
        """Do it within the driver's own deadline. Does not raise for what the world outside does."""


@dataclass(frozen=True, slots=True)
class MarkSucceeded:
    """The cloud shows it so now. `count` is of how many guests, 0 of a host."""

    count: int
    said: str


MarkResult = MarkSucceeded | ActFailed | ActUnknown


def act_outcome(result: FenceResult | MarkResult) -> tuple[Outcome, str]:
    match result:
        case Fenced(receipt=said) | MarkSucceeded(said=said):
            return Outcome.OK, said
        case ActFailed(reason=reason):
            return Outcome.FAILED, reason
        case ActUnknown(reason=reason):
            return Outcome.UNKNOWN, reason
        case _:
            assert_never(result)


@dataclass(frozen=True, slots=True)
class CloudView:
    """What a cloud shows of one host now: whether it is down, and which guests on it are in error."""

    down: bool
    in_error: frozenset[str]


class Cloud(Protocol):
    """Where tenants look: shows hosts as down and guests in error. Each call may be repeated.

    A cloud that still takes a dead host for a living one starts guests there. So `mark_down` comes first and
    is one call; errors come after it, a call a guest where the cloud has no other way, in parallel and within
    a bound that the driver knows. (Source: nova, force-down of 2.11, os-resetState.)
    """

    name: str

    async def mark_down(self, host: str) -> MarkResult:
        """Nothing is started on this host any more. Does not raise for what the cloud does."""

    async def set_error(self, host: str) -> MarkResult:
        """Every guest that the cloud has on this host is in error."""

    async def mark_up(self, host: str) -> MarkResult:
        """Take `mark_down` back."""

    async def clear_error(self, host: str, seen: Collection[str]) -> MarkResult:
        """Take `set_error` back for the guests that were seen to run on this host; others went elsewhere."""

    async def look(self, host: str) -> CloudView | ActUnknown:
        """What is shown now, for who does not know how an act ended."""


class NewId(Protocol):
    """Makes a name that nothing ever had."""

    def __call__(self) -> str: ...


class DrillTags(Protocol):
    """The drills that faults belong to; the component that breaks things on purpose makes it."""

    def run_of(self, about: str, host: str, owner: str, raised: Seq | EventIndex, /) -> str:
        """The run of a drill; empty: it is no drill's. An `EventIndex` is of an entry to come."""

    async def reload(self) -> None:
        """Read it again: a commit had no answer, or nothing was read yet. RetryLater."""
