"""I2: every fault ends in a notice or a stated reason.

The stated reason is that no subscription asks for it (`notices.matching`), or the reason with which a notice
was given up, or the silence that kept it back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.notices import NoticeQueued, NoticeSilenced, SubscriptionCreated
from homeostat.contracts.nouns import fault_subject
from homeostat.notices.matching import TOLD, decide
from homeostat.notices.model import FaultPicture, NoticeState, Transition
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I2 every fault ends in a notice or a stated reason"
_KNOWN_AFTER_S = 5.0
"""A subscription made in the same moment as a fault may or may not hear of it."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """Everybody who asks was queued; everything queued was delivered or given up, with a reason."""
    queued: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, event in evidence.record.of(NoticeQueued):
        queued[event.fault, event.transition].add(event.subscription)
    silenced = {(event.fault, event.subscription) for _, event in evidence.record.of(NoticeSilenced)}
    since_ns = {
        event.subscription: envelope.at_ns for envelope, event in evidence.record.of(SubscriptionCreated)
    }
    standing = {each.name for each in evidence.record.subscriptions}
    for envelope, raised in evidence.record.of(FaultRaised):
        told = queued[raised.fault, Transition.RAISED]
        for subscription in evidence.record.subscriptions:
            known_s = (envelope.at_ns - since_ns.get(subscription.name, envelope.at_ns)) / 1e9
            asks = decide(subscription, _picture(raised), envelope.at_ns) in TOLD and known_s > _KNOWN_AFTER_S
            known = subscription.name in told or (raised.fault, subscription.name) in silenced
            if asks and not known:
                said = f"{subscription.name} asks for it and no notice was queued"
                yield Violation(NAME, fault_subject(raised.fault), said)
    for _, cleared in evidence.record.of(FaultCleared):
        heard = queued[cleared.fault, Transition.RAISED] & standing
        for name in sorted(heard - queued[cleared.fault, Transition.CLEARED]):
            said = f"{name} was to hear that it was raised and never that it cleared"
            yield Violation(NAME, fault_subject(cleared.fault), said)
    for notice in evidence.record.notices:
        if notice.state is NoticeState.PENDING and evidence.overdue(notice.queued_ns):
            yield Violation(NAME, notice.key, "it was queued, and neither delivered nor given up")
        elif notice.state in (NoticeState.GIVEN_UP, NoticeState.SILENCED) and not notice.reason:
            yield Violation(NAME, notice.key, f"it was {notice.state.value} without a reason")


def _picture(raised: FaultRaised) -> FaultPicture:
    return FaultPicture(
        raised.fault, raised.kind, raised.severity, raised.about, raised.owner, raised.reason, raised.seen_ns
    )
