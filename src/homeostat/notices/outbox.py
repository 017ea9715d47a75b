"""What is written when a notice is queued, and when it ends. Pure: makes drafts, changes and submissions.

A notice is queued in the submission of the event that causes it, so a fault without its notices cannot be in
the database. Invariant: one row and one NoticeQueued a key, for ever; an end is written once, caused by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from homeostat.contracts.events.notices import NoticeDelivered, NoticeGivenUp, NoticeQueued
from homeostat.contracts.nouns import FaultId
from homeostat.kernel.journal import Change, Draft, Local, Receipt, Seq, Submission
from homeostat.notices import store
from homeostat.notices.matching import TOLD, decide, told
from homeostat.notices.model import (
    KEPT_REASON,
    Endpoint,
    FaultPicture,
    Notice,
    NoticeState,
    Subscription,
    Transition,
    destination,
    notice_key,
    notice_subject,
)

LOOP = "notices"
"""The name under which outcomes are in the journal."""
ORIGIN = "server/notices"


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that notices tell of. `first_index` is where their drafts will stand in its submission."""

    seq: Seq | Local
    first_index: int
    at_ns: int
    trace: str
    origin: str = ORIGIN


class Queued(NamedTuple):
    """What goes into the submission: drafts at `first_index`, changes anywhere. Notices are for `settled`."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]
    notices: tuple[Notice, ...]


def queue(
    fault: FaultPicture,
    transition: Transition,
    subscriptions: Iterable[Subscription],
    cause: Cause,
    heard: Collection[str] | None = None,
) -> Queued:
    """One notice for each endpoint that is told.

    `heard`: see `matching.told`; give it when cleared, and only endpoints that heard are told.
    """
    whom = [
        (subscription, endpoint)
        for subscription, _ in told(subscriptions, fault, cause.at_ns, heard)
        for endpoint in subscription.endpoints
        if heard is None or destination(subscription.name, endpoint.number) in heard
    ]
    return _queued(fault, transition, whom, cause)


def queue_current(
    faults: Iterable[FaultPicture],
    subscription: Subscription,
    cause: Cause,
    heard: Callable[[FaultId], Collection[str]],
) -> Queued:
    """What a subscription that was just written has to be told of open faults: what its endpoints missed.

    `heard`: the destinations that were told of a fault already; they are not told again.
    """
    queued = Queued((), (), ())
    for fault in faults:
        if decide(subscription, fault, cause.at_ns) not in TOLD:
            continue
        whom = [
            (subscription, each)
            for each in subscription.endpoints
            if destination(subscription.name, each.number) not in heard(fault.id)
        ]
        place = replace(cause, first_index=cause.first_index + len(queued.drafts))
        more = _queued(fault, Transition.RAISED, whom, place)
        queued = Queued(
            queued.drafts + more.drafts, queued.changes + more.changes, queued.notices + more.notices
        )
    return queued


def _queued(
    fault: FaultPicture,
    transition: Transition,
    whom: Sequence[tuple[Subscription, Endpoint]],
    cause: Cause,
) -> Queued:
    notices = tuple(
        Notice(
            key=notice_key(destination(subscription.name, endpoint.number), fault.id, transition),
            subscription=subscription.name,
            owner=subscription.owner,
            fault=fault.id,
            transition=transition,
            queued_seq=Local(cause.first_index + index),
            queued_ns=cause.at_ns,
            trace=cause.trace,
            state=NoticeState.PENDING if endpoint.url else NoticeState.KEPT,
            next_ns=cause.at_ns,
            reason="" if endpoint.url else KEPT_REASON,
            endpoint=endpoint.number,
        )
        for index, (subscription, endpoint) in enumerate(whom)
    )
    drafts = tuple(
        Draft(
            event=NoticeQueued(each.key, each.subscription, each.fault, each.transition.value),
            subject=notice_subject(each.key),
            at_ns=cause.at_ns,
            origin=cause.origin,
            trace=cause.trace,
            cause=cause.seq,
        )
        for each in notices
    )
    return Queued(drafts, (store.insert_notices(notices),) if notices else (), notices)


def settled(notices: Sequence[Notice], receipt: Receipt) -> tuple[Notice, ...]:
    """The notices with the seq that the commit gave them: what `Delivery.offer` wants."""
    return tuple(
        replace(each, queued_seq=receipt.seqs[each.queued_seq.index])
        if isinstance(each.queued_seq, Local)
        else each
        for each in notices
    )


@dataclass(frozen=True, slots=True)
class Times:
    """Of a notice that was accepted, on this server's wall clock: see `NoticeDelivered`.

    `consumer` is when the consumer received and handled it, on its own clock, as far as it said so.
    """

    offered_ns: int
    admitted_ns: int
    chosen_ns: int
    sent_ns: int
    answered_ns: int
    consumer: tuple[int | None, int | None] = (None, None)


def delivered(notice: Notice, attempts: int, times: Times) -> Submission:
    """The consumer has it."""
    received_ns, handled_ns = times.consumer
    event = NoticeDelivered(
        notice.key,
        notice.subscription,
        attempts,
        offered_ns=times.offered_ns,
        sent_ns=times.sent_ns,
        admitted_ns=times.admitted_ns,
        chosen_ns=times.chosen_ns,
        consumer_received_ns=received_ns,
        consumer_handled_ns=handled_ns,
    )
    row = store.end_notice(notice.key, NoticeState.DELIVERED, attempts, notice.reason)
    return _end(notice, event, times.answered_ns, row)


def given_up(notice: Notice, attempts: int, at_ns: int, reason: str) -> Submission:
    """The consumer was not told and will not be."""
    event = NoticeGivenUp(notice.key, notice.subscription, attempts, reason)
    row = store.end_notice(notice.key, NoticeState.GIVEN_UP, attempts, reason)
    return _end(notice, event, at_ns, row)


def _end(notice: Notice, event: object, at_ns: int, row: Change) -> Submission:
    draft = Draft(
        event=event,
        subject=notice_subject(notice.key),
        at_ns=at_ns,
        origin=ORIGIN,
        trace=notice.trace,
        cause=notice.queued_seq,
    )
    return Submission(loop=LOOP, events=(draft,), changes=(row,))
