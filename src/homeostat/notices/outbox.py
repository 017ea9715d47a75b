"""The events and rows of a notice: queued, silenced, queued again, delivered, given up. Pure.

A notice is queued in the submission of the event that causes it, so a fault without its notices cannot be
in the database. Invariants: one row and one NoticeQueued a key, for ever; an end is written once, caused by
it; a notice that a silence keeps back has a row `silenced` and an event with the reason; the notice that is
sent when the silence is over has the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from homeostat.contracts.events.notices import (
    NoticeDelivered,
    NoticeGivenUp,
    NoticeQueued,
    NoticeSilenced,
    NoticeUnsilenced,
)
from homeostat.contracts.nouns import FaultId
from homeostat.kernel.journal import EventIndex, NewEvent, Receipt, RowChange, Seq, Submission
from homeostat.notices import model, store
from homeostat.notices.matching import NOTIFIED_REASONS, decide_raised, recipients

LOOP = "notices"
"""The name under which outcomes are in the journal."""
ORIGIN = "server/notices"


@dataclass(frozen=True, slots=True)
class NoticeCause:
    """The event that notices are about. `first_index` is where their drafts will stand in its submission.

    `part`: the so many-th notice of one transition; 0 for one that is told once.
    """

    seq: Seq | EventIndex
    first_index: int
    at_ns: int
    trace: str
    origin: str = ORIGIN
    part: int = 0


class QueuedNotices(NamedTuple):
    """What goes into the submission: drafts at `first_index`, changes anywhere. Notices are for `settled`."""

    drafts: tuple[NewEvent, ...]
    changes: tuple[RowChange, ...]
    notices: tuple[model.Notice, ...]


NOTHING_QUEUED = QueuedNotices((), (), ())


def queue(
    fault: model.FaultPicture,
    transition: model.NoticeTransition,
    subscriptions: Iterable[model.Subscription],
    cause: NoticeCause,
    heard: Collection[str] | None = None,
) -> QueuedNotices:
    """One notice for each endpoint that is due.

    `heard`: see `matching`; give it when cleared, and only endpoints that heard it raised get one. Of one
    that is raised in the place of others: those that heard of them, whatever they ask for.
    """
    whom = [
        (subscription, endpoint)
        for subscription, _ in recipients(subscriptions, fault, cause.at_ns, heard)
        for endpoint in subscription.endpoints
        if heard is None or model.destination(subscription.name, endpoint.number) in heard
    ]
    return _queued(fault, transition, whom, cause)


def queue_current(
    faults: Iterable[model.FaultPicture],
    subscription: model.Subscription,
    cause: NoticeCause,
    heard: Callable[[FaultId], Collection[str]],
) -> QueuedNotices:
    """What a subscription that was just written has to receive of open faults: what its endpoints missed.

    `heard`: the destinations that were notified of a fault already; they are left out.
    """
    queued = QueuedNotices((), (), ())
    for fault in faults:
        if decide_raised(subscription, fault, cause.at_ns) not in NOTIFIED_REASONS:
            continue
        whom = [
            (subscription, each)
            for each in subscription.endpoints
            if model.destination(subscription.name, each.number) not in heard(fault.id)
        ]
        place = replace(cause, first_index=cause.first_index + len(queued.drafts))
        more = _queued(fault, model.NoticeTransition.RAISED, whom, place)
        queued = QueuedNotices(
            queued.drafts + more.drafts, queued.changes + more.changes, queued.notices + more.notices
        )
    return queued


def _queued(
    fault: model.FaultPicture,
    transition: model.NoticeTransition,
    whom: Sequence[tuple[model.Subscription, model.Endpoint]],
    cause: NoticeCause,
) -> QueuedNotices:
    if not whom:
        return NOTHING_QUEUED
    notices = tuple(
        model.Notice(
            key=model.notice_key(
                model.destination(subscription.name, endpoint.number), fault.id, transition, cause.part
            ),
            subscription=subscription.name,
            owner=subscription.owner,
            fault=fault.id,
            transition=transition,
            queued_seq=EventIndex(cause.first_index + index),
            queued_ns=cause.at_ns,
            trace=cause.trace,
            state=model.NoticeState.PENDING if endpoint.url else model.NoticeState.KEPT,
            next_ns=cause.at_ns,
            reason="" if endpoint.url else model.KEPT_REASON,
            endpoint=endpoint.number,
            part=cause.part,
        )
        for index, (subscription, endpoint) in enumerate(whom)
    )
    place = (cause.at_ns, cause.origin, cause.trace, cause.seq)
    drafts = tuple(
        NewEvent(
            NoticeQueued(each.key, each.subscription, each.fault, transition.value),
            model.notice_subject(each.key),
            *place,
        )
        for each in notices
    )
    return QueuedNotices(drafts, (store.insert_notices(notices),), notices)


def with_receipt(notices: Sequence[model.Notice], receipt: Receipt) -> tuple[model.Notice, ...]:
    """The notices with the seq that the commit gave them: what `Delivery.offer` wants."""
    return tuple(
        each.settled(receipt.seqs[each.queued_seq.index]) if isinstance(each.queued_seq, EventIndex) else each
        for each in notices
    )


def delivered_submission(notice: model.Notice, event: NoticeDelivered, answered_ns: int) -> Submission:
    """The consumer has it; its answer began to arrive at `answered_ns`, on this server's wall clock."""
    row = store.end_notice(notice.key, model.NoticeState.DELIVERED, event.attempts, notice.reason)
    return _end(notice, event, answered_ns, row)


def given_up_submission(notice: model.Notice, attempts: int, at_ns: int, reason: str) -> Submission:
    event = NoticeGivenUp(notice.key, notice.subscription, attempts, reason)
    row = store.end_notice(notice.key, model.NoticeState.GIVEN_UP, attempts, reason)
    return _end(notice, event, at_ns, row)


def _end(notice: model.Notice, event: object, at_ns: int, row: RowChange) -> Submission:
    subject, key = (
        model.notice_subject(notice.key),
        f"{notice.key}/{notice.queued_seq}/{type(event).__name__}",
    )
    draft = NewEvent(event, subject, at_ns, ORIGIN, notice.trace, notice.queued_seq, key)
    return Submission(loop=LOOP, events=(draft,), changes=(row,))


def silence_text(silence: model.Silence) -> str:
    """The reason that is written beside the notice that is not sent."""
    return f"{silence.id}: {silence.reason}"


def apply_silences(queued: QueuedNotices, keeping: Mapping[str, model.Silence]) -> QueuedNotices:
    """The same, but what a silence keeps back, by key, is written down as that instead of queued."""
    if not keeping:
        return queued
    notices = tuple(
        replace(each, state=model.NoticeState.SILENCED, reason=silence_text(keeping[each.key]))
        if each.key in keeping
        else each
        for each in queued.notices
    )
    drafts = tuple(
        replace(draft, event=_silenced_event(each, keeping[each.key])) if each.key in keeping else draft
        for draft, each in zip(queued.drafts, queued.notices, strict=True)
    )
    return QueuedNotices(drafts, (store.insert_notices(notices),), notices)


def _silenced_event(notice: model.Notice, silence: model.Silence) -> NoticeSilenced:
    return NoticeSilenced(notice.key, notice.subscription, notice.fault, silence.id, silence.reason)


SubscriptionLookup = Callable[[str], model.Subscription | None]


def queue_unsilenced(
    held: Collection[model.Notice], find: SubscriptionLookup, first_index: int, now_ns: int
) -> QueuedNotices:
    """What is written when nothing keeps these notices back any more: they are queued, with the same keys.

    `find` finds their subscriptions; the drafts will stand from `first_index` on.
    """
    drafts, notices = [], []
    for index, each in enumerate(held):
        said = EventIndex(first_index + 2 * index)
        subject = model.notice_subject(each.key)
        event = NoticeUnsilenced(each.key, each.subscription, each.fault, each.reason)
        drafts.append(NewEvent(event, subject, now_ns, ORIGIN, each.trace, each.queued_seq))
        queued = NoticeQueued(each.key, each.subscription, each.fault, each.transition.value)
        drafts.append(NewEvent(queued, subject, now_ns, ORIGIN, each.trace, said))
        subscription = find(each.subscription)
        endpoint = None if subscription is None else subscription.endpoint(each.endpoint)
        is_called = endpoint is not None and bool(endpoint.url)
        notices.append(
            replace(
                each,
                state=model.NoticeState.PENDING if is_called else model.NoticeState.KEPT,
                queued_seq=EventIndex(said.index + 1),
                queued_ns=now_ns,
                next_ns=now_ns,
                # The silence stays named: it is counted by it, also when it is over.
                reason=each.reason if is_called else f"{each.reason} (over; {model.KEPT_REASON})",
            )
        )
    rows = tuple(notices)
    return QueuedNotices(tuple(drafts), (store.queue_again(rows),) if rows else (), rows)
