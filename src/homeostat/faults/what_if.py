"""The route /api/v1/what-if/host/{host}: predicts the faults, notices and acts that a host's death would
cause.

Nothing is changed and nobody is notified. The prediction is no model of the write path: it calls the same
pure functions, with a death that did not happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from homeostat.contracts.component import ExposureRow
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Mark, Owner, ResourceKind
from homeostat.faults.hosts import observed_dead
from homeostat.faults.lifecycle import new_fault
from homeostat.faults.notice_bridge import picture_of
from homeostat.fleet.fencing import FENCE
from homeostat.fleet.gate import GateRefusal
from homeostat.fleet.model import Resource, Topology
from homeostat.fleet.placements import Placement
from homeostat.fleet.suspicion import Death
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, state_part, view_from
from homeostat.kernel.journal import EventIndex
from homeostat.notices.matching import is_owner_entitled, recipients
from homeostat.notices.model import FaultPicture, NoticeTransition, Silence, Subscription
from homeostat.notices.subscriptions import Subscriptions

HYPOTHETICAL_DEATH = Death("supposed", 0, 0)


@dataclass(frozen=True, slots=True)
class PredictedNotice:
    """A notice that would be sent, or kept back by `silence`. `affected` are the subjects that it names."""

    subscription: str
    project: str
    transition: NoticeTransition
    affected: tuple[str, ...]
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class Exposure:
    """`resources` would be in error, `notices` would be told; when the host is back, the same are told so."""

    host: HostId
    resources: tuple[Resource, ...]
    notices: tuple[PredictedNotice, ...]


SilenceLookup = Callable[[Iterable[Subscription], FaultPicture, int], Mapping[str, Silence]]
"""Which of these subscriptions a silence spares a fault at a moment, by name: `Silences.covering`."""


def exposure(
    topology: Topology,
    host: HostId,
    subscriptions: Iterable[Subscription],
    now_ns: int,
    quiet: SilenceLookup = lambda *_: {},
) -> Exposure:
    """What the death of a known host would mean now."""
    picture = picture_of(new_fault(observed_dead(topology, host, HYPOTHETICAL_DEATH), EventIndex(0)))
    hit = {each.subject.partition("/")[2] for each in picture.affected}
    resources = sorted((row for row in topology.on_host(host) if row.id in hit), key=lambda row: row.id)
    listeners = [subscription for subscription, _ in recipients(subscriptions, picture, now_ns)]
    silent = quiet(listeners, picture, now_ns)
    notices = tuple(
        PredictedNotice(
            each.name,
            each.owner,
            transition,
            tuple(hurt.subject for hurt in picture.affected if is_owner_entitled(each.owner, hurt.owner)),
            silent.get(each.name),
        )
        for transition in (NoticeTransition.RAISED, NoticeTransition.CLEARED)
        for each in listeners
    )
    return Exposure(host, tuple(resources), notices)


@dataclass(frozen=True, slots=True)
class WhatIfApi:
    """What the route stands on: `app.state.what_if`. `driver` is empty when a person fences.

    `verdict` is the gate's, of a host and an act.
    `placement` is where guests would start, `may_start` what the gate says to it. `exposed` is what
    components say beside that.
    """

    topology: Callable[[], Topology]
    subscriptions: Subscriptions
    verdict: Callable[[HostId, str], GateRefusal | None]
    driver: str
    cloud: str
    quiet: SilenceLookup
    clock: Clock
    placement: Callable[[HostId], Placement]
    may_start: Callable[[HostId], GateRefusal | None]
    exposed: Callable[[HostId], Awaitable[Sequence[ExposureRow]]]


class HitView(BaseModel):
    """A resource that would be in error."""

    id: str
    kind: ResourceKind
    owner: str


class PredictedNoticeView(BaseModel):
    """A notice that would be sent; `affected` are ids of resources.

    `silence` is the id of the silence that would keep it back, null when none would.
    """

    subscription: str
    project: str
    transition: NoticeTransition
    affected: list[str]
    silence: str | None


class ElsewhereView(BaseModel):
    """A guest that can move: the host that would start it, or null and why not."""

    id: str
    host: str | None
    reason: str


class ActView(BaseModel):
    """What would be done, or why not. `reason` is empty when the gate would open."""

    act: str
    driver: str
    allowed: bool
    reason: str


class ExposedView(BaseModel):
    """What else it would mean, as a component says; `subject` is what it is about."""

    component: str
    subject: str
    owner: str
    says: str


class WhatIf(BaseModel):
    """Of everything, what the caller may read."""

    host: str
    resources: list[HitView]
    notices: list[PredictedNoticeView]
    elsewhere: list[ElsewhereView]
    acts: list[ActView]
    exposed: list[ExposedView]


router = APIRouter(prefix="/api/v1/what-if", tags=["what-if"], responses=ERRORS)


@router.get("/host/{host}")
async def what_if_host(
    host: Annotated[str, Path(max_length=63)],
    caller: CurrentCaller,
    parts: Annotated[WhatIfApi, state_part("what_if")],
) -> WhatIf:
    """What would happen if this host died now. Nothing is changed and no notice is sent."""
    topology, name = parts.topology(), HostId(host)
    missing = NotFound(f"there is no host {host!r}, or nothing on it is yours to read")
    if name not in topology.nodes:
        raise missing
    subscriptions, now_ns = parts.subscriptions.all(), parts.clock.wall_ns()
    found = exposure(topology, name, subscriptions, now_ns, parts.quiet)
    hit = [row for row in found.resources if caller.may_read(row.owner)]
    administrator = caller.may_read(INFRASTRUCTURE)
    if not hit and not administrator:
        raise missing
    return WhatIf(
        host=host,
        resources=[view_from(HitView, row) for row in hit],
        notices=[
            view_from(
                PredictedNoticeView,
                each,
                affected=[subject.partition("/")[2] for subject in each.affected],
                silence=None if each.silence is None else each.silence.id,
            )
            for each in found.notices
            if caller.may_read(each.project)
        ],
        elsewhere=[row for owner, row in _elsewhere(parts.placement(name)) if caller.may_read(owner)],
        acts=[*_acts(parts, name), _act("start_elsewhere", "", parts.may_start(name))]
        if administrator
        else [],
        exposed=[
            view_from(ExposedView, row) for row in await parts.exposed(name) if caller.may_read(row.owner)
        ],
    )


def _elsewhere(placement: Placement) -> list[tuple[Owner, ElsewhereView]]:
    """Owner and row of each guest, by name."""
    rows = [
        (each.offer.owner, ElsewhereView(id=each.resource, host=each.to, reason=""))
        for each in placement.assigned
    ]
    rows += [
        (each.owner, ElsewhereView(id=each.resource, host=None, reason=each.detail))
        for each in placement.stranded
    ]
    return sorted(rows, key=lambda row: row[1].id)


def _act(act: str, driver: str, refusal: GateRefusal | None) -> ActView:
    said = "" if refusal is None else refusal.sentence
    return ActView(act=act, driver=driver, allowed=refusal is None, reason=said)


def _acts(parts: WhatIfApi, host: HostId) -> list[ActView]:
    """In the order in which they begin."""
    acts = [(mark.value, parts.cloud) for mark in (Mark.MARK_DOWN, Mark.SET_ERROR)]
    if parts.driver:
        acts.append((FENCE, parts.driver))
    found = [_act(act, driver, parts.verdict(host, act)) for act, driver in acts]
    if not parts.driver:
        reason = "a person confirms it: homeostat host fenced"
        found.append(ActView(act=FENCE, driver="manual", allowed=False, reason=reason))
    return found
