"""A caller that may only observe: every route of the real API that changes something refuses him."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from homeostat.contracts.health import ServerHealth
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.http import Callers
from homeostat.kernel.listeners import WithoutCredentials
from homeostat.server.http_api import ApiParts, assemble
from homeostat.server.status import StatusSources
from store_parts import Store


@pytest.mark.parametrize("role", Role)
def test_whatever_its_role_it_reads_and_changes_nothing(role: Role) -> None:
    caller = Caller("listener/doctor", role, "p", observes_only=True)
    assert not caller.may_read("p")
    assert not caller.may_write("p")


def test_every_route_of_the_api_refuses_it(store: Store) -> None:
    overview = StatusSources((), ServerHealth)
    app = assemble(ApiParts(overview, Callers(store.readers, SystemClock()), 1024 * 1024, {}))
    client = TestClient(WithoutCredentials(app, "doctor"), raise_server_exceptions=False)
    answers: dict[str, int] = {}
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            if path.startswith("/api/"):
                answer = client.request(
                    method, re.sub(r"\{\w+\}", "x1", path), headers={"Authorization": "Bearer hs_x"}
                )
                answers[f"{method} {path}"] = answer.status_code
    writes = [each for each in answers if not each.startswith("get")]
    assert len(writes) > 10
    assert {each: status for each, status in answers.items() if status != 403} == {}
