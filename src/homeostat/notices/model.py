"""The nouns of notices: who wants to be told, what is due, and what a notice says about a fault.

Frozen records, no I/O. A notice holds references only; its body is rendered from a picture of the fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

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


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants to be told of what. `owner` decides what it may hear; an empty filter lets all through."""

    name: str
    owner: Owner
    url: str
    secret: str = field(repr=False)
    key_id: str
    created_ns: int
    kinds: tuple[FaultKind, ...] = ()
    resources: tuple[ResourceId, ...] = ()
    minimum_severity: Severity | None = None


class Affected(NamedTuple):
    """One thing that suffers from a fault. `subject` is a journal subject; only its owner is told of it.

    A tuple: ten thousand of them are made while consumers wait, in a third of a dataclass's time.
    """

    subject: str
    owner: Owner
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FaultPicture:
    """All that a notice says about a fault. What was true when it was raised must not change afterwards.

    The body of the notice `raised` is rendered again after a restart, perhaps when the fault has cleared, and
    must be the same to the last byte; so what belongs to the end has fields of its own. `*_ns` is the
    source's wall clock, `outage_ms` from its monotonic clock, None when no single clock saw both ends.
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
    by_owner: Mapping[Owner, tuple[Affected, ...]] = field(init=False, compare=False, repr=False)
    """`affected` again, sorted out once: ten thousand guests of a thousand projects are asked for often."""

    def __post_init__(self) -> None:
        found: dict[Owner, list[Affected]] = {}
        for each in self.affected:
            found.setdefault(each.owner, []).append(each)
        sorted_out = {owner: tuple(all_of_them) for owner, all_of_them in found.items()}
        object.__setattr__(self, "by_owner", sorted_out)

    def affected_of(self, project: Owner) -> tuple[Affected, ...]:
        """What a subscription of this project is told of, in the order of `affected`."""
        return self.affected if project == INFRASTRUCTURE else self.by_owner.get(project, ())


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of the outbox: tell one subscription of one transition of one fault.

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


def notice_key(subscription: str, fault: FaultId, transition: Transition) -> str:
    """The idempotency key: the same for every attempt, for ever."""
    return f"{subscription}:{fault}:{transition.value}"


def notice_subject(key: str) -> str:
    """The journal's subject of a notice."""
    return f"notice/{key}"
