"""Why: one sentence an event, in the journal's order. Pure; what `homeostat explain ID` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from homeostat.contracts.events import access, drills, faults, fleet, notices, resources
from homeostat.contracts.nouns import Mark
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import Envelope


def sentence(event: object | None, kind: str) -> str:
    """What happened, for a person. An unknown kind is named, never hidden."""
    match event:
        case resources.ResourceDown():
            return f"{event.resource} on {event.host} is {event.state}: {event.reason}"
        case resources.ResourceUp():
            return f"{event.resource} on {event.host} is up: {event.reason}"
        case resources.ActionIntended():
            limit = f"{event.deadline_s:g} s at most"
            return f"{event.owner_of_act} is about to {event.verb} ({event.reason}; {limit})"
        case resources.ActionFinished():
            return f"the act ended {event.outcome} after {event.took_ms:.0f} ms: {event.reason}"
        case faults.FaultRaised():
            return (
                f"fault {event.fault} raised: {event.kind} of {event.about}, {event.severity}: {event.reason}"
            )
        case faults.FaultCleared():
            outage = "" if event.outage_ms is None else f" after {event.outage_ms:.0f} ms"
            return f"fault {event.fault} cleared{outage}: {event.reason}"
        case faults.FaultInjected():
            return f"{event.by} broke host {event.host} on purpose: {event.what}"
        case faults.FaultInhibited():
            return f"{event.about} is wrong, too: no {event.kind} of its own, {event.reason}"
        case _:
            return _of_notices(event) or _of_fleet(event) or f"{kind} (this version cannot read it)"


def _of_notices(event: object | None) -> str:
    match event:
        case notices.NoticeQueued():
            return f"{_whom(event.key)} is to be told that {event.fault} is {event.transition}"
        case notices.NoticeDelivered():
            return f"{_whom(event.key)} was told ({_tries(event.attempts)})"
        case notices.NoticeGivenUp():
            return f"{_whom(event.key)} was not told ({_tries(event.attempts)}): {event.reason}"
        case notices.SubscriptionCreated():
            return (
                f"{event.subscription} subscribed for {event.owner}: {event.url or 'the stream of notices'}"
            )
        case notices.SubscriptionRemoved():
            return f"{event.subscription} unsubscribed"
        case notices.NoticeSilenced():
            return f"{_whom(event.key)} is not told: silence {event.silence} ({event.reason})"
        case notices.NoticeUnsilenced():
            return f"the silence is over and the fault is still open, so {_whom(event.key)} is told now"
        case notices.SilenceCreated():
            return f"silence {event.silence} of {event.scope} until {iso(event.ends_ns)}: {event.reason}"
        case notices.SilenceEnded():
            return f"silence {event.silence} was ended before its time"
        case _:
            return ""


def _of_fleet(event: object | None) -> str:
    match event:
        case fleet.JournalPruned():
            return f"what is over and numbered up to {event.through} is removed because it is old"
        case fleet.HostJoined():
            return f"node {event.host} joined"
        case fleet.AgentLost():
            return f"the node process on {event.host} is lost: {event.reason}; its guests may well be fine"
        case fleet.AgentReturned():
            return f"the node process on {event.host} reports again"
        case fleet.ObservationsLost():
            return f"{event.count} observations of {event.host} are lost for good"
        case fleet.TermTaken():
            return f"{event.holder} became leader, epoch {event.epoch}"
        case fleet.LoopCrashed():
            return f"loop {event.loop} crashed and was started again: {event.error}"
        case access.TokenIssued():
            return f"token {event.token} works: {event.role} of {event.owner}"
        case access.TokenRevoked():
            return f"token {event.token} does not work any more"
        case access.ConsoleOpened():
            return f"{event.token} opened the dashboard in a browser, as {event.role} of {event.owner}"
        case access.ConsoleClosed():
            return f"{event.token} logged out of the dashboard"
        case _:
            return _of_hosts(event)


def _of_hosts(event: object | None) -> str:
    match event:
        case fleet.HostDown():
            return f"host {event.host} is down: {event.reason}"
        case fleet.HostBack():
            return f"host {event.host} is back: {event.reason}"
        case fleet.HostFenced():
            return f"host {event.host} is fenced ({event.driver}): {event.receipt}"
        case fleet.HostHeld():
            asked = "asked that no harm be done to" if event.held else "lets harm be done again to"
            return f"{event.by} {asked} host {event.host}: {event.reason}"
        case fleet.EvidenceLost():
            return f"nothing can be said of the hosts: {event.reason}"
        case fleet.EvidenceBack():
            return "the hosts can be judged again"
        case fleet.ActRefused():
            return f"{event.room} did not {event.act}: {event.reason} ({event.detail})"
        case fleet.RoomArmed():
            return f"{event.by} {'armed' if event.armed else 'disarmed'} the room {event.room}"
        case _:
            return _of_guests(event)


def _of_guests(event: object | None) -> str:
    match event:
        case resources.GuestAssigned():
            return f"{event.resource} belongs to {event.host} (generation {event.generation})"
        case resources.GuestMoved():
            return (
                f"{event.resource} is to start on {event.host} instead of {event.from_host} "
                f"(generation {event.generation})"
            )
        case resources.GuestFound():
            return f"{event.host} has {event.resource} under the later generation {event.generation}"
        case resources.GuestStranded():
            return f"{event.resource} of {event.host} starts nowhere: {event.reason} ({event.detail})"
        case _:
            return _of_clouds(event)


def _of_clouds(event: object | None) -> str:
    match event:
        case fleet.HostMarked(mark=Mark.MARK_DOWN):
            return f"cloud {event.cloud} shows host {event.host} as down"
        case fleet.HostMarked(mark=Mark.SET_ERROR):
            return f"cloud {event.cloud} shows what runs on {event.host} in error"
        case fleet.HostMarked(mark=Mark.MARK_UP):
            return f"cloud {event.cloud} shows host {event.host} as it is"
        case fleet.HostMarked():
            return f"cloud {event.cloud} shows what runs on {event.host} as it is seen"
        case _:
            return _of_drills(event)


def _of_drills(event: object | None) -> str:
    match event:
        case drills.DrillBegan():
            where = ", ".join((*event.hosts, *event.resources))
            return f"{event.by} begins drill {event.drill} ({event.run}) on site {event.site}: {where}"
        case drills.DrillInjected():
            took_ms = (event.after_ns - event.before_ns) / 1e6
            return f"drill {event.run} broke it at {iso(event.before_ns)}, within {took_ms:.0f} ms"
        case drills.DrillEnded(how="reported"):
            return f"drill {event.run} is over: {event.verdict}"
        case drills.DrillEnded():
            return f"drill {event.run} is over without a verdict: {event.reason}"
        case drills.DrillReported():
            return f"drill {event.run} reported after all: {event.verdict}"
        case drills.DrillsHalted():
            return f"{event.by} halted all drills: {event.why}"
        case drills.DrillsResumed():
            return f"{event.by} lets drills begin again"
        case _:
            return ""


def _whom(key: str) -> str:
    """Which endpoint a notice is for: `multi/2` is the second of the subscription `multi`."""
    return key.partition(":")[0]


def _tries(attempts: int) -> str:
    return "first try" if attempts == 1 else f"{attempts} tries"


class Explained(BaseModel):
    """One event of a chain. `after_ms` counts from the earliest; `cause` is the number of another event."""

    seq: int
    at: str
    after_ms: float
    cause: int | None
    kind: str
    by: str
    what: str


def arrivals(chain: Sequence[Envelope], ups: Iterable[Envelope]) -> list[Envelope]:
    """Where the story of guests that moved ends: of `ups` the first of each on its new host, after the move.

    A start has a chain of its own, with its node's acts: nothing in the journal says that the move caused it.
    """
    moved: dict[str, tuple[int, str]] = {}
    for each in chain:
        if isinstance(each.event, resources.GuestMoved):
            moved[each.subject] = (each.seq, each.event.host)
    found: dict[str, Envelope] = {}
    for up in sorted(ups, key=lambda each: each.seq):
        since, host = moved.get(up.subject, (up.seq, ""))
        if isinstance(up.event, resources.ResourceUp) and up.event.host == host and up.seq > since:
            found.setdefault(up.subject, up)
    known = {each.seq for each in chain}
    return [each for each in found.values() if each.seq not in known]


def explained(chain: Sequence[Envelope]) -> list[Explained]:
    """The chain as rows, in the journal's order."""
    if not chain:
        return []
    first_ns = min(each.at_ns for each in chain)
    return [
        Explained(
            seq=each.seq,
            at=iso(each.at_ns),
            after_ms=round((each.at_ns - first_ns) / 1e6, 1),
            cause=each.cause,
            kind=each.kind,
            by=each.origin,
            what=sentence(each.event, each.kind),
        )
        for each in chain
    ]
