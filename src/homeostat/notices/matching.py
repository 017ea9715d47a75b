"""Decides which subscriptions are notified of a fault, and which silence mutes a notice. Pure.

Invariants of subscriptions: one is notified only of faults of its own project, and of dead hosts on which
something of it ran; those of `infrastructure` are notified of everything; no filter opens what the owner
closes; the order of the subscriptions is kept.

Whoever was notified of a fault is notified of the one that takes its place, whatever it asks for: that is no
news of another trouble, and without it the end of the first would look like recovery.

A silence mutes news of trouble, never its end: a consumer that was notified of `raised` is notified of
`cleared`. It covers a fault by where it was *when it was raised*, so that it follows guests wherever they
run. A silence of a project touches only that project's subscriptions.

`SilenceIndex` finds the silences that may cover a fault without reading all of them: silences that name the
same things are in one bucket, and for a fault there are as many buckets to look into as there are
*combinations* of named things, at most 32, times its owners and projects. What it finds is judged by
`judge_silence`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum

from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, Owner, ResourceId, Severity, resource_subject
from homeostat.notices.model import FaultPicture, Silence, Subscription

_RANK = {severity: rank for rank, severity in enumerate(Severity)}


class MatchReason(Enum):
    """Why a subscription gets a notice, or none."""

    OWNER = "the fault belongs to the subscription's project"
    AFFECTED = "something of the subscription's project is affected by the fault"
    ADMINISTRATOR = "a subscription of the project infrastructure gets every notice"
    HEARD_IT_RAISED = "it got the notice that the fault was raised, so it gets the one that it cleared"
    NOT_YOURS = "the fault belongs to another project"
    KIND_NOT_WANTED = "the subscription does not ask for this kind of fault"
    RESOURCE_NOT_WANTED = "the subscription does not ask for any resource that this fault touches"
    BELOW_SEVERITY = "the fault is less severe than the subscription asks for"
    RECOVERED = "all that the fault touches of the subscription's project runs again on other hosts"
    EXPIRED = "the subscription has expired"
    NEVER_HEARD_IT_RAISED = "it got no notice that the fault was raised, so it needs none that it cleared"


NOTIFIED_REASONS = frozenset(
    {MatchReason.OWNER, MatchReason.AFFECTED, MatchReason.ADMINISTRATOR, MatchReason.HEARD_IT_RAISED}
)
"""The reasons that lead to a notice."""


def is_owner_entitled(subscription_owner: Owner, owner: Owner) -> bool:
    """Whether a subscription of one project may hear of what belongs to `owner`."""
    return subscription_owner in (INFRASTRUCTURE, owner)


def concerned_owners(fault: FaultPicture) -> frozenset[Owner]:
    """The projects that a fault is about: its owner; of a dead host, the owners of what ran there too."""
    if fault.kind is not FaultKind.HOST_DOWN:
        return frozenset({fault.owner})
    return frozenset(fault.by_owner) | {fault.owner}


def is_entitled(subscription: Subscription, fault: FaultPicture) -> bool:
    """Whether the fault is any business of the subscription's project."""
    if subscription.owner in (INFRASTRUCTURE, fault.owner):
        return True
    return fault.kind is FaultKind.HOST_DOWN and subscription.owner in fault.by_owner


def decide_raised(
    subscription: Subscription, fault: FaultPicture, now_ns: int, projects: frozenset[Owner] | None = None
) -> MatchReason:
    """Decides about a notice that the fault was raised, at `now_ns` on the server's wall clock.

    `projects`: `concerned`, found once.
    """
    projects = concerned_owners(fault) if projects is None else projects
    if not _is_concerned(subscription, projects):
        return MatchReason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return MatchReason.EXPIRED
    if subscription.kinds and fault.kind not in subscription.kinds:
        return MatchReason.KIND_NOT_WANTED
    if subscription.resources and not _touches(subscription, fault):
        return MatchReason.RESOURCE_NOT_WANTED
    wanted = subscription.minimum_severity
    if wanted is not None and _RANK[fault.severity] > _RANK[wanted]:
        return MatchReason.BELOW_SEVERITY
    if subscription.owner == fault.owner:
        return MatchReason.OWNER
    if subscription.owner == INFRASTRUCTURE:
        return MatchReason.ADMINISTRATOR
    return MatchReason.RECOVERED if fault.is_recovered(subscription.owner) else MatchReason.AFFECTED


def decide_cleared(
    subscription: Subscription,
    fault: FaultPicture,
    heard: Collection[str],
    now_ns: int,
    projects: frozenset[Owner] | None = None,
) -> MatchReason:
    """Decides about a notice that the fault cleared: due to who `heard` it raised, whatever it asks now."""
    if not _is_concerned(subscription, concerned_owners(fault) if projects is None else projects):
        return MatchReason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return MatchReason.EXPIRED
    if any(each in heard for each in subscription.destinations()):
        return MatchReason.HEARD_IT_RAISED
    return MatchReason.NEVER_HEARD_IT_RAISED


def recipients(
    subscriptions: Iterable[Subscription],
    fault: FaultPicture,
    now_ns: int,
    heard: Collection[str] | None = None,
) -> tuple[tuple[Subscription, MatchReason], ...]:
    """The subscriptions that get a notice, each with the reason.

    `heard` is for a cleared fault: the destinations that got the notice that it was raised. None: it was
    raised now. `now_ns` is the server's wall clock.
    """
    projects = concerned_owners(fault)
    decided = (
        (
            each,
            decide_raised(each, fault, now_ns, projects)
            if heard is None
            else decide_cleared(each, fault, heard, now_ns, projects),
        )
        for each in subscriptions
    )
    return tuple((each, reason) for each, reason in decided if reason in NOTIFIED_REASONS)


def _is_concerned(subscription: Subscription, projects: frozenset[Owner]) -> bool:
    return subscription.owner == INFRASTRUCTURE or subscription.owner in projects


def _touches(subscription: Subscription, fault: FaultPicture) -> bool:
    wanted = {resource_subject(resource) for resource in subscription.resources}
    touched = {fault.about} | {each.subject for each in fault.affected_of(subscription.owner)}
    return not wanted.isdisjoint(touched)


class SilenceMatch(Enum):
    """Why a silence keeps a notice back, or does not."""

    COVERED = "the silence covers this fault"
    NOT_YET = "the silence has not begun"
    OVER = "the silence is over"
    OTHER_PROJECT = "it is another project's silence"
    OTHER_KIND = "the silence is about another kind of fault"
    OTHER_HOST = "the fault was not on the silence's host when it was raised"
    OTHER_ZONE = "the fault was not in the silence's zone when it was raised"
    OTHER_RESOURCE = "the fault is about something else than the silence's resource"
    OTHER_OWNER = "what is affected does not belong to the silence's owner"


def judge_silence(
    silence: Silence,
    subscription: Subscription,
    fault: FaultPicture,
    now_ns: int,
    zones: Mapping[str, str],
) -> SilenceMatch:
    """Whether this silence keeps this fault from this subscription now. `zones` is the zone of each host.

    All that the silence names must fit. `now_ns` is the server's wall clock, as the silence's ends are.
    """
    if now_ns < silence.begins_ns:
        return SilenceMatch.NOT_YET
    if now_ns >= silence.ends_ns:
        return SilenceMatch.OVER
    if silence.project not in (INFRASTRUCTURE, subscription.owner):
        return SilenceMatch.OTHER_PROJECT
    return _judge_scope(silence, subscription, fault, zones)


def _judge_scope(
    silence: Silence, subscription: Subscription, fault: FaultPicture, zones: Mapping[str, str]
) -> SilenceMatch:
    # A project hears only of what is its own, so a notice to it of a dead host is about its own guests.
    wanted_owner = silence.owner == fault.owner or silence.owner == subscription.owner != INFRASTRUCTURE
    for named, fits, why in (
        (silence.host, silence.host == fault.host, SilenceMatch.OTHER_HOST),
        (silence.zone, bool(fault.host) and zones.get(fault.host) == silence.zone, SilenceMatch.OTHER_ZONE),
        (
            silence.resource,
            fault.about == resource_subject(ResourceId(silence.resource)),
            SilenceMatch.OTHER_RESOURCE,
        ),
        (silence.kind, silence.kind == fault.kind, SilenceMatch.OTHER_KIND),
        (silence.owner, wanted_owner, SilenceMatch.OTHER_OWNER),
    ):
        if named and not fits:
            return why
    return SilenceMatch.COVERED


def silence_refusal(silence: Silence, owner_of: Mapping[str, Owner]) -> str:
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


_Scope = tuple[str, ...]


class SilenceIndex:
    """Silences as they were given, which never change. `zones` is the zone of each host."""

    def __init__(self, rows: Iterable[Silence], zones: Mapping[str, str]) -> None:
        self._zones = zones
        self._buckets: dict[_Scope, list[Silence]] = {}
        for row in sorted(rows, key=_lasting, reverse=True):
            self._buckets.setdefault(_scope_of(row), []).append(row)
        self._shapes = {tuple(map(bool, scope[:-1])) for scope in self._buckets}

    def covering(self, subscription: Subscription, fault: FaultPicture, now_ns: int) -> Silence | None:
        """The silence that covers it, of several the one that lasts longest; None when none does."""
        found: Silence | None = None
        for scope in self._scopes(subscription, fault):
            for row in self._buckets.get(scope, ()):
                if found is not None and _lasting(row) < _lasting(found):
                    break
                if judge_silence(row, subscription, fault, now_ns, self._zones) is SilenceMatch.COVERED:
                    found = row
                    break
        return found

    def _scopes(self, subscription: Subscription, fault: FaultPicture) -> Iterator[_Scope]:
        """Every scope that could cover it, among the shapes that there are."""
        zone, kind = self._zones.get(fault.host, ""), fault.kind.value
        owners = {fault.owner, subscription.owner}
        projects = {INFRASTRUCTURE, subscription.owner}
        for shape in self._shapes:
            for owner in owners if shape[4] else ("",):
                named = (fault.host, zone, fault.about, kind, owner)
                scope = tuple(value if is_named else "" for value, is_named in zip(named, shape, strict=True))
                if tuple(map(bool, scope)) != shape:
                    continue  # it is on no host, or in no zone
                for project in projects:
                    yield (*scope, project)


def _scope_of(row: Silence) -> _Scope:
    about = resource_subject(ResourceId(row.resource)) if row.resource else ""
    return (row.host, row.zone, about, row.kind, row.owner, row.project)


def _lasting(row: Silence) -> tuple[int, str]:
    return row.ends_ns, row.id
