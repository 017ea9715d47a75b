"""Rules for running drills: who has a site, which faults are a run's, how our fault manager reacted.
Pure.

Claims: one drill a site, since what two of them measure on the same hosts, each would take for its own. A
claim that is not renewed lapses, so that a tool that died keeps nobody out for long. Times are one
monotonic clock's.

The index from a fault to the run that caused it goes by journal sequence numbers, without the database. A
fault belongs to a run when it was raised behind the run's beginning and not behind its end, about a host
of the run, or something that was there, or a resource of the run. Drills begin and end behind the faults
of their entry, so the same answer comes out before the commit, after it, and after every restart. A run
of a project tags only faults of that project.

Reactions (faults, notices, actions) are read from published events. Moments stay with the server: how
late a reaction was is measured by the tool that polls for it, on its own clock; `told_after_ms` is one
span on this server's clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from homeostat.contracts.events import resources as resource_events
from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.events.fleet import AgentReturned, HostBack
from homeostat.contracts.events.notices import NoticeDelivered
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, ResourceId, node_subject, resource_subject
from homeostat.drills.lapse import LAPSE_S
from homeostat.kernel.journal import Envelope, EventIndex, Seq

LAPSE_NS = round(LAPSE_S * 1e9)


@dataclass(frozen=True, slots=True)
class Claim:
    """A site that one run has for itself until `until_ns`. `by` is the token of who began it."""

    site: str
    run: str
    owner: str
    by: str
    until_ns: int


@dataclass(frozen=True, slots=True)
class Halt:
    """No drill runs until somebody takes this back."""

    by: str
    owner: str
    why: str
    at_ns: int
    """Wall time, for people."""

    @property
    def words(self) -> str:
        return f"halted by {self.by}: {self.why}"


@dataclass(frozen=True, slots=True)
class SiteClaims:
    """All claims by site, and whether drills are halted. A value: each change makes another."""

    by_site: Mapping[str, Claim] = field(default_factory=dict)
    halt: Halt | None = None

    def of(self, run: str) -> Claim | None:
        """The claim of a run; None when it has none (any more)."""
        return next((each for each in self.by_site.values() if each.run == run), None)

    def with_claim(self, claim: Claim) -> SiteClaims:
        return replace(self, by_site={**self.by_site, claim.site: claim})

    def without(self, run: str) -> SiteClaims:
        left = {site: claim for site, claim in self.by_site.items() if claim.run != run}
        return replace(self, by_site=left)


def claim_holder(claims: SiteClaims, site: str, now_ns: int) -> Claim | None:
    """Whose a site is now. One that has lapsed is nobody's, even before that is written down."""
    found = claims.by_site.get(site)
    return None if found is None or now_ns >= found.until_ns else found


def renewed_claims(claims: SiteClaims, run: str, now_ns: int) -> SiteClaims:
    """The claim lasts longer. One that has lapsed stays so: another drill may have begun in between."""
    claim = claims.of(run)
    if claim is None or now_ns >= claim.until_ns:
        return claims
    return claims.with_claim(replace(claim, until_ns=now_ns + LAPSE_NS))


def stop_reason(claims: SiteClaims, run: str, now_ns: int) -> str | None:
    """Why a run must stop; None while it may go on."""
    claim = claims.of(run)
    if claim is None or now_ns >= claim.until_ns:
        return f"its claim lapsed: not renewed for {LAPSE_S:g} s, and the site may be another drill's"
    return None if claims.halt is None else claims.halt.words


def lapsed_claims(claims: SiteClaims, now_ns: int) -> tuple[Claim, ...]:
    """The claims that nobody renewed in time."""
    return tuple(each for each in claims.by_site.values() if now_ns >= each.until_ns)


def reloaded_claims(stored: Iterable[Claim], known: SiteClaims, halt: Halt | None) -> SiteClaims:
    """What the tables say, with the deadlines that are known already: reading again prolongs nothing.

    The deadline of a stored claim is the longest that it may have: nobody could renew while no server ran.
    """
    found: dict[str, Claim] = {}
    for claim in stored:
        here = known.of(claim.run)
        found[claim.site] = claim if here is None else replace(claim, until_ns=here.until_ns)
    return SiteClaims(found, halt)


READ_EVENTS = (
    FaultRaised,
    NoticeDelivered,
    resource_events.ResourceDown,
    resource_events.ResourceUp,
    resource_events.ActionIntended,
    resource_events.ActionFinished,
    resource_events.GuestMoved,
    HostBack,
    AgentReturned,
)
KINDS = tuple(kind.__name__ for kind in READ_EVENTS)
_RAISED = ":raised"


@dataclass(frozen=True, slots=True)
class RaisedFault:
    """A fault of the drill. `told_after_ms`: from its commit to the first consumer's answer, if any."""

    fault: str
    kind: str
    about: str
    told_after_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """Something works again, and by whom that was done."""

    what: str
    by: str


@dataclass(frozen=True, slots=True)
class DrillReactions:
    """In the journal's order."""

    faults: tuple[RaisedFault, ...]
    returns: tuple[Restored, ...]


@dataclass(slots=True)
class _ReactionFold:
    """`out`: what is down now; `acts`: who said that it will act on what, by action; `by`: who did."""

    hosts: Collection[str]
    resources: Collection[str]
    faults: dict[str, RaisedFault] = field(default_factory=dict)
    returns: list[Restored] = field(default_factory=list)
    out: set[str] = field(default_factory=set)
    acts: dict[str, tuple[str, str]] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    mine: set[str] = field(default_factory=set)

    def take(self, envelope: Envelope) -> None:
        event = envelope.event
        match event:
            case resource_events.ResourceDown():
                if event.host in self.hosts or event.resource in self.resources:
                    self.mine.add(resource_subject(event.resource))
                    self.out.add(resource_subject(event.resource))
            case FaultRaised() if self._is_mine(event.about):
                self.faults[event.fault] = RaisedFault(event.fault, event.kind.value, event.about)
            case NoticeDelivered():
                self._told(envelope.at_ns, event)
            case resource_events.ActionIntended():
                self.acts[event.action] = (envelope.subject, _words(event.owner_of_act, event.verb))
            case resource_events.ActionFinished(outcome="ok") if event.action in self.acts:
                about, who = self.acts[event.action]
                self.by[about] = who
            case resource_events.GuestMoved():
                about = resource_subject(event.resource)
                if self._is_mine(about) or event.from_host in self.hosts:
                    self.mine.add(about)
                    self.out.add(about)
                    self.by[about] = f"the leader, which moved it from {event.from_host} to {event.host}"
            case resource_events.ResourceUp():
                self._up(resource_subject(event.resource), event.resource, "itself: no act of ours")
            case HostBack() if event.host in self.hosts:
                self.returns.append(Restored(f"host {event.host}", f"itself: {event.reason}"))
            case AgentReturned() if event.host in self.hosts:
                self.returns.append(Restored(f"node process on {event.host}", "its own supervisor"))

    def _is_mine(self, about: str) -> bool:
        named = (*map(node_subject, self.hosts), *map(resource_subject, self.resources))  # type: ignore[arg-type]
        return about in self.mine or about in named

    def _told(self, at_ns: int, event: NoticeDelivered) -> None:
        fault = self.faults.get(event.key.removesuffix(_RAISED).rpartition(":")[2])
        if fault is None or not event.key.endswith(_RAISED) or fault.told_after_ms is not None:
            return
        if event.offered_ns is not None:
            after_ms = max(0, at_ns - event.offered_ns) / 1e6
            self.faults[fault.fault] = replace(fault, told_after_ms=after_ms)

    def _up(self, about: str, name: str, nobody: str) -> None:
        if about in self.out:
            self.out.discard(about)
            self.returns.append(Restored(name, self.by.pop(about, nobody)))


def reactions_of(
    events: Iterable[Envelope], hosts: Collection[str], resources: Collection[str]
) -> DrillReactions:
    """Everything that the journal says of these hosts and resources, among the events of one run."""
    fold = _ReactionFold(frozenset(hosts), frozenset(resources))
    for each in events:
        fold.take(each)
    return DrillReactions(tuple(fold.faults.values()), tuple(fold.returns))


def _words(owner_of_act: str, verb: str) -> str:
    noun, _, host = owner_of_act.partition("/")
    return f"the runner on {host} ({verb})" if noun == "node" else f"{owner_of_act} ({verb})"


@dataclass(frozen=True, slots=True)
class RunSpan:
    """From the event that began a run to the one that ended it; None while it runs."""

    run: str
    owner: str
    hosts: tuple[HostId, ...]
    resources: tuple[ResourceId, ...]
    began: Seq
    ended: Seq | None = None

    def covers(self, raised: Seq | EventIndex) -> bool:
        """Whether a fault of that number is within. An `EventIndex` is raised now, in an entry to come."""
        if isinstance(raised, EventIndex):
            return self.ended is None
        return self.began < raised and (self.ended is None or raised <= self.ended)

    def tags(self, owner: str) -> bool:
        """Whether the faults of a project may be this run's."""
        return self.owner in (INFRASTRUCTURE, owner)

    def subjects(self) -> Iterable[str]:
        """What it may break."""
        yield from map(node_subject, self.hosts)
        yield from map(resource_subject, self.resources)


@dataclass(slots=True)
class _Lane:
    """The runs about one subject in their order; `open_to` is the latest end among those up to each."""

    spans: list[RunSpan] = field(default_factory=list)
    open_to: list[float] = field(default_factory=list)

    def add(self, span: RunSpan) -> None:
        self.spans.append(span)
        self._reckon(len(self.spans) - 1)

    def replace(self, span: RunSpan) -> None:
        """What is known of a run now; it is one of the last."""
        for number in range(len(self.spans) - 1, -1, -1):
            if self.spans[number].run == span.run:
                self.spans[number] = span
                self._reckon(number)
                return

    def _reckon(self, first: int) -> None:
        del self.open_to[first:]
        for span in self.spans[first:]:
            end = float("inf") if span.ended is None else float(span.ended)
            self.open_to.append(max(end, self.open_to[-1]) if self.open_to else end)

    def newest(self, owner: str, raised: Seq | EventIndex) -> RunSpan | None:
        place = len(self.spans)
        if not isinstance(raised, EventIndex):
            place = bisect_left(self.spans, raised, key=lambda span: span.began)
        at = float("inf") if isinstance(raised, EventIndex) else float(raised)
        for number in range(place - 1, -1, -1):
            if self.open_to[number] < at:
                return None
            if self.spans[number].covers(raised) and self.spans[number].tags(owner):
                return self.spans[number]
        return None


class FaultTagIndex:
    """Used on one event loop. A beginning and an end cost as much as the subjects of that run."""

    def __init__(self, spans: Iterable[RunSpan] = ()) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._running: dict[str, RunSpan] = {}
        for span in sorted(spans, key=lambda each: each.began):
            self.add(span)

    def add(self, span: RunSpan) -> None:
        if span.ended is None:
            self._running[span.run] = span
        for subject in dict.fromkeys(span.subjects()):
            self._lanes.setdefault(subject, _Lane()).add(span)

    def end(self, run: str, ended: Seq) -> None:
        span = self._running.pop(run, None)
        if span is not None:
            for subject in dict.fromkeys(span.subjects()):
                self._lanes[subject].replace(replace(span, ended=ended))

    def run_of(self, about: str, host: str, owner: str, raised: Seq | EventIndex) -> str:
        """The run of a fault; empty: it is no drill's. `host` is where it was, empty for nowhere."""
        if not self._lanes:
            return ""
        subjects = (about, node_subject(HostId(host))) if host else (about,)
        lanes = (self._lanes.get(subject) for subject in dict.fromkeys(subjects))
        found = [span for lane in lanes if lane and (span := lane.newest(owner, raised)) is not None]
        return max(found, key=lambda span: span.began).run if found else ""
