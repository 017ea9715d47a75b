"""Who is told of a fault, and why. Pure.

Invariants: a subscription hears only of faults of its own project, and of dead hosts on which something of
it ran; those of `infrastructure` hear everything; no filter opens what the owner closes; the order of the
subscriptions is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner, Severity, resource_subject
from homeostat.notices.model import FaultPicture, Subscription

_RANK = {severity: rank for rank, severity in enumerate(Severity)}


class Reason(Enum):
    """Why a subscription is told, or is not."""

    OWNER = "the fault belongs to the subscription's project"
    AFFECTED = "something of the subscription's project suffers from the fault"
    ADMINISTRATOR = "a subscription of the project infrastructure hears everything"
    HEARD_IT_RAISED = "it was told that the fault was raised, so it is told that it cleared"
    NOT_YOURS = "the fault belongs to another project"
    KIND_NOT_WANTED = "the subscription does not ask for this kind of fault"
    RESOURCE_NOT_WANTED = "the subscription does not ask for any resource that this fault touches"
    BELOW_SEVERITY = "the fault is less severe than the subscription asks for"
    EXPIRED = "the subscription's time is over"
    NEVER_HEARD_IT_RAISED = "it was not told that the fault was raised, so nothing has to be taken back"


TOLD = frozenset({Reason.OWNER, Reason.AFFECTED, Reason.ADMINISTRATOR, Reason.HEARD_IT_RAISED})
"""The reasons that lead to a notice."""


def may_hear(subscription_owner: Owner, owner: Owner) -> bool:
    """Whether a subscription of one project may hear of what belongs to `owner`."""
    return subscription_owner in (INFRASTRUCTURE, owner)


def concerned(fault: FaultPicture) -> frozenset[Owner]:
    """The projects that a fault is about: its owner; of a dead host, the owners of what ran there too."""
    if fault.kind is not FaultKind.HOST_DOWN:
        return frozenset({fault.owner})
    return frozenset(fault.by_owner) | {fault.owner}


def may_hear_of(subscription: Subscription, fault: FaultPicture) -> bool:
    """Whether the fault is any business of the subscription's project."""
    if subscription.owner in (INFRASTRUCTURE, fault.owner):
        return True
    return fault.kind is FaultKind.HOST_DOWN and subscription.owner in fault.by_owner


def decide(
    subscription: Subscription, fault: FaultPicture, now_ns: int, projects: frozenset[Owner] | None = None
) -> Reason:
    """Whether this subscription is told at `now_ns`, on the server's wall clock, that the fault was raised.

    `projects`: `concerned`, found once.
    """
    projects = concerned(fault) if projects is None else projects
    if not _is_concerned(subscription, projects):
        return Reason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return Reason.EXPIRED
    if subscription.kinds and fault.kind not in subscription.kinds:
        return Reason.KIND_NOT_WANTED
    if subscription.resources and not _touches(subscription, fault):
        return Reason.RESOURCE_NOT_WANTED
    wanted = subscription.minimum_severity
    if wanted is not None and _RANK[fault.severity] > _RANK[wanted]:
        return Reason.BELOW_SEVERITY
    if subscription.owner == fault.owner:
        return Reason.OWNER
    return Reason.ADMINISTRATOR if subscription.owner == INFRASTRUCTURE else Reason.AFFECTED


def decide_cleared(
    subscription: Subscription,
    fault: FaultPicture,
    heard: Collection[str],
    now_ns: int,
    projects: frozenset[Owner] | None = None,
) -> Reason:
    """Whether it is told that the fault cleared: who `heard` it raised is, whatever it asks for now."""
    if not _is_concerned(subscription, concerned(fault) if projects is None else projects):
        return Reason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return Reason.EXPIRED
    if any(each in heard for each in subscription.destinations()):
        return Reason.HEARD_IT_RAISED
    return Reason.NEVER_HEARD_IT_RAISED


def told(
    subscriptions: Iterable[Subscription],
    fault: FaultPicture,
    now_ns: int,
    heard: Collection[str] | None = None,
) -> tuple[tuple[Subscription, Reason], ...]:
    """The subscriptions that get a notice, each with the reason.

    `heard` is for a cleared fault: the destinations that were told that it was raised. None: it was raised
    now. `now_ns` is the server's wall clock.
    """
    projects = concerned(fault)
    decided = (
        (
            each,
            decide(each, fault, now_ns, projects)
            if heard is None
            else decide_cleared(each, fault, heard, now_ns, projects),
        )
        for each in subscriptions
    )
    return tuple((each, reason) for each, reason in decided if reason in TOLD)


def _is_concerned(subscription: Subscription, projects: frozenset[Owner]) -> bool:
    return subscription.owner == INFRASTRUCTURE or subscription.owner in projects


def _touches(subscription: Subscription, fault: FaultPicture) -> bool:
    wanted = {resource_subject(resource) for resource in subscription.resources}
    touched = {fault.about} | {each.subject for each in fault.affected_of(subscription.owner)}
    return not wanted.isdisjoint(touched)
