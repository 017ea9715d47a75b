"""Blazar's listener to test with: its application on a store, callers with tokens, requests as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from lease_parts import LeaseService, serving

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId
from homeostat.kernel.access import Role, Token, hash_token, insert_token
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import Submission
from homeostat.leases.blazar import blazar_app
from homeostat.leases.blazar_operations import BlazarApi
from homeostat.leases.model import ResourceType
from homeostat.leases.settings import LeasesSettings
from store_parts import Store

ROLES = {
    "root": (Role.ADMIN, INFRASTRUCTURE),
    "ops": (Role.OPERATOR, INFRASTRUCTURE),
    "anna": (Role.OPERATOR, "alpha"),
    "albert": (Role.VIEWER, "alpha"),
    "carl": (Role.CONSUMER, "alpha"),
    "bert": (Role.OPERATOR, "beta"),
}
"""Callers, by the names of their tokens; the token of `anna` is `hs_anna`."""

Answered = tuple[int, Any]


@dataclass(slots=True)
class Blazar:
    """The application, and the service behind it."""

    http: httpx2.AsyncClient
    service: LeaseService

    async def call(self, name: str, method: str, path: str, body: object = None, **more: Any) -> Answered:
        """Status and body of a request with the token of `name`, without one when that is empty."""
        headers = {"X-Auth-Token": f"hs_{name}"} if name else {}
        if body is not None:
            more["json"] = body
        answer = await self.http.request(method, path, headers=headers | more.pop("headers", {}), **more)
        return answer.status_code, answer.json() if answer.content else None

    async def refused(self, name: str, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and message of a request that must fail, in the form that clients read."""
        status, answer = await self.call(name, method, path, body)
        assert status >= 400, answer
        assert answer["error_code"] == answer["error_name"] == status
        return status, answer["error_message"]

    async def lease(self, by: str = "anna", **body: object) -> dict[str, Any]:
        """A lease that is created."""
        status, answer = await self.call(by, "POST", "/v1/leases", lease_body(**body))
        assert status == 201, answer
        return dict(answer["lease"])


@asynccontextmanager
async def blazar(
    store: Store,
    hosts: Iterable[int] = (1, 2, 3),
    settings: LeasesSettings | None = None,
    names: Mapping[str, tuple[str, str]] | None = None,
) -> AsyncIterator[Blazar]:
    """The application with these hosts. `names`: callers that are others than in ROLES."""
    async with serving(store, hosts, settings) as service:
        rows = [
            insert_token(Token(name, hash_token(f"hs_{name}"), Role(role), owner, 1))
            for name, (role, owner) in {**ROLES, **(names or {})}.items()
        ]
        await service.appender.append(Submission("test", changes=tuple(rows)))
        api = BlazarApi(service.keeper, service.clock, tuple(ResourceType))
        app = blazar_app(api, Callers(store.readers, service.clock))
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://blazar") as http:
            yield Blazar(http, service)


def host_body(**fields: object) -> dict[str, object]:
    """A reservation of a host, as `blazar lease-create --physical-reservation min=1,max=1` sends it."""
    return {
        "resource_type": "physical:host",
        "min": 1,
        "max": 1,
        "hypervisor_properties": "",
        "resource_properties": "",
    } | fields


def instance_body(**fields: object) -> dict[str, object]:
    """A reservation of a part of a host, as the client sends it."""
    return {
        "resource_type": "virtual:instance",
        "amount": 1,
        "vcpus": 1,
        "memory_mb": 512,
        "disk_gb": 1,
        "affinity": "None",
        "resource_properties": "",
    } | fields


def lease_body(**fields: object) -> dict[str, object]:
    """A lease of one host for two hours, an hour after the clock of these tests begins."""
    return {
        "name": "l",
        "start_date": "2026-09-21 15:00",
        "end_date": "2026-09-21 17:00",
        "before_end_date": None,
        "reservations": [host_body()],
        "events": [],
    } | fields


H1 = HostId("h1")
