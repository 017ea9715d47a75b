"""GET /api/v1/what-if/host/{host}: what would be hit, who would be told, what would be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Owner, ResourceKind
from homeostat.faults.exposure import Quiet, exposure
from homeostat.fleet.assignment import Placement
from homeostat.fleet.gate import Refusal
from homeostat.fleet.model import Topology
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.notices.model import Transition
from homeostat.notices.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class WhatIfApi:
    """What the route stands on: `app.state.what_if`. `driver` is empty when a person fences.

    `placement` is where guests would start, `may_start` what the gate says to it.
    """

    topology: Callable[[], Topology]
    subscriptions: Subscriptions
    verdict: Callable[[HostId], Refusal | None]
    driver: str
    quiet: Quiet
    clock: Clock
    placement: Callable[[HostId], Placement]
    may_start: Callable[[HostId], Refusal | None]


class HitView(BaseModel):
    """A resource that would be in error."""

    id: str
    kind: ResourceKind
    owner: str


class ForetoldView(BaseModel):
    """A notice that would be sent; `affected` are ids of resources.

    `silence` is the id of the silence that would keep it back, null when none would.
    """

    subscription: str
    project: str
    transition: Transition
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


class WhatIf(BaseModel):
    """Of everything, what the caller may read."""

    host: str
    resources: list[HitView]
    notices: list[ForetoldView]
    elsewhere: list[ElsewhereView]
    acts: list[ActView]


def _parts(request: Request) -> WhatIfApi:
    parts: WhatIfApi = request.app.state.what_if
    return parts


router = APIRouter(prefix="/api/v1/what-if", tags=["what-if"], responses=ERRORS)


@router.get("/host/{host}")
async def what_if_host(
    host: Annotated[str, Path(max_length=63)],
    caller: CurrentCaller,
    parts: Annotated[WhatIfApi, Depends(_parts)],
) -> WhatIf:
    """If this host died now. Nothing is changed and nobody is told."""
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
        resources=[HitView(id=row.id, kind=row.kind, owner=row.owner) for row in hit],
        notices=[
            ForetoldView(
                subscription=each.subscription,
                project=each.project,
                transition=each.transition,
                affected=[subject.partition("/")[2] for subject in each.affected],
                silence=None if each.silence is None else each.silence.id,
            )
            for each in found.notices
            if caller.may_read(each.project)
        ],
        elsewhere=[row for owner, row in _elsewhere(parts.placement(name)) if caller.may_read(owner)],
        acts=[_act(parts, name), _start(parts, name)] if administrator else [],
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


def _start(parts: WhatIfApi, host: HostId) -> ActView:
    refusal = parts.may_start(host)
    said = "" if refusal is None else refusal.sentence
    return ActView(act="start_elsewhere", driver="", allowed=refusal is None, reason=said)


def _act(parts: WhatIfApi, host: HostId) -> ActView:
    if not parts.driver:
        reason = "a person confirms it: homeostat host fenced"
        return ActView(act="fence", driver="manual", allowed=False, reason=reason)
    refusal = parts.verdict(host)
    said = "" if refusal is None else refusal.sentence
    return ActView(act="fence", driver=parts.driver, allowed=refusal is None, reason=said)
