"""The nouns of notices: subscription, endpoint, notice, silence, and the picture of a fault.

Frozen records, no I/O. A notice holds references only; its body is rendered from a picture of the fault.

The pending notices of the outbox: brought into memory in order, their attempts written down.

At the start every destination with pending notices is *behind*; later one of which more wait than memory
may hold. While it is behind its notices come from here only, so that the order of the outbox is kept.
Nothing is sent here. Invariant: a notice whose end was committed is not brought back by a read that began
before.

Attempts and next times are written now and then. This spares a new server attempts that were made already;
it is no guarantee, and a notice may be further than its row says. Invariants: nothing is written that has
not changed, and never more than one submission at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import orjson

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId, FaultKind, Owner, ResourceId, Severity
from homeostat.kernel.journal import EventIndex, Seq


class NoticeTransition(StrEnum):
    """What happened to a fault. Each is sent once to each subscription."""

    RAISED = "raised"
    CLEARED = "cleared"
    SUPERSEDED = "superseded"
    """It is over and its subject is still wrong: another fault says so, and was told before."""

    RECOVERED = "recovered"
    """Guests of a dead host run elsewhere; the fault of the host goes on. Only to who owns them, in parts."""


class NoticeState(StrEnum):
    """Where a notice stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    SILENCED = "silenced"
    """A silence keeps it back."""

    KEPT = "kept"
    """Nobody is called: whoever wants it reads it from the stream of notices."""


class NoticeFormat(StrEnum):
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
    """A target for the notices of a subscription. An empty `url`: they are read from the stream.

    `number` distinguishes it from the subscription's other ones, of now and of before: no address ever gets
    a number under which another consumer was notified.
    """

    number: int
    url: str
    format: NoticeFormat = NoticeFormat.JSON


@dataclass(frozen=True, slots=True)
class Subscription:
    """A wish for notices. `owner` decides what it may hear; an empty filter lets all through.

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
    """One thing that suffers from a fault. `subject` is a journal subject; only its owner may read of it.

    A tuple: ten thousand of them are made while consumers wait, in a third of a dataclass's time.
    """

    subject: str
    owner: Owner
    detail: str = ""


class AffectedIndex(tuple[Affected, ...]):
    """Everything that suffers, with what many notices make of it: sorted out and written once."""

    @cached_property
    def by_owner(self) -> Mapping[Owner, AffectedIndex]:
        """What each project may read."""
        found: dict[Owner, list[Affected]] = {}
        for each in self:
            found.setdefault(each.owner, []).append(each)
        if len(found) == 1:
            return dict.fromkeys(found, self)
        return {owner: AffectedIndex(all_of_them) for owner, all_of_them in found.items()}

    @cached_property
    def subjects(self) -> frozenset[str]:
        """What suffers, without whose it is."""
        return frozenset(each.subject for each in self)

    @cached_property
    def as_json(self) -> bytes:
        """A list of objects with `subject`, `owner` and `detail`."""
        return orjson.dumps([{"subject": it.subject, "owner": it.owner, "detail": it.detail} for it in self])


class RestoredGuest(NamedTuple):
    """A guest that runs on another host than the one that died, since `at_ns` by the wall clock of that host.

    The outage was between the bounds, None: nobody knows. `part` is the notice to its project that says so.
    """

    host: str
    at_ns: int
    outage_lower_ms: float | None
    outage_upper_ms: float | None
    owner: str
    part: int


@dataclass(frozen=True, slots=True)
class FaultPicture:
    """All that a notice says about a fault. What was true when it was raised must not change afterwards.

    The body of the notice `raised` is rendered again after a restart, perhaps when the fault has cleared, and
    must be the same to the last byte; so what belongs to the end has fields of its own. `*_ns` is the
    source's wall clock; the outage was between `outage_lower_ms` and `outage_ms`, None where nobody knows.
    `superseded_by` is the fault that says from then on that the subject is wrong, `remaining` are the
    subjects that were still wrong when it was cleared, which have faults of their own, `restored` the guests
    that run elsewhere, by subject. `host` is where it was when it was raised, empty for what is on no host;
    no notice has it. `drill` is the run that broke it on purpose, empty for none: known from the numbers of
    the journal, the same for ever.
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
    outage_lower_ms: float | None = None
    superseded_by: str = ""
    remaining: frozenset[str] = frozenset()
    restored: Mapping[str, RestoredGuest] = field(default_factory=dict)
    by_owner: Mapping[Owner, tuple[Affected, ...]] = field(init=False, compare=False, repr=False)
    """`affected` again, sorted out once: ten thousand guests of a thousand projects are asked for often."""

    def __post_init__(self) -> None:
        known = self.affected if isinstance(self.affected, AffectedIndex) else AffectedIndex(self.affected)
        object.__setattr__(self, "by_owner", known.by_owner)

    def is_recovered(self, project: Owner) -> bool:
        """Whether everything of this project was told to run again elsewhere: then it is not its trouble."""
        mine = self.by_owner.get(project, ())
        return bool(mine) and all(each.subject in self.restored for each in mine)

    def affected_of(self, project: Owner) -> tuple[Affected, ...]:
        """What a subscription of this project may read, in the order of `affected`."""
        return self.affected if project == INFRASTRUCTURE else self.by_owner.get(project, ())


@dataclass(frozen=True, slots=True)
class Notice:
    """One row of the outbox: one transition of one fault, for one endpoint of one subscription.

    `queued_seq` is the seq of its NoticeQueued, an `EventIndex` until the submission is committed.
    `queued_ns` and `next_ns` are this server's wall clock. `owner` is the subscription's when it was queued.
    """

    key: str
    subscription: str
    owner: Owner
    fault: FaultId
    transition: NoticeTransition
    queued_seq: Seq | EventIndex
    queued_ns: int
    trace: str
    state: NoticeState = NoticeState.PENDING
    attempts: int = 0
    next_ns: int = 0
    reason: str = ""
    endpoint: int = 1
    part: int = 0

    def settled(self, queued_seq: Seq) -> Notice:
        """The same with the number of its event. By position, as it is asked of a thousand in a storm."""
        return Notice(
            self.key, self.subscription, self.owner, self.fault, self.transition, queued_seq, self.queued_ns,
            self.trace, self.state, self.attempts, self.next_ns, self.reason, self.endpoint, self.part,
        )  # fmt: skip

    @property
    def destination(self) -> str:
        """Whom it is for: a subscription, or one of its further endpoints."""
        return destination(self.subscription, self.endpoint)


@dataclass(frozen=True, slots=True)
class Silence:
    """For a time, notices of a scope are held back, of all projects or of one.

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
    name, _, number = destination.partition("/")
    return name, int(number or "1")


def notice_key(destination: str, fault: FaultId, transition: NoticeTransition, part: int = 0) -> str:
    """The idempotency key: the same for every attempt, for ever. Each `part` has one of its own."""
    return f"{destination}:{fault}:{transition.value}" + (f"-{part}" if part > 1 else "")


def notice_subject(key: str) -> str:
    return f"notice/{key}"


FaultLookup = Callable[[Sequence[FaultId]], Awaitable[Mapping[FaultId, FaultPicture]]]
"""Pictures of faults by id, read again; a fault that is no longer known is left out."""
