"""Who was told what. A notice is an intent to tell one subscription of one transition of one fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import FaultId, Owner
from homeostat.kernel.journal import Upcast


@dataclass(frozen=True, slots=True)
class SubscriptionCreated:
    """A consumer asked to be told. The secret is never in here."""

    VERSION: ClassVar[int] = 1
    subscription: str
    owner: Owner
    url: str


@dataclass(frozen=True, slots=True)
class SubscriptionRemoved:
    """A consumer asked not to be told any more."""

    VERSION: ClassVar[int] = 1
    subscription: str


@dataclass(frozen=True, slots=True)
class NoticeQueued:
    """A notice is due. `key` is its idempotency key: at most one a subscription, fault and transition."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    fault: FaultId
    transition: str


@dataclass(frozen=True, slots=True)
class NoticeDelivered:
    """The consumer answered 2xx; the event's own time is when its answer began to arrive.

    `attempts` counts this server's tries. `offered_ns` is when this server was first ready to send it: the
    commit that queued it was known, or the notice was read again after a start; `sent_ns` when the attempt
    that was answered began. Both are this server's wall clock, None in journals of before.
    """

    VERSION: ClassVar[int] = 2
    key: str
    subscription: str
    attempts: int
    offered_ns: int | None = None
    sent_ns: int | None = None


@dataclass(frozen=True, slots=True)
class NoticeGivenUp:
    """The consumer was not told, and why."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class SilenceCreated:
    """From `begins_ns` to `ends_ns` faults of this scope are not told to subscriptions of `owner`.

    `scope` in words, such as `host n2`. `owner` is `infrastructure` when nobody at all is told.
    """

    VERSION: ClassVar[int] = 1
    silence: str
    owner: Owner
    scope: str
    reason: str
    begins_ns: int
    ends_ns: int


@dataclass(frozen=True, slots=True)
class SilenceEnded:
    """Somebody ended it before its time."""

    VERSION: ClassVar[int] = 1
    silence: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class NoticeSilenced:
    """A silence keeps back the news that a fault was raised. The key is the one that it would have had."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    fault: FaultId
    silence: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoticeUnsilenced:
    """The silence is over and the fault is still open: it is told now. `reason` is the silence's own."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    fault: FaultId
    reason: str


UPCASTS: dict[tuple[str, int], Upcast] = {("NoticeDelivered", 1): lambda old: old}
EVENTS = (
    SubscriptionCreated,
    SubscriptionRemoved,
    NoticeQueued,
    NoticeDelivered,
    NoticeGivenUp,
    SilenceCreated,
    SilenceEnded,
    NoticeSilenced,
    NoticeUnsilenced,
)
