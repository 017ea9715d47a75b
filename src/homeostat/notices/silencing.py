"""When nobody is told: silences, what they cover, and how that is written down. Pure.

A silence mutes news of trouble, never its end: who heard that a fault was raised hears that it cleared. It
covers a fault by where it was *when it was raised*, so that it follows guests wherever they run. Invariants:
a notice that is not sent has a row `silenced` and an event with the reason; the notice that is sent when the
silence is over has the same key; a silence of a project touches only that project's subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import Enum

from homeostat.contracts.events.notices import NoticeQueued, NoticeSilenced, NoticeUnsilenced
from homeostat.contracts.nouns import INFRASTRUCTURE, Owner, ResourceId, resource_subject
from homeostat.kernel.journal import Draft, Local
from homeostat.notices import silence_store, store
from homeostat.notices.model import (
    KEPT_REASON,
    FaultPicture,
    Notice,
    NoticeState,
    Silence,
    Subscription,
    notice_subject,
)
from homeostat.notices.outbox import ORIGIN, Queued


class Why(Enum):
    """Why a silence keeps a notice back, or does not."""

    COVERED = "the silence covers this fault"
    NOT_YET = "the silence has not begun"
    OVER = "the silence is over"
    OTHER_PROJECT = "it is another project's silence"
    OTHER_KIND = "the silence is about another kind of fault"
    OTHER_HOST = "the fault was not on the silence's host when it was raised"
    OTHER_ZONE = "the fault was not in the silence's zone when it was raised"
    OTHER_RESOURCE = "the fault is about something else than the silence's resource"
    OTHER_OWNER = "what the subscription would hear of is not the silence's owner's"


def decide(
    silence: Silence,
    subscription: Subscription,
    fault: FaultPicture,
    now_ns: int,
    zones: Mapping[str, str],
) -> Why:
    """Whether this silence keeps this fault from this subscription now. `zones` is the zone of each host.

    All that the silence names must fit. `now_ns` is the server's wall clock, as the silence's ends are.
    """
    if now_ns < silence.begins_ns:
        return Why.NOT_YET
    if now_ns >= silence.ends_ns:
        return Why.OVER
    if silence.project not in (INFRASTRUCTURE, subscription.owner):
        return Why.OTHER_PROJECT
    return _scope(silence, subscription, fault, zones)


def _scope(
    silence: Silence, subscription: Subscription, fault: FaultPicture, zones: Mapping[str, str]
) -> Why:
    # A project hears only of what is its own, so a notice to it of a dead host is about its own guests.
    wanted_owner = silence.owner == fault.owner or silence.owner == subscription.owner != INFRASTRUCTURE
    for named, fits, why in (
        (silence.host, silence.host == fault.host, Why.OTHER_HOST),
        (silence.zone, bool(fault.host) and zones.get(fault.host) == silence.zone, Why.OTHER_ZONE),
        (silence.resource, fault.about == resource_subject(ResourceId(silence.resource)), Why.OTHER_RESOURCE),
        (silence.kind, silence.kind == fault.kind, Why.OTHER_KIND),
        (silence.owner, wanted_owner, Why.OTHER_OWNER),
    ):
        if named and not fits:
            return why
    return Why.COVERED


def covering(
    silences: Iterable[Silence],
    subscription: Subscription,
    fault: FaultPicture,
    now_ns: int,
    zones: Mapping[str, str],
) -> Silence | None:
    """The silence that covers it, of several the one that lasts longest; None when none does."""
    found = [each for each in silences if decide(each, subscription, fault, now_ns, zones) is Why.COVERED]
    return max(found, key=lambda each: (each.ends_ns, each.id), default=None)


def stated(silence: Silence) -> str:
    """The reason that is written beside the notice that is not sent."""
    return f"{silence.id}: {silence.reason}"


def hushed(queued: Queued, keeping: Mapping[str, Silence]) -> Queued:
    """The same, but what a silence keeps back, by key, is written down as that instead of queued."""
    if not keeping:
        return queued
    notices = tuple(
        replace(each, state=NoticeState.SILENCED, reason=stated(keeping[each.key]))
        if each.key in keeping
        else each
        for each in queued.notices
    )
    drafts = tuple(
        replace(draft, event=_silenced(each, keeping[each.key])) if each.key in keeping else draft
        for draft, each in zip(queued.drafts, queued.notices, strict=True)
    )
    return Queued(drafts, (store.insert_notices(notices),), notices)


def _silenced(notice: Notice, silence: Silence) -> NoticeSilenced:
    return NoticeSilenced(notice.key, notice.subscription, notice.fault, silence.id, silence.reason)


Find = Callable[[str], Subscription | None]


def unsilenced(held: Collection[Notice], find: Find, first_index: int, now_ns: int) -> Queued:
    """What is written when nothing keeps these notices back any more: they are queued, with the same keys.

    `find` finds their subscriptions; the drafts will stand from `first_index` on.
    """
    drafts, notices = [], []
    for index, each in enumerate(held):
        said = Local(first_index + 2 * index)
        subject = notice_subject(each.key)
        event = NoticeUnsilenced(each.key, each.subscription, each.fault, each.reason)
        drafts.append(Draft(event, subject, now_ns, ORIGIN, each.trace, each.queued_seq))
        queued = NoticeQueued(each.key, each.subscription, each.fault, each.transition.value)
        drafts.append(Draft(queued, subject, now_ns, ORIGIN, each.trace, said))
        subscription = find(each.subscription)
        endpoint = None if subscription is None else subscription.endpoint(each.endpoint)
        is_called = endpoint is not None and bool(endpoint.url)
        notices.append(
            replace(
                each,
                state=NoticeState.PENDING if is_called else NoticeState.KEPT,
                queued_seq=Local(said.index + 1),
                queued_ns=now_ns,
                next_ns=now_ns,
                # The silence stays named: it is counted by it, also when it is over.
                reason=each.reason if is_called else f"{each.reason} (over; {KEPT_REASON})",
            )
        )
    rows = tuple(notices)
    return Queued(tuple(drafts), (silence_store.queue_again(rows),) if rows else (), rows)


def refusal(silence: Silence, owner_of: Mapping[str, Owner]) -> str:
    """Why a project may not make this silence, in words; empty when it may. `owner_of`: resources by id.

    A project silences what is its own, for its own subscriptions; hosts and zones are nobody's but the
    administrators'.
    """
    if silence.project == INFRASTRUCTURE:
        return "only administrators silence for everybody"
    if silence.host or silence.zone:
        return "only administrators silence a host or a zone; name a resource, a kind or your project"
    if silence.owner and silence.owner != silence.project:
        return f"you may silence what is of the project {silence.project} only"
    if silence.resource and owner_of.get(silence.resource) != silence.project:
        return f"there is no resource {silence.resource!r}, or it is not yours"
    return ""
