"""The operations of Blazar's API v1, each for one caller whose token is known.

Requests become those of `LeaseKeeper`; nothing is decided here but who may do what. Invariant: a lease of
another project is not there: reading it, changing it and one that never was have the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.leases.blazar_answers import (
    show_allocations,
    show_host,
    show_lease,
    show_properties,
    show_property,
)
from homeostat.leases.blazar_refusals import BlazarError, forbidden, not_found, refused
from homeostat.leases.blazar_requests import (
    read_flag,
    read_lease,
    read_new_host,
    read_private,
    read_properties,
    read_update,
)
from homeostat.leases.book import Occupancy
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import Lease, LeaseId, ReservableHost, ResourceType
from homeostat.leases.refusals import LeaseRefusal


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose caller, query and body are known. `place`: the variable parts of its path."""

    caller: Caller
    query: Mapping[str, str]
    body: Mapping[str, Any]
    place: Mapping[str, str]


Answer = dict[str, object]

_SLICE = 50
"""Leases that are shown in one go: some two milliseconds."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done at a path: its method, the status of success, and the names that its query may have."""

    method: str
    run: Callable[[BlazarApi, Call], Awaitable[Answer | None]]
    status: int = 200
    query: tuple[str, ...] = ()


class BlazarApi:
    """The operations, each for one caller."""

    def __init__(self, keeper: LeaseKeeper, clock: Clock, plugins: tuple[ResourceType, ...]) -> None:
        self.keeper, self._clock, self._plugins = keeper, clock, plugins

    # ---- leases ----

    async def list_leases(self, call: Call) -> Answer:
        book, shown = self.keeper.book, []
        mine = [each.id for each in book.leases.values() if call.caller.may_read(each.project)]
        for number, lease in enumerate(mine):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)  # others have their turn: Blazar's list has no pages
            if lease in book.leases:
                shown.append(show_lease(book, book.leases[lease]))
        return {"leases": shown}

    async def create_lease(self, call: Call) -> Answer:
        if not call.caller.may_write(call.caller.owner):
            raise forbidden("leases:post", f"a {call.caller.role} only reads")
        request = read_lease(call.body, call.caller, self._plugins)
        return {"lease": self._shown(await self.keeper.create(request), call.caller)}

    async def get_lease(self, call: Call) -> Answer:
        return {"lease": show_lease(self.keeper.book, self._lease(call))}

    async def update_lease(self, call: Call) -> Answer:
        lease = self._lease(call, writing="leases:put")
        if not call.body:
            return {"lease": show_lease(self.keeper.book, lease)}
        reservations = self.keeper.book.reservations_of(lease.id)
        update = read_update(call.body, reservations, self._clock.wall_ns())
        done = await self.keeper.update(lease.id, update, call.caller.name)
        return {"lease": self._shown(done, call.caller)}

    async def delete_lease(self, call: Call) -> None:
        lease = self._lease(call, writing="leases:delete")
        await self.keeper.delete(lease.id, call.caller.name)

    async def list_plugins(self, _call: Call) -> Answer:
        return {"plugins": [each.value for each in self._plugins]}

    def _shown(self, done: Lease | LeaseRefusal, caller: Caller) -> dict[str, object]:
        if isinstance(done, LeaseRefusal):
            raise refused(done, caller)
        return show_lease(self.keeper.book, done)

    def _lease(self, call: Call, writing: str = "") -> Lease:
        identifier = call.place["id"]
        found = self.keeper.book.leases.get(LeaseId(identifier))
        if found is None or not call.caller.may_read(found.project):
            raise not_found(lease_id=identifier)
        if writing and not call.caller.may_write(found.project):
            raise forbidden(writing, f"a {call.caller.role} only reads")
        return found

    # ---- hosts ----

    async def list_hosts(self, call: Call) -> Answer:
        _may_see_hosts(call, "oshosts:get")
        now_ns = self._clock.wall_ns()
        return {"hosts": [show_host(each, now_ns) for each in self._hosts()]}

    async def create_host(self, call: Call) -> Answer:
        _may_change_hosts(call, "oshosts:post")
        name, properties = read_new_host(call.body)
        done = await self.keeper.add_host(name, call.caller.name, properties)
        return {"host": self._host_shown(done, call.caller)}

    async def get_host(self, call: Call) -> Answer:
        _may_see_hosts(call, "oshosts:get")
        return {"host": show_host(self._host(call), self._clock.wall_ns())}

    async def update_host(self, call: Call) -> Answer:
        _may_change_hosts(call, "oshosts:put")
        host = self._host(call)
        if not call.body:
            raise BlazarError(400, "No data to update")
        done = await self.keeper.describe_host(host.host, read_properties(call.body), call.caller.name)
        return {"host": self._host_shown(done, call.caller)}

    async def delete_host(self, call: Call) -> None:
        _may_change_hosts(call, "oshosts:delete")
        refusal = await self.keeper.remove_host(self._host(call).host, call.caller.name)
        if refusal is not None:
            raise refused(refusal, call.caller)

    async def list_allocations(self, call: Call) -> Answer:
        _may_see_hosts(call, "oshosts:get_allocations")
        shown = [show_allocations(each, self._on(each.host, call)) for each in self._hosts()]
        return {"allocations": shown}

    async def get_allocation(self, call: Call) -> Answer:
        _may_see_hosts(call, "oshosts:get_allocations")
        host = self._host(call)
        return {"allocation": show_allocations(host, self._on(host.host, call))}

    async def list_properties(self, call: Call) -> Answer:
        flags = {name: read_flag(name, text) for name, text in call.query.items()}
        everything = flags.get("all", False)
        if everything:
            _may_see_hosts(call, "oshosts:get_resource_properties")
        is_private = self.keeper.book.is_private
        shown = show_properties(
            self._hosts(), is_private, detail=flags.get("detail", False), everything=everything
        )
        return {"resource_properties": shown}

    async def update_property(self, call: Call) -> Answer:
        _may_change_hosts(call, "oshosts:update_resource_properties")
        name, private = call.place["name"], read_private(call.body)
        refusal = await self.keeper.set_visibility(name, private, call.caller.name)
        if refusal is not None:
            raise refused(refusal, call.caller)
        return {"resource_property": show_property(name, private)}

    def _hosts(self) -> list[ReservableHost]:
        return sorted(self.keeper.book.hosts.values(), key=lambda each: each.number)

    def _host(self, call: Call) -> ReservableHost:
        given = call.place["id"]
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
        found = self.keeper.book.host_numbered(number)
        if found is None:
            raise not_found(host_id=given)
        return found

    def _on(self, host: HostId, call: Call) -> list[Occupancy]:
        lease, reservation = call.query.get("lease_id"), call.query.get("reservation_id")
        return [
            each
            for each in self.keeper.book.on_host(host)
            if lease in (None, each.lease.id) and reservation in (None, each.reservation.id)
        ]

    def _host_shown(self, done: ReservableHost | LeaseRefusal, caller: Caller) -> dict[str, object]:
        if isinstance(done, LeaseRefusal):
            raise refused(done, caller)
        return show_host(done, self._clock.wall_ns())


_FILTERS = ("lease_id", "reservation_id")
OPERATIONS: tuple[tuple[str, Operation], ...] = (
    ("/v1/leases", Operation("GET", BlazarApi.list_leases)),
    ("/v1/leases", Operation("POST", BlazarApi.create_lease, 201)),
    ("/v1/leases/{id}", Operation("GET", BlazarApi.get_lease)),
    ("/v1/leases/{id}", Operation("PUT", BlazarApi.update_lease)),
    ("/v1/leases/{id}", Operation("DELETE", BlazarApi.delete_lease, 204)),
    ("/v1/plugins", Operation("GET", BlazarApi.list_plugins)),
    ("/v1/os-hosts", Operation("GET", BlazarApi.list_hosts)),
    ("/v1/os-hosts", Operation("POST", BlazarApi.create_host, 201)),
    ("/v1/os-hosts/allocations", Operation("GET", BlazarApi.list_allocations, query=_FILTERS)),
    ("/v1/os-hosts/properties", Operation("GET", BlazarApi.list_properties, query=("all", "detail"))),
    ("/v1/os-hosts/properties/{name}", Operation("PATCH", BlazarApi.update_property)),
    ("/v1/os-hosts/{id}", Operation("GET", BlazarApi.get_host)),
    ("/v1/os-hosts/{id}", Operation("PUT", BlazarApi.update_host)),
    ("/v1/os-hosts/{id}", Operation("DELETE", BlazarApi.delete_host, 204)),
    ("/v1/os-hosts/{id}/allocation", Operation("GET", BlazarApi.get_allocation, query=_FILTERS)),
)
"""In the order in which a path is looked for: a fixed one before one with a variable."""


def _may_see_hosts(call: Call, action: str) -> None:
    if not call.caller.may_read(INFRASTRUCTURE):
        raise forbidden(action, f"it is for administrators and the project {INFRASTRUCTURE}")


def _may_change_hosts(call: Call, action: str) -> None:
    if not call.caller.may_write(INFRASTRUCTURE):
        raise forbidden(action, f"it is for administrators and operators of the project {INFRASTRUCTURE}")
