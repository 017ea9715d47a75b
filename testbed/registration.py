"""Tells keystone of the other services: their users, their endpoints, and the domain of heat. Once a cloud.

May be repeated: what is there already is left alone.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from testbed.cloud import Cloud
from testbed.plan import REGION, Plan
from testbed.services import KEYSTONE, endpoints

_DEFAULT = "default"
_INTERFACES = ("public", "internal", "admin")
_SERVICE_ROLES = ("admin", "service")
_HEAT_ROLES = ("heat_stack_owner", "heat_stack_user")


def register(plan: Plan, cloud: Cloud) -> None:
    """Everything that `keystone-manage bootstrap` leaves out. Unanswered when keystone does."""
    registrar = _Registrar(cloud)
    project = registrar.one("project", name="service", domain_id=_DEFAULT)
    roles = {name: registrar.one("role", name=name) for name in (*_SERVICE_ROLES, *_HEAT_ROLES)}
    password = plan.secrets.password
    for api, url in endpoints(plan):
        if api is KEYSTONE:
            continue
        user = registrar.one("user", name=api.project, domain_id=_DEFAULT, password=password)
        for role in _SERVICE_ROLES:
            registrar.grant(f"projects/{project}/users/{user}/roles/{roles[role]}")
        service = registrar.one("service", name=api.project, type=api.kind)
        for interface in _INTERFACES:
            about = {"service_id": service, "interface": interface, "region_id": REGION}
            registrar.one("endpoint", **about, url=url)
    domain = registrar.one("domain", name="heat")
    admin = registrar.one("user", name="heat_domain_admin", domain_id=domain, password=password)
    registrar.grant(f"domains/{domain}/users/{admin}/roles/{roles['admin']}")


class _Registrar:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def one(self, kind: str, **fields: str) -> str:
        """The id of the only one with these fields; made when there is none."""
        secret_or_value = {"password", "url"}
        asked = urlencode({name: value for name, value in fields.items() if name not in secret_or_value})
        found: list[dict[str, Any]] = self._cloud.call("GET", KEYSTONE.port, f"/v3/{kind}s?{asked}")[
            f"{kind}s"
        ]
        if not found:
            made = self._cloud.call("POST", KEYSTONE.port, f"/v3/{kind}s", {kind: fields})
            return str(made[kind]["id"])
        return str(found[0]["id"])

    def grant(self, path: str) -> None:
        self._cloud.call("PUT", KEYSTONE.port, f"/v3/{path}")
