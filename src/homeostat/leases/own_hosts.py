"""Our own hosts as the journal tells of them: their death, their return, their removal.

The push source of leases. At its start it compares the rows with what the server knows of its hosts, so that
a host which died or vanished while nobody followed is marked then; from there on it reads the journal. So it
needs no cursor. It only marks; healing comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from homeostat.contracts.events.fleet import HostBack, HostDown, HostJoined, HostRemoved
from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import Envelope, Journal, Seq
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.reservable_hosts import mark_failed, mark_recovered

KINDS = frozenset(each.__name__ for each in (HostDown, HostBack, HostRemoved, HostJoined))
PAGE = 200


class OutcomeState(StrEnum):
    """What a source says of a host. `absent`: it is not in the list of hosts. `unknown` changes nothing."""

    UP = "up"
    DOWN = "down"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostOutcome:
    """`seen_ns` is since when, the wall clock of who saw it."""

    host: HostId
    state: OutcomeState
    reason: str
    seen_ns: int
    cause: Seq | None = None


def judge(book: LeaseBook, outcomes: Sequence[HostOutcome], context: LeaseContext) -> LeaseChange:
    """The rows of reservable hosts as the outcomes make them; later ones of a host win. Pure."""
    latest = {each.host: each for each in outcomes}
    changes = [_judged(book, each, context) for each in latest.values()]
    return LeaseChange(
        events=tuple(event for change in changes for event in change.events),
        hosts=tuple(host for change in changes for host in change.hosts),
    )


def _judged(book: LeaseBook, outcome: HostOutcome, context: LeaseContext) -> LeaseChange:
    match outcome.state:
        case OutcomeState.UP:
            change = mark_recovered(book, outcome.host, outcome.reason, context)
        case OutcomeState.DOWN | OutcomeState.ABSENT:
            change = mark_failed(book, outcome.host, outcome.reason, outcome.seen_ns, context)
        case OutcomeState.UNKNOWN:
            change = LeaseChange()
    return change.caused_by(outcome.cause)


def read_outcomes(envelopes: Sequence[Envelope]) -> list[HostOutcome]:
    """What events of the fleet say of hosts."""
    found = []
    for each in envelopes:
        match each.event:
            case HostDown(host=host, reason=reason, seen_ns=seen_ns):
                found.append(HostOutcome(host, OutcomeState.DOWN, reason, seen_ns, each.seq))
            case HostBack(host=host, reason=reason, seen_ns=seen_ns):
                found.append(HostOutcome(host, OutcomeState.UP, reason, seen_ns, each.seq))
            case HostJoined(host=host):
                found.append(HostOutcome(host, OutcomeState.UP, "it reports", each.at_ns, each.seq))
            case HostRemoved(host=host, by=by):
                reason = f"{by} removed the host"
                found.append(HostOutcome(host, OutcomeState.ABSENT, reason, each.at_ns, each.seq))
            case _:
                pass
    return found


@dataclass(frozen=True, slots=True)
class KnownHost:
    """A host as the server knows it. `down_ns` is since when it is dead, None while it lives."""

    host: HostId
    down_ns: int | None


def compare(book: LeaseBook, known: Mapping[HostId, KnownHost], now_ns: int) -> list[HostOutcome]:
    """The state of every reservable host, by what the server knows of its hosts now."""
    found = []
    for host in book.hosts:
        seen = known.get(host)
        if seen is None:
            reason = "it is not among the hosts that report to this server"
            found.append(HostOutcome(host, OutcomeState.ABSENT, reason, now_ns))
        elif seen.down_ns is not None:
            found.append(HostOutcome(host, OutcomeState.DOWN, "it is down", seen.down_ns))
        else:
            found.append(HostOutcome(host, OutcomeState.UP, "it reports", now_ns))
    return found


def _as_read(outcomes: Sequence[HostOutcome], _book: LeaseBook, _now_ns: int) -> Sequence[HostOutcome]:
    return outcomes


class FollowedJournal(Protocol):
    """`kernel.appender.Appender`, as far as it is waited for."""

    @property
    def head(self) -> Seq: ...

    async def wait_beyond(self, seq: Seq) -> Seq: ...


@dataclass(frozen=True, slots=True)
class OwnHostsDependencies:
    """What the loop works with. `known`: every host that the server knows now."""

    keeper: LeaseKeeper
    journal: Journal
    appended: FollowedJournal
    known: Callable[[], Mapping[HostId, KnownHost]]


class OwnHostsFollower:
    """The loop; one for a server."""

    def __init__(self, parts: OwnHostsDependencies) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Follow for ever. RetryLater ends it: it is started again, and compares again."""
        parts = self._parts
        place = parts.appended.head
        await self._mark(lambda book, now_ns: compare(book, parts.known(), now_ns))
        while True:
            head = await parts.appended.wait_beyond(place)
            page = await parts.journal.read(place, PAGE, kinds=KINDS)
            if page:
                await self._mark(partial(_as_read, read_outcomes(page)))
            place = page[-1].seq if len(page) == PAGE else max(head, page[-1].seq if page else head)

    async def _mark(self, outcomes: Callable[[LeaseBook, int], Sequence[HostOutcome]]) -> None:
        def decide(book: LeaseBook, context: LeaseContext) -> LeaseChange:
            return judge(book, outcomes(book, context.now_ns), context)

        await self._parts.keeper.decide(decide, "journal")
