"""The requests to consumers: which notices travel in one POST, what it holds, and what follows from its
reply.

No I/O, no clock. How a body is written is `formats`. Without `group_by` everything travels alone and at
once. With it, the first notice of a group waits for `group_wait_ms`, and whatever of the same group is
there then goes with it, as much as the bound of a body lets through. Only our own format has a body for
several; other formats of the same subscription travel alone, at once.

Invariants: nothing goes to a project that may not see the fault, whatever was queued; a notice that is sent
again has the same key and the same body. What was tried together is tried together again, in the same
order, until it ends or the consumer refuses it as it is; then half as many go together, down to one, for
which no other pays. Of one fault only one notice is in a group; every notice keeps its own key, so that
groups that are made differently after a restart double nothing.

A consumer's 2xx is the only delivery. 410 Gone ends it at once: the consumer said that nobody will ever be
there. 408, 425, 429, 5xx and silence are retried with a fast back-off; every other answer (a redirect, 401,
404, 413) hardly changes by itself and is retried slowly, since a person may repair it within the day. Where
several travelled together, a smaller group may be taken at once, so it is tried soon. An age ends all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from homeostat.notices import signing
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import ENVELOPE_BYTES, render, render_group, size_of
from homeostat.notices.matching import is_entitled
from homeostat.notices.model import Endpoint, FaultPicture, GroupBy, NoticeFormat, Subscription, parts_of
from homeostat.notices.send_queue import DueNotice, SendQueue
from homeostat.notices.settings import NoticesSettings
from homeostat.ports import NoWebhookReply, WebhookRefused, WebhookReply, WebhookRequest, WebhookResult

_SOON = frozenset({408, 425, 429})
_DOUBLINGS_MAX = 40


class GiveUpReason(Enum):
    """Why a notice was given up."""

    GONE = "the consumer answered 410 Gone"
    TOO_OLD = "no attempt succeeded in time"
    SUBSCRIPTION_REMOVED = "the subscription was removed"
    SUBSCRIPTION_EXPIRED = "the subscription has expired"
    ENDPOINT_REMOVED = "the endpoint was removed from its subscription"
    NOT_YOURS = "the subscription now belongs to another project"
    FAULT_FORGOTTEN = "the fault is no longer known"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The consumer has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not before `wait_s` from now."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Never again. `detail` is what the last attempt met."""

    reason: GiveUpReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value}; {self.detail}" if self.detail else self.reason.value


AttemptOutcome = Delivered | Retry | GivenUp


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One attempt that ended. `number` starts at 1, `left_s` is the time until the notice is too old.

    `together` is how many notices it was.
    """

    number: int
    left_s: float
    together: int = 1


def is_refused_as_it_is(reply: WebhookResult) -> bool:
    """Whether this very body would be refused for ever, though parts of it might not be."""
    match reply:
        case WebhookReply(status=status):
            return 400 <= status < 500 and status != 410 and status not in _SOON
        case _:
            return False


def judge(
    reply: WebhookResult, attempt: DeliveryAttempt, jitter: float, settings: NoticesSettings
) -> AttemptOutcome:
    """What follows from the reply. `jitter` is in [0, 1); the same arguments give the same verdict."""
    match reply:
        case WebhookReply(status=status) if 200 <= status < 300:
            return Delivered()
        case WebhookReply(status=410):
            return GivenUp(GiveUpReason.GONE)
        case WebhookReply(status=status, retry_after_s=retry_after_s):
            soon = status >= 500 or status in _SOON
            soon = soon or (attempt.together > 1 and is_refused_as_it_is(reply))
            detail, asked_s = f"the consumer answered {status}", retry_after_s or 0.0
        case NoWebhookReply(reason=reason):
            soon, detail, asked_s = True, reason, 0.0
        case WebhookRefused(reason=reason):
            soon, detail, asked_s = False, reason, 0.0
        case _:
            assert_never(reply)
    if attempt.left_s <= 0:
        return GivenUp(GiveUpReason.TOO_OLD, detail)
    wait_s = backoff_s(attempt.number, jitter, settings, soon=soon)
    return Retry(max(wait_s, min(asked_s, settings.retry_after_longest_s)), detail)


def backoff_s(failures: int, jitter: float, settings: NoticesSettings, *, soon: bool = True) -> float:
    """The wait after `failures` (1 or more): doubled each time, bounded, its upper half is jitter."""
    first_s = settings.first_wait_s if soon else settings.refused_first_wait_s
    longest_s = settings.longest_wait_s if soon else settings.refused_longest_wait_s
    whole_s = min(longest_s, first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    return whole_s * (0.5 + 0.5 * jitter)


COUNT_HEADER = "Homeostat-Notices"
"""How many notices are in the body; a notice that travels alone has `Idempotency-Key` instead."""

TOGETHER_MAX = 500
"""Notices in one POST: a failure sends all of them again."""

LOOK_MAX = 1_500
"""Waiting notices that are looked at for one POST: a long queue of many groups must not stop everything."""

Gathered = tuple[tuple[DueNotice, ...], tuple[bytes, ...]]


def is_grouped(subscription: Subscription, endpoint: Endpoint) -> bool:
    return subscription.group_by is not GroupBy.NONE and endpoint.format is NoticeFormat.JSON


def wait_ns(subscription: Subscription, endpoint: Endpoint) -> int:
    return subscription.group_wait_ms * 1_000_000 if is_grouped(subscription, endpoint) else 0


def group_of(by: GroupBy, fault: FaultPicture) -> str:
    """What the faults of a group have in common. One that is on no host is a group of its own with `host`."""
    match by:
        case GroupBy.NONE:
            return fault.id
        case GroupBy.KIND:
            return fault.kind.value
        case GroupBy.HOST:
            return fault.host or fault.about
        case GroupBy.OWNER:
            return fault.owner
        case _:
            assert_never(by)


class NoticeGroups:
    """What was tried together. Used by one delivery."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._together: dict[str, tuple[str, ...]] = {}
        self._most: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._together)

    def gather(
        self,
        send_queue: SendQueue,
        lead: DueNotice,
        by: GroupBy,
        body_of: Callable[[DueNotice], bytes | None],
    ) -> Gathered | None:
        """What goes out with `lead`, which was just taken, and the body of each. None: it may not be sent.

        `body_of` is None for what has nothing to say any more; that stays where it is.
        """
        first = body_of(lead)
        if first is None or lead.picture is None:
            return None
        known = self._together.get(lead.key)
        place = {key: index for index, key in enumerate(known or ())}
        most = len(place) or self._most.get(lead.notice.destination, TOGETHER_MAX)
        group, bodies, total = group_of(by, lead.picture), {lead.key: first}, len(first)

        def wanted(due: DueNotice) -> bool:
            nonlocal total
            if due.picture is None:
                return False
            if place:
                belongs = due.key in place
            else:
                belongs = due.key not in self._together and group_of(by, due.picture) == group
            body = body_of(due) if belongs else None
            if body is None or size_of(len(bodies) + 1, total + len(body)) > self._limit_bytes:
                return False
            bodies[due.key], total = body, total + len(body)
            return True

        dues = (lead, *send_queue.take_along(lead, wanted, most - 1, None if place else LOOK_MAX))
        if place:
            # The send queue knows the order of time only, and the same body is wanted.
            order = sorted(dues, key=lambda each: place[each.key])
            return (lead, *(each for each in dues if each is not lead)), tuple(
                bodies[each.key] for each in order
            )
        return dues, tuple(bodies[each.key] for each in dues)

    def tried(self, dues: Sequence[DueNotice], *, refused: bool) -> None:
        """These were sent in one POST; unless they end, they go together again, or in halves if `refused`."""
        keys, name = tuple(each.key for each in dues), dues[0].notice.destination
        if refused and len(keys) > 1:
            self._most[name] = min(self._most.get(name, TOGETHER_MAX), len(keys) // 2)
            for key in keys:
                self._together.pop(key, None)
            return
        if refused and self._together.get(keys[0]) is None:
            self._most.pop(name, None)  # it is this one that is not wanted, and not that there are many
        for key in keys:
            if self._together.get(key) is None or set(self._together[key]) != set(keys):
                self._together[key] = keys

    def release(self, subscription: str) -> None:
        """It was changed or removed: its consumer may take more now."""
        for name in [each for each in self._most if parts_of(each)[0] == subscription]:
            del self._most[name]

    def ended(self, key: str) -> None:
        """This one was delivered or given up: the others of its parcel go on without it."""
        self._together.pop(key, None)


Recipient = tuple[Subscription, Endpoint]


@dataclass(frozen=True, slots=True)
class NoticeGroup:
    """Notices that go out in one POST, and the body of each."""

    whom: Recipient
    dues: tuple[DueNotice, ...]
    bodies: tuple[bytes, ...]


def obstacle(
    due: DueNotice, subscription: Subscription | None, now_ns: int
) -> GiveUpReason | tuple[Recipient, FaultPicture]:
    """Why there is nothing to send, or to whom and what."""
    if subscription is None:
        return GiveUpReason.SUBSCRIPTION_REMOVED
    if due.picture is None:
        return GiveUpReason.FAULT_FORGOTTEN
    # A name may be taken again by another project while notices of the first one wait.
    if due.notice.owner != subscription.owner or not is_entitled(subscription, due.picture):
        return GiveUpReason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return GiveUpReason.SUBSCRIPTION_EXPIRED
    endpoint = subscription.endpoint(due.notice.endpoint)
    if endpoint is None:
        return GiveUpReason.ENDPOINT_REMOVED
    return (subscription, endpoint), due.picture


def body_of(due: DueNotice, whom: Recipient, picture: FaultPicture, settings: NoticesSettings) -> bytes:
    """What one notice says, with room for the others where notices travel together."""
    subscription, endpoint = whom
    frame = RenderContext(
        due.notice.destination,
        subscription.name,
        subscription.owner,
        settings.body_bytes_max - (ENVELOPE_BYTES if is_grouped(*whom) else 0),
        settings.public_url,
        due.notice.part,
    )
    return render(endpoint.format, frame, picture, due.notice.transition)


def post_alone(due: DueNotice, whom: Recipient, body: bytes, at_s: int) -> WebhookRequest:
    """One notice, signed at `at_s` (wall clock), with its key as a header."""
    subscription, endpoint = whom
    headers = signing.headers(subscription.secret, subscription.key_id, at_s, due.key, body)
    return WebhookRequest(endpoint.url, headers, body)


def post_together(parcel: NoticeGroup, at_s: int) -> WebhookRequest:
    """Several notices, signed at `at_s` (wall clock); how many there are is a header."""
    subscription, endpoint = parcel.whom
    body = render_group(parcel.bodies)
    # Each notice has its own key, in the body.
    headers = signing.headers(subscription.secret, subscription.key_id, at_s, "", body)
    headers[COUNT_HEADER] = str(len(parcel.dues))
    return WebhookRequest(endpoint.url, headers, body)
