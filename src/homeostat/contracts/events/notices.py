"""Events of subscriptions, notices and silences.

A notice is the intent to notify one subscription of one transition of one fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.events import events_in
from homeostat.contracts.nouns import FaultId, Owner
from homeostat.kernel.journal import Upcast


@dataclass(frozen=True, slots=True)
class SubscriptionCreated:
    """A consumer asked to be told. The secret is never in here."""

    subscription: str
    owner: Owner
    url: str


@dataclass(frozen=True, slots=True)
class SubscriptionRemoved:
    """A consumer asked not to be told any more."""

    subscription: str


@dataclass(frozen=True, slots=True)
class NoticeQueued:
    """A notice is due. `key` is its idempotency key: at most one a subscription, fault and transition."""

    key: str
    subscription: str
    fault: FaultId
    transition: str


@dataclass(frozen=True, slots=True)
class NoticeDelivered:
    """The consumer answered 2xx; the event's own time is when its answer began to arrive.

    `attempts` counts this server's tries. `offered_ns` is when this server was first ready to tell: the
    commit that queued it was known, or the notice was read again after a start; `admitted_ns` when it stood
    among those to be sent; of the attempt that was answered `chosen_ns` when it was its turn and its consumer
    was looked at again, `sent_ns` when it began. All are this server's wall clock. `consumer_received_ns` and
    `consumer_handled_ns` are the consumer's own word on its own clock. None: nobody said.
    """

    VERSION: ClassVar[int] = 3
    key: str
    subscription: str
    attempts: int
    offered_ns: int | None = None
    sent_ns: int | None = None
    admitted_ns: int | None = None
    chosen_ns: int | None = None
    consumer_received_ns: int | None = None
    consumer_handled_ns: int | None = None


@dataclass(frozen=True, slots=True)
class NoticeGivenUp:
    """The consumer was not told, and why."""

    key: str
    subscription: str
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class SilenceCreated:
    """From `begins_ns` to `ends_ns` faults of this scope are not told to subscriptions of `owner`.

    `scope` in words, such as `host n2`. `owner` is `infrastructure` when nobody at all is told.
    """

    silence: str
    owner: Owner
    scope: str
    reason: str
    begins_ns: int
    ends_ns: int


@dataclass(frozen=True, slots=True)
class SilenceEnded:
    """Somebody ended it before its time."""

    silence: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class NoticeSilenced:
    """A silence keeps back the news that a fault was raised. The key is the one that it would have had."""

    key: str
    subscription: str
    fault: FaultId
    silence: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoticeUnsilenced:
    """The silence is over and the fault is still open: it is told now. `reason` is the silence's own."""

    key: str
    subscription: str
    fault: FaultId
    reason: str


UPCASTS: dict[tuple[str, int], Upcast] = {
    ("NoticeDelivered", 1): lambda old: old,
    ("NoticeDelivered", 2): lambda old: old,
}
EARLIER_KINDS: dict[str, str] = {}
EVENTS = events_in(globals())
