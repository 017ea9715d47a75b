"""Invariants of faults and their notices: one fault for every death of a process, raised before cleared, I2
every fault ends in a notice or a stated reason, I3 at most one notice for each transition.

Deaths are known from the injector's own log. Deaths so close that the resource was not right for long in
between may be one fault or several: then at least one, and no more than there were reasons. A host that lost
its memory cannot know what was in it. Outages of resources on a host that is down, or thought to be, are
notified with the host, as `host_down`, and not one by one (`CoveredByHost`). Raised before cleared: in the
journal for each subject in turn, and at every consumer.

I2: the stated reason is that no subscription asks for it (`notices.matching`), or the reason with which a
notice was given up, or the silence that kept it back. I3: at most one notice for each consumer, fault and
transition, by key; and one key always says the same. Checked in the journal, in the outbox and at consumers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from homeostat.contracts.component import Violation
from homeostat.contracts.events import notices as notice_events
from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.resources import ResourceDown
from homeostat.contracts.nouns import FaultId, FaultKind, HostId, ResourceId, fault_subject, resource_subject
from homeostat.notices.matching import NOTIFIED_REASONS, decide_raised
from homeostat.notices.model import FaultPicture, NoticeState, NoticeTransition
from homeostat.sim import history as story
from homeostat.sim.checkers.evidence import CheckerEvidence, committed_at
from homeostat.sim.environment import EPOCH_NS


@dataclass(slots=True)
class CoveredByHost:
    """`off` are moments at which a host went off, `down` from when until when its host_down was not cleared.

    `learned` are outages by their source's wall clock, and when they were written down. Seconds of the story.
    """

    off: dict[HostId, list[float]] = field(default_factory=lambda: defaultdict(list))
    down: dict[HostId, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    learned: dict[ResourceId, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, evidence: CheckerEvidence) -> CoveredByHost:
        """Read it from a story and its journal."""
        found = cls()
        if evidence.story is None:
            return found
        for at_s, dead in evidence.story.of(story.HostDied):
            found.off[dead.host].append(at_s)
        committed = committed_at(evidence)
        cleared_s = {
            event.fault: committed[envelope.seq][0] for envelope, event in evidence.record.of(FaultCleared)
        }
        for envelope, raised in evidence.record.of(FaultRaised):
            if raised.kind == FaultKind.HOST_DOWN:
                span = committed[envelope.seq][0], cleared_s.get(raised.fault, float("inf"))
                found.down[HostId(raised.about.partition("/")[2])].append(span)
        for envelope, wrong in evidence.record.of(ResourceDown):
            found.learned[wrong.resource].append((wrong.seen_ns, committed[envelope.seq][0]))
        return found

    def explains(self, death: story.ProcessKilled, outage: tuple[float, float, float], skew_ns: int) -> bool:
        """Whether an outage (it began, was right again, the next one began) was reported with the host.

        It is when the host was off or down meanwhile, or when the news of it came in while the host was down.
        """
        began_s, right_s, next_s = outage
        down = self.down[death.host]
        if any(began_s <= at_s <= right_s for at_s in self.off[death.host]):
            return True
        if any(since_s <= right_s and began_s <= until_s for since_s, until_s in down):
            return True
        return any(
            began_s <= (seen_ns - EPOCH_NS - skew_ns) / 1e9 + 0.001 < next_s
            and any(since_s <= known_s <= until_s for since_s, until_s in down)
            for seen_ns, known_s in self.learned[death.resource]
        )


ONE_FAULT_PER_DEATH = "every death has exactly one fault"
_APART_S = 2.0
"""Right for this long means: a new outage. Longer than `clear_after_s` and the delays of a run."""
_CLOCK_S = 0.001
_FORGETS_S = 10.0
"""A memory that was lost this long before a death may still have been needed to notice it."""


@dataclass(slots=True)
class _ResourceTimes:
    """What happened to the resources of a story, in seconds of it."""

    ready: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    died: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    reasons: dict[ResourceId, list[float]] = field(default_factory=lambda: defaultdict(list))
    last: dict[ResourceId, story.ProcessKilled] = field(default_factory=dict)
    skew_ns: dict[ResourceId, int] = field(default_factory=dict)
    lost_s: dict[HostId, float] = field(default_factory=dict)

    @classmethod
    def of(cls, record: story.RunHistory) -> _ResourceTimes:
        lives = cls()
        for line in record.lines:
            match line.fact:
                case story.ResourceReady(resource=resource):
                    lives.ready[resource].append(line.at_s)
                case story.ProcessKilled(resource=resource) as death:
                    lives.died[resource].append(line.at_s)
                    lives.reasons[resource].append(line.at_s)
                    lives.last[resource] = death
                    lives.skew_ns[resource] = death.wall_ns - EPOCH_NS - round(line.at_s * 1e9)
                case story.ResourceDisturbed(resource=resource):
                    lives.reasons[resource].append(line.at_s)
                case story.NodeMemoryLost(host=host):
                    lives.lost_s[host] = line.at_s
        return lives


def check_one_fault_per_death(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Nothing without a story."""
    if evidence.story is None:
        return
    lives, with_host = _ResourceTimes.of(evidence.story), CoveredByHost.of(evidence)
    for resource, death in lives.last.items():
        raised = sorted(
            (event.seen_ns - EPOCH_NS - lives.skew_ns[resource]) / 1e9
            for _, event in evidence.record.of(FaultRaised)
            if event.about == resource_subject(resource)
        )
        reasons, ready = lives.reasons[resource], lives.ready[resource]
        forgot_s = lives.lost_s.get(death.host, -_FORGETS_S)
        for began_s, until_s, count in _outages(reasons, ready):
            if began_s < min(ready, default=0.0) or began_s < forgot_s + _FORGETS_S:
                continue
            if not any(began_s <= each <= until_s for each in lives.died[resource]):
                continue
            right_s = _right_since(max(each for each in reasons if each < until_s), ready)
            if with_host.explains(death, (began_s, right_s, until_s), lives.skew_ns[resource]):
                continue
            found = sum(began_s <= each + _CLOCK_S < until_s for each in raised)
            if not 1 <= found <= count:
                said = f"from {began_s:.3f} s on it went wrong {count} times, and {found} faults were raised"
                yield Violation(ONE_FAULT_PER_DEATH, resource_subject(resource), said)
        if death.host not in lives.lost_s:
            yield from _unexplained(resource, raised, reasons)


def _outages(reasons: list[float], ready: list[float]) -> Iterator[tuple[float, float, int]]:
    """Beginning, beginning of the next, and how many reasons there were: outages that cannot be mixed up."""
    groups: list[list[float]] = []
    for at_s in reasons:
        if groups and at_s < _right_since(groups[-1][-1], ready) + _APART_S:
            groups[-1].append(at_s)
        else:
            groups.append([at_s])
    for group, following in zip(groups, [*groups[1:], [float("inf")]], strict=True):
        yield group[0], following[0], len(group)


def _right_since(wrong_s: float, ready: list[float]) -> float:
    """When it was up again after it went wrong then."""
    place = bisect_left(ready, wrong_s)
    return ready[place] if place < len(ready) else float("inf")


def _unexplained(resource: ResourceId, raised: list[float], reasons: list[float]) -> Iterator[Violation]:
    """Faults that nothing happened for since the fault before."""
    before_s = float("-inf")
    for at_s in raised:
        if not any(before_s < each <= at_s + _CLOCK_S for each in reasons):
            said = f"a fault was raised for {at_s:.3f} s and nothing had happened since {before_s:.3f} s"
            yield Violation(ONE_FAULT_PER_DEATH, resource_subject(resource), said)
        before_s = at_s


RAISED_BEFORE_CLEARED = "raised before cleared"


def check_raised_before_cleared(evidence: CheckerEvidence) -> Iterator[Violation]:
    """One fault of a kind is open about a subject at a time; it is cleared once, under its own id."""
    open_about: dict[tuple[str, str], FaultId] = {}
    kinds: dict[str, str] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case FaultRaised() as raised:
                before = open_about.get((raised.about, raised.kind))
                if before is not None or raised.fault in kinds:
                    said = f"raised by event {envelope.seq} while {before or 'it'} was raised already"
                    yield Violation(RAISED_BEFORE_CLEARED, fault_subject(raised.fault), said)
                kinds[raised.fault] = raised.kind
                open_about[raised.about, raised.kind] = raised.fault
            case FaultCleared() as cleared:
                about = (cleared.about, kinds.get(cleared.fault, ""))
                if open_about.pop(about, None) != cleared.fault:
                    said = f"cleared by event {envelope.seq} and not raised before that"
                    yield Violation(RAISED_BEFORE_CLEARED, fault_subject(cleared.fault), said)
    if evidence.story is None:
        return
    for (subject, _), fault in open_about.items():
        yield Violation(
            RAISED_BEFORE_CLEARED, fault_subject(fault), f"{subject} is right again and it was never cleared"
        )
    heard: set[tuple[str, str, str]] = set()
    for at_s, each in evidence.story.of(story.NoticeReceived):
        if each.transition != "raised" and (each.subscription, each.fault, "raised") not in heard:
            said = f"{each.subscription} hears at {at_s:.3f} s that it cleared, before it heard it raised"
            yield Violation(RAISED_BEFORE_CLEARED, fault_subject(FaultId(each.fault)), said)
        heard.add((each.subscription, each.fault, each.transition))


FAULTS_NOTIFIED = "I2 every fault ends in a notice or a stated reason"
_KNOWN_AFTER_S = 5.0
"""A subscription made in the same moment as a fault may or may not hear of it."""


def check_faults_notified(evidence: CheckerEvidence) -> Iterator[Violation]:
    """Everybody who asks was queued; everything queued was delivered or given up, with a reason."""
    queued: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, event in evidence.record.of(notice_events.NoticeQueued):
        queued[event.fault, event.transition].add(event.subscription)
    silenced = {
        (event.fault, event.subscription) for _, event in evidence.record.of(notice_events.NoticeSilenced)
    }
    since_ns = {
        event.subscription: envelope.at_ns
        for envelope, event in evidence.record.of(notice_events.SubscriptionCreated)
    }
    standing = {each.name for each in evidence.record.subscriptions}
    for envelope, raised in evidence.record.of(FaultRaised):
        notified = queued[raised.fault, NoticeTransition.RAISED]
        for subscription in evidence.record.subscriptions:
            known_s = (envelope.at_ns - since_ns.get(subscription.name, envelope.at_ns)) / 1e9
            asks = (
                decide_raised(subscription, _picture(raised), envelope.at_ns) in NOTIFIED_REASONS
                and known_s > _KNOWN_AFTER_S
            )
            known = subscription.name in notified or (raised.fault, subscription.name) in silenced
            if asks and not known:
                said = f"{subscription.name} asks for it and no notice was queued"
                yield Violation(FAULTS_NOTIFIED, fault_subject(raised.fault), said)
    for _, cleared in evidence.record.of(FaultCleared):
        heard = queued[cleared.fault, NoticeTransition.RAISED] & standing
        end = NoticeTransition.SUPERSEDED if cleared.superseded_by else NoticeTransition.CLEARED
        back = queued[cleared.fault, NoticeTransition.RECOVERED]
        for name in sorted(heard - queued[cleared.fault, end] - back):
            said = f"{name} was to hear that it was raised and never that it {end.value}"
            yield Violation(FAULTS_NOTIFIED, fault_subject(cleared.fault), said)
    for notice in evidence.record.notices:
        if notice.state is NoticeState.PENDING and evidence.overdue(notice.queued_ns):
            yield Violation(FAULTS_NOTIFIED, notice.key, "it was queued, and neither delivered nor given up")
        elif notice.state in (NoticeState.GIVEN_UP, NoticeState.SILENCED) and not notice.reason:
            yield Violation(FAULTS_NOTIFIED, notice.key, f"it was {notice.state.value} without a reason")


def _picture(raised: FaultRaised) -> FaultPicture:
    return FaultPicture(
        raised.fault, raised.kind, raised.severity, raised.about, raised.owner, raised.reason, raised.seen_ns
    )


NOTIFIED_ONCE = "I3 at most one notice a consumer, fault and transition"


def check_notified_once(evidence: CheckerEvidence) -> Iterator[Violation]:
    """In the journal, in the outbox, and at the consumers."""
    record = evidence.record
    queued = [event for _, event in record.of(notice_events.NoticeQueued)]
    for (name, fault, transition), count in Counter(
        (each.key.partition(":")[0], each.fault, _told_as(each.transition, each.key)) for each in queued
    ).items():
        if count > 1:
            yield Violation(NOTIFIED_ONCE, fault, f"{count} notices for {name} that it was {transition}")
    keys = {each.key for each in queued}
    kept_back = {event.key for _, event in record.of(notice_events.NoticeSilenced)}
    for notice in record.notices:
        if notice.state is NoticeState.SILENCED and notice.key in kept_back:
            continue  # a silence keeps it back, or kept it back for good: no notice
        if notice.key not in keys:
            yield Violation(NOTIFIED_ONCE, notice.key, "it is in the outbox and no event queued it")
    for key in sorted((keys | kept_back) - {notice.key for notice in record.notices}):
        yield Violation(NOTIFIED_ONCE, key, "an event queued it or kept it back, and it is not in the outbox")
    ended = Counter(event.key for _, event in record.of(notice_events.NoticeDelivered))
    ended.update(event.key for _, event in record.of(notice_events.NoticeGivenUp))
    for key, count in ended.items():
        if count > 1:
            yield Violation(NOTIFIED_ONCE, key, f"it ended {count} times")
    if evidence.story is not None:
        yield from _at_consumers(evidence.story)


def _told_as(transition: str, key: str) -> str:
    """The transition; of guests that come back in several parts the part, which its key names."""
    return key.rpartition(":")[2] if transition == NoticeTransition.RECOVERED else transition


def _at_consumers(record: story.RunHistory) -> Iterator[Violation]:
    bodies: dict[str, str] = {}
    keys: dict[tuple[str, str, str], str] = {}
    for at_s, heard in record.of(story.NoticeReceived):
        if not heard.queued:
            yield Violation(NOTIFIED_ONCE, heard.key, f"it was sent at {at_s:.3f} s and was not committed")
        if bodies.setdefault(heard.key, heard.body) != heard.body:
            yield Violation(NOTIFIED_ONCE, heard.key, f"at {at_s:.3f} s it says something else than before")
        what = (heard.subscription, heard.fault, _told_as(heard.transition, heard.key))
        if keys.setdefault(what, heard.key) != heard.key:
            said = f"{heard.subscription} heard twice that it was {heard.transition}, under two keys"
            yield Violation(NOTIFIED_ONCE, heard.fault, said)
