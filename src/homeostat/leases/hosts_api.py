"""The HTTP API of hosts that may be reserved, /api/v1/lease-hosts: add, remove, hold, release.

For administrators: hosts are nobody else's. The list says for each host which leases its failure would leave
without a replacement (the N-1 table).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, Field

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import to_wall_ns
from homeostat.kernel.errors import BadInput, NotAllowed
from homeostat.kernel.http import ERRORS, CurrentCaller, StrictBody, Text
from homeostat.leases.api import CurrentLeases, LeasesApi
from homeostat.leases.book import sorted_hosts
from homeostat.leases.refusal_texts import refused
from homeostat.leases.refusals import LeaseRefusal
from homeostat.leases.reservable_hosts import find_host
from homeostat.leases.views import LeaseHostView, host_view

HostName = Annotated[str, Path(max_length=63)]
_PROPERTIES_MAX = 50
PropertyName = Annotated[Text, Field(min_length=1, max_length=255)]


class LeaseHostBody(StrictBody):
    """A host that reports to this server, by its name, and properties that people give it."""

    host: Annotated[Text, Field(min_length=1, max_length=63)]
    properties: Annotated[
        dict[PropertyName, Annotated[Text, Field(max_length=255)]],
        Field(max_length=_PROPERTIES_MAX, default_factory=dict),
    ]


class HoldBody(StrictBody):
    """Why a host is held. Until `until_at`, or for `for_s` seconds from now, or until it is released."""

    reason: Annotated[Text, Field(min_length=1, max_length=500)]
    until_at: AwareDatetime | None = None
    for_s: Annotated[float, Field(gt=0, le=3650 * 86_400)] | None = None


class LeaseHostList(BaseModel):
    """In the order in which they were added."""

    items: list[LeaseHostView]


router = APIRouter(prefix="/api/v1", tags=["lease-hosts"], responses=ERRORS)


@router.get("/lease-hosts")
async def list_lease_hosts(caller: CurrentCaller, parts: CurrentLeases) -> LeaseHostList:
    """All hosts that may be reserved, or none when they are not yours to read."""
    if not caller.may_read(INFRASTRUCTURE):
        return LeaseHostList(items=[])
    rows, at_risk = sorted_hosts(parts.keeper.book.hosts.values()), _at_risk(parts)
    now_ns = parts.clock.wall_ns()
    return LeaseHostList(
        items=[host_view(parts.keeper.book, row, now_ns, at_risk.get(row.host, ())) for row in rows]
    )


@router.post("/lease-hosts", status_code=201)
async def add_lease_host(body: LeaseHostBody, caller: CurrentCaller, parts: CurrentLeases) -> LeaseHostView:
    """The host may be reserved from now on."""
    _must_be_administrator(caller)
    host = HostId(body.host)
    done = await parts.keeper.add_host(host, caller.name, body.properties)
    if isinstance(done, LeaseRefusal):
        raise refused(done, caller)
    return _shown(parts, host)


@router.delete("/lease-hosts/{host}", status_code=204)
async def remove_lease_host(host: HostName, caller: CurrentCaller, parts: CurrentLeases) -> None:
    """It cannot be reserved any more; refused while something is reserved on it."""
    _must_be_administrator(caller)
    refusal = await parts.keeper.remove_host(HostId(host), caller.name)
    if refusal is not None:
        raise refused(refusal, caller)


@router.put("/lease-hosts/{host}/hold")
async def hold_lease_host(
    host: HostName, body: HoldBody, caller: CurrentCaller, parts: CurrentLeases
) -> LeaseHostView:
    """Keep new reservations and monitors from it. What is reserved there stays."""
    _must_be_administrator(caller)
    now_ns = parts.clock.wall_ns()
    until_ns = None
    if body.until_at is not None and body.for_s is not None:
        raise BadInput("for_s", body.for_s, "until_at or for_s, not both")
    if body.for_s is not None:
        until_ns = now_ns + round(body.for_s * 1e9)
    elif body.until_at is not None:
        until_ns = to_wall_ns(body.until_at)
        if until_ns <= now_ns:
            raise BadInput("until_at", str(body.until_at), "a time in the future; without it, until release")
    await parts.keeper.hold_host(HostId(host), body.reason, until_ns, caller.name)
    return _shown(parts, HostId(host))


@router.delete("/lease-hosts/{host}/hold")
async def release_lease_host(host: HostName, caller: CurrentCaller, parts: CurrentLeases) -> LeaseHostView:
    """End the hold now: monitors are believed again. Repeating it changes nothing."""
    _must_be_administrator(caller)
    await parts.keeper.hold_host(HostId(host), "", None, caller.name)
    return _shown(parts, HostId(host))


def _must_be_administrator(caller: Caller) -> None:
    if caller.role is not Role.ADMIN:
        raise NotAllowed("only an administrator may change which hosts can be reserved")


def _shown(parts: LeasesApi, host: HostId) -> LeaseHostView:
    book = parts.keeper.book
    return host_view(book, find_host(book, host), parts.clock.wall_ns(), _at_risk(parts).get(host, ()))


def _at_risk(parts: LeasesApi) -> Mapping[HostId, set[str]]:
    """By host: the leases that could not be healed if it failed. Made once for all hosts."""
    book = parts.keeper.book
    found: defaultdict[HostId, set[str]] = defaultdict(set)
    for reservation, risk in parts.outlook.risks.items():
        if risk.hosts and reservation in book.reservations:
            for host in risk.hosts:
                found[host].add(book.lease_of(reservation).name)
    return found
