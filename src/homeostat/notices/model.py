"""The nouns of notices: who wants to be told, what is due, and what a notice says about a fault.

Frozen records, no I/O. A notice holds references only; its body is rendered from a picture of the fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import orjson

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId, FaultKind, Owner, ResourceId, Severity
from homeostat.kernel.journal import Local, Seq


class Transition(StrEnum):
    """What happened to a fault. Each is told once to each subscription."""

    RAISED = "raised"
    CLEARED = "cleared"


class NoticeState(StrEnum):
    """Where a notice stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    SILENCED = "silenced"
    """A silence keeps it back."""

    KEPT = "kept"
    """Nobody is called: whoever wants it reads it from the stream of notices."""


class Format(StrEnum):
    """What the body of a notice looks like."""

    JSON = "json"
    DOCTOR = "doctor"
    ALERTMANAGER = "alertmanager"


class GroupBy(StrEnum):
    """Which notices may travel together to one endpoint."""

    NONE = "none"
    KIND = "kind"
    HOST = "host"
    OWNER = "owner"


KEPT_REASON = "the subscription has no URL; it reads the stream of notices"
ENDPOINTS_MAX = 8
GROUP_WAIT_MS_MAX = 60_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a subscription is told. An empty `url`: nowhere, its notices are read from the stream.

    `number` tells it from the subscription's other ones, of now and of before: no address ever gets a number
    under which another consumer was told.
    """

    number: int
    url: str
    format: Format = Format.JSON


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants to be told of what. `owner` decides what it may hear; an empty filter lets all through.

    `endpoints` has one at least. `expires_ns` is this server's wall clock; from then on it hears nothing.
    With `group_by`, notices of a group that are due within `group_wait_ms` travel together.
    """

    name: str
    owner: Owner
    endpoints: tuple[Endpoint, ...]
    secret: str = field(repr=False)
    key_id: str
    created_ns: int
    kinds: tuple[FaultKind, ...] = ()
    resources: tuple[ResourceId, ...] = ()
    minimum_severity: Severity | None = None
    expires_ns: int | None = None
    group_by: GroupBy = GroupBy.NONE
    group_wait_ms: int = 0

    def is_expired(self, now_ns: int) -> bool:
        """Whether its time is over at `now_ns`."""
        return self.expires_ns is not None and now_ns >= self.expires_ns

    def endpoint(self, number: int) -> Endpoint | None:
        """The one of this number; None when there is none (any more)."""
        return next((each for each in self.endpoints if each.number == number), None)

    def destinations(self) -> tuple[str, ...]:
        """What its endpoints are called in keys."""
        return tuple(destination(self.name, each.number) for each in self.endpoints)


class Affected(NamedTuple):
    """One thing that suffers from a fault. `subject` is a journal subject; only its owner is told of it.

    A tuple: ten thousand of them are made while consumers wait, in a third of a dataclass's time.
    """

    subject: str
    owner: Owner
    detail: str = ""


class Suffering(tuple[Affected, ...]):
    """Everything that suffers, with what many notices make of it: sorted out and written once."""

    @cached_property
    def by_owner(self) -> Mapping[Owner, Suffering]:
        """What each project may read."""
        found: dict[Owner, list[Affected]] = {}
        for each in self:
            found.setdefault(each.owner, []).append(each)
        if len(found) == 1:
            return dict.fromkeys(found, self)
        return {owner: Suffering(all_of_them) for owner, all_of_them in found.items()}

    @cached_property
    def as_json(self) -> bytes:
        """A list of objects with `subject`, `owner` and `detail`."""
        return orjson.dumps([{"subject": it.subject, "owner": it.owner, "detail": it.detail} for it in self])


@dataclass(frozen=True, slots=True)
class FaultPicture:
    """All that a notice says about a fault. What was true when it was raised must not change afterwards.

    The body of the notice `raised` is rendered again after a restart, perhaps when the fault has cleared, and
    must be the same to the last byte; so what belongs to the end has fields of its own. `*_ns` is the
    source's wall clock, `outage_ms` from its monotonic clock, None when no single clock saw both ends. `host`
    is where it was when it was raised, empty for what is on no host; it is not told. `drill` is the run that
    broke it on purpose, empty for none: known from the numbers of the journal, the same for ever.
    """

    id: FaultId
    kind: FaultKind
    severity: Severity
    about: str
    owner: Owner
    reason: str
    raised_ns: int
    affected: tuple[Affected, ...] = ()
    cleared_ns: int | None = None
    cleared_reason: str = ""
    outage_ms: float | None = None
    host: str = ""
    drill: str = ""
    by_owner: Mapping[Owner, tuple[Affected, ...]] = field(init=False, compare=False, repr=False)
    """`affected` again, sorted out once: ten thousand guests of a thousand projects are asked for often."""

    def __post_init__(self) -> None:
        known = self.affected if isinstance(self.affected, Suffering) else Suffering(self.affected)
        object.__setattr__(self, "by_owner", known.by_owner)

    def affected_of(self, project: Owner) -> tuple[Affected, ...]:
        """What a subscription of this project is told of, in the order of `affected`."""
        return self.affected if project == INFRASTRUCTURE else self.by_owner.get(project, ())


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of the outbox: tell one endpoint of one subscription of one transition of one fault.

    `queued_seq` is the seq of its NoticeQueued, a `Local` until the submission that queues it is committed.
    `queued_ns` and `next_ns` are this server's wall clock. `owner` is the subscription's when it was queued.
    """

    key: str
    subscription: str
    owner: Owner
    fault: FaultId
    transition: Transition
    queued_seq: Seq | Local
    queued_ns: int
    trace: str
    state: NoticeState = NoticeState.PENDING
    attempts: int = 0
    next_ns: int = 0
    reason: str = ""
    endpoint: int = 1

    @property
    def destination(self) -> str:
        """Whom it is for: a subscription, or one of its further endpoints."""
        return destination(self.subscription, self.endpoint)


@dataclass(frozen=True, slots=True)
class Silence:
    """For a time, faults of a scope are told to nobody, or to nobody of one project.

    `project` is whose subscriptions are spared: all of them for `infrastructure`. What is empty of `host`,
    `zone`, `resource`, `kind` and `owner` is not asked; at least one is not. `*_ns` is this server's wall
    clock; one that was ended early ended at `ends_ns`, by `ended_by`.
    """

    id: str
    project: Owner
    reason: str
    by: str
    created_ns: int
    begins_ns: int
    ends_ns: int
    host: str = ""
    zone: str = ""
    resource: str = ""
    kind: str = ""
    owner: str = ""
    ended_by: str = ""


def destination(subscription: str, number: int) -> str:
    """What one endpoint of a subscription is called: `pager`, `pager/2`, `pager/3`."""
    return subscription if number == 1 else f"{subscription}/{number}"


def parts_of(destination: str) -> tuple[str, int]:
    """The subscription and the number of the endpoint."""
    name, _, number = destination.partition("/")
    return name, int(number or "1")


def notice_key(destination: str, fault: FaultId, transition: Transition) -> str:
    """The idempotency key: the same for every attempt, for ever."""
    return f"{destination}:{fault}:{transition.value}"


def notice_subject(key: str) -> str:
    """The journal's subject of a notice."""
    return f"notice/{key}"
