"""Who was told what. A notice is an intent to tell one subscription of one transition of one fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import FaultId, Owner


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
    """The consumer answered 2xx. `attempts` counts this server's tries."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    attempts: int


@dataclass(frozen=True, slots=True)
class NoticeGivenUp:
    """The consumer was not told, and why."""

    VERSION: ClassVar[int] = 1
    key: str
    subscription: str
    attempts: int
    reason: str


EVENTS = (SubscriptionCreated, SubscriptionRemoved, NoticeQueued, NoticeDelivered, NoticeGivenUp)
