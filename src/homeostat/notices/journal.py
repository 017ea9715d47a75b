"""Notices in the journal: sentences of their events, whom they concern, what may be removed, what a replay
follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, select, true

from homeostat.contracts.events import notices
from homeostat.kernel import journal_rules
from homeostat.kernel.clock import iso
from homeostat.kernel.database import slices
from homeostat.kernel.journal import Envelope
from homeostat.notices.model import NoticeState
from homeostat.notices.store import IS_OVER, outbox, silence_table, subscription


def sentence(event: object, _about: str) -> str:
    match event:
        case notices.NoticeQueued():
            return f"Notice to {_whom(event.key)} queued: {event.fault} {event.transition}"
        case notices.NoticeDelivered():
            return f"Notice to {_whom(event.key)} delivered ({_tries(event.attempts)})"
        case notices.NoticeGivenUp():
            return f"Notice to {_whom(event.key)} given up ({_tries(event.attempts)}): {event.reason}"
        case notices.SubscriptionCreated():
            target = event.url or "the stream of notices"
            return f"Subscription {event.subscription} of project {event.owner} created: {target}"
        case notices.SubscriptionRemoved():
            return f"Subscription {event.subscription} removed"
        case notices.NoticeSilenced():
            return f"Notice to {_whom(event.key)} held back by silence {event.silence}: {event.reason}"
        case notices.NoticeUnsilenced():
            return f"Notice to {_whom(event.key)} queued: its silence is over and the fault is still open"
        case notices.SilenceCreated():
            return f"Silence {event.silence} of {event.scope} until {iso(event.ends_ns)}: {event.reason}"
        case notices.SilenceEnded():
            return f"Silence {event.silence} was ended before its time"
        case _:
            return ""


def _whom(key: str) -> str:
    """Which endpoint a notice is for: `multi/2` is the second of the subscription `multi`."""
    return key.partition(":")[0]


def _tries(attempts: int) -> str:
    return "first try" if attempts == 1 else f"{attempts} tries"


def find_owners(connection: Connection, envelopes: Sequence[Envelope]) -> Mapping[int, frozenset[str]]:
    """The projects of subscriptions, silences and notices."""
    found: dict[int, frozenset[str]] = {}
    sent: dict[str, list[int]] = {}
    for each in envelopes:
        match each.event:
            case notices.SubscriptionCreated() | notices.SilenceCreated() | notices.SilenceEnded():
                found[int(each.seq)] = frozenset({str(each.event.owner)})
            case _ if each.subject.startswith("notice/"):
                sent.setdefault(each.subject.removeprefix("notice/"), []).append(int(each.seq))
            case _:
                pass
    for keys in slices(sorted(sent)):
        for key, owner in connection.execute(
            select(outbox.c.key, outbox.c.owner).where(outbox.c.key.in_(keys))
        ):
            found |= dict.fromkeys(sent[key], frozenset({str(owner)}))
    return found


RETENTION = journal_rules.RetentionRules(
    prunable=(journal_rules.PrunableRows("notices", outbox, outbox.c.key, outbox.c.queued_seq, IS_OVER),),
    # Numbered by their ends: those go that ended before the time. A notice says itself why it was not sent.
    timed=(
        journal_rules.PrunableRows(
            "silences", silence_table, silence_table.c.id, silence_table.c.ends_ns, true()
        ),
    ),
    bounds=lambda _before_ns: (select(func.min(outbox.c.queued_seq) - 1).where(~IS_OVER),),
)


def _follow(rows: journal_rules.ReplayedRows, seq: int, _subject: str, event: object) -> str:
    match event:
        case notices.NoticeQueued():
            queued = {
                "subscription": event.subscription,
                "fault": event.fault,
                "transition": event.transition,
                "queued_seq": seq,
                "state": NoticeState.PENDING.value,
            }
            return rows.begin("outbox", event.key, seq, queued)
        case notices.NoticeDelivered():
            return rows.end("outbox", event.key, seq, {"state": NoticeState.DELIVERED.value})
        case notices.NoticeGivenUp():
            return rows.end("outbox", event.key, seq, {"state": NoticeState.GIVEN_UP.value})
        case notices.NoticeSilenced() | notices.NoticeUnsilenced():
            rows.unjudged.add(event.key)
        case notices.SubscriptionCreated():
            rows.of("subscription")[event.subscription] = {"owner": event.owner}
        case notices.SubscriptionRemoved():
            rows.of("subscription").pop(event.subscription, None)
        case _:
            pass  # says nothing of these tables
    return ""


def _compare(column: str, wanted: object, found: object) -> str:
    if wanted == NoticeState.PENDING.value and found == NoticeState.KEPT.value:
        return ""  # queued for who only reads it: nobody is called, so nothing ends it
    return journal_rules.difference(column, wanted, found)


REPLAY = journal_rules.ReplayRules(
    tables=(
        journal_rules.ReplayedTable("outbox", outbox, "key", "queued_seq", _compare),
        journal_rules.ReplayedTable("subscription", subscription, "name"),
    ),
    follow=_follow,
)
