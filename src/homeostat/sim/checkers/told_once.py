"""I3: at most one notice a consumer, fault and transition, by key; and one key always says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from homeostat.contracts.events.notices import NoticeDelivered, NoticeGivenUp, NoticeQueued, NoticeSilenced
from homeostat.notices.model import NoticeState
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I3 at most one notice a consumer, fault and transition"


def check(evidence: Evidence) -> Iterator[Violation]:
    """In the journal, in the outbox, and at the consumers."""
    record = evidence.record
    queued = [event for _, event in record.of(NoticeQueued)]
    for (name, fault, transition), count in Counter(
        (each.key.partition(":")[0], each.fault, each.transition) for each in queued
    ).items():
        if count > 1:
            yield Violation(NAME, fault, f"{count} notices for {name} that it was {transition}")
    keys = {each.key for each in queued}
    kept_back = {event.key for _, event in record.of(NoticeSilenced)}
    for notice in record.notices:
        if notice.state is NoticeState.SILENCED and notice.key in kept_back:
            continue  # a silence keeps it back, or kept it back for good: nobody is told
        if notice.key not in keys:
            yield Violation(NAME, notice.key, "it is in the outbox and no event queued it")
    for key in sorted((keys | kept_back) - {notice.key for notice in record.notices}):
        yield Violation(NAME, key, "an event queued it or kept it back, and it is not in the outbox")
    ended = Counter(event.key for _, event in record.of(NoticeDelivered))
    ended.update(event.key for _, event in record.of(NoticeGivenUp))
    for key, count in ended.items():
        if count > 1:
            yield Violation(NAME, key, f"it ended {count} times")
    if evidence.story is not None:
        yield from _at_consumers(evidence.story)


def _at_consumers(told: story.Story) -> Iterator[Violation]:
    bodies: dict[str, str] = {}
    keys: dict[tuple[str, str, str], str] = {}
    for at_s, heard in told.of(story.Received):
        if not heard.queued:
            yield Violation(NAME, heard.key, f"it was sent at {at_s:.3f} s and was not committed")
        if bodies.setdefault(heard.key, heard.body) != heard.body:
            yield Violation(NAME, heard.key, f"at {at_s:.3f} s it says something else than before")
        what = (heard.subscription, heard.fault, heard.transition)
        if keys.setdefault(what, heard.key) != heard.key:
            said = f"{heard.subscription} heard twice that it was {heard.transition}, under two keys"
            yield Violation(NAME, heard.fault, said)
