"""The API of silences: who may silence what, and what is refused."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.kernel.access import Role, Token, hash_token, insert_token
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.http import Callers, make_app
from homeostat.kernel.journal import Submission
from homeostat.notices.silences_api import SilencesApi, router
from homeostat.notices.store import end_silence
from homeostat.notices.subscriptions import Silences
from notices_parts import QUICK, World, world

CALLERS = {
    "admin": (Role.ADMIN, "infrastructure"),
    "shop": (Role.OPERATOR, "shop"),
    "bank": (Role.OPERATOR, "bank"),
    "view": (Role.VIEWER, "shop"),
    "hear": (Role.CONSUMER, "shop"),
    "sly": (Role.OPERATOR, "infrastructure"),
}


@dataclass
class Api:
    """Calls by the name of the caller."""

    client: httpx2.AsyncClient
    world: World
    silences: Silences

    async def __call__(self, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await self.client.request(
            method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {who}"}
        )
        return answer.status_code, answer.json() if answer.content else None


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with world(tmp_path) as here:
        rows = CALLERS.items()
        tokens = tuple(insert_token(Token(n, hash_token(n), role, owner, 1)) for n, (role, owner) in rows)
        await here.appender.append(Submission("test", changes=tokens))
        topology = Topology()
        topology.adopt(
            nodes=[Node(HostId("n1"), "b", "i", 0, AgentState.PRESENT, 1)],
            resources=[
                Resource(
                    ResourceId(name),
                    HostId("n1"),
                    ResourceKind.GUEST,
                    Owner(owner),
                    "ocf:x:y",
                    ResourceState.UP,
                    "",
                    1,
                    1,
                )
                for name, owner in (("web", "shop"), ("till", "bank"))
            ],
        )
        silences = Silences(here.readers, SystemClock(), {"n1": "rack-a"})
        app = make_app(Callers(here.readers, SystemClock()))
        app.include_router(router)
        settings = QUICK.model_copy(update={"silence_longest_s": 3600.0, "silences_max": 20})
        app.state.silences = SilencesApi(
            here.appender, here.readers, silences, lambda: topology, SystemClock(), settings
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Api(client, here, silences)


def wanted(**more: object) -> dict[str, object]:
    return {"reason": "new memory", "for_s": 60, **more}


async def test_it_is_made_read_and_ended_and_stays_readable(api: Api) -> None:
    status, made = await api("admin", "POST", "/silences", wanted(host="n1", kind="host_down"))
    assert (status, made["state"], made["scope"]) == (201, "active", "host n1, kind host_down")
    assert (made["by"], made["project"], made["kept_back"]) == ("admin", "infrastructure", 0)
    assert [row.id for row in api.silences.all()] == [made["id"]], "it counts from the answer on"
    assert (await api("admin", "GET", f"/silences/{made['id']}"))[1] == made
    assert [row["id"] for row in (await api("admin", "GET", "/silences"))[1]["items"]] == [made["id"]]
    assert (await api("admin", "DELETE", f"/silences/{made['id']}"))[0] == 204
    assert (await api("admin", "DELETE", f"/silences/{made['id']}"))[0] == 204, "again changes nothing"
    assert not api.silences.all()
    assert (await api("admin", "GET", "/silences"))[1]["items"] == []
    (over,) = (await api("admin", "GET", "/silences?all=true"))[1]["items"]
    assert (over["state"], over["ended_by"]) == ("over", "admin")
    events = await api.world.journal.read(0, 10)  # type: ignore[arg-type]
    assert [each.kind for each in events] == ["SilenceCreated", "SilenceEnded"]


async def test_one_whose_end_was_committed_without_an_answer_is_over_for_who_tries_again(api: Api) -> None:
    _, made = await api("admin", "POST", "/silences", wanted(host="n1"))
    unanswered = end_silence(made["id"], time.time_ns(), "admin")
    await api.world.appender.append(Submission("test", changes=(unanswered,)))
    assert api.silences.all(), "nobody has read the table since"
    assert (await api("admin", "DELETE", f"/silences/{made['id']}"))[0] == 204
    assert not api.silences.all()


@pytest.mark.seed("order owner rules of silences: only what is one's own, for one's own subscriptions")
async def test_a_project_silences_its_own_and_sees_its_own(api: Api) -> None:
    status, made = await api("shop", "POST", "/silences", wanted(resource="web"))
    assert (status, made["project"]) == (201, "shop")
    for body, words in (
        (wanted(resource="till"), "not yours"),
        (wanted(host="n1"), "only administrators"),
        (wanted(zone="rack-a"), "only administrators"),
        (wanted(owner="bank"), "shop only"),
        (wanted(kind="host_down", project="bank"), "shop only"),
    ):
        status, refused = await api("shop", "POST", "/silences", body)
        assert status == 403
        assert words in refused["error"]["message"]
    for who in ("view", "hear", "sly"):
        assert (await api(who, "POST", "/silences", wanted(kind="host_down")))[0] == 403
    for who in ("bank", "sly"):
        assert (await api(who, "GET", f"/silences/{made['id']}"))[0] == 404
        assert (await api(who, "DELETE", f"/silences/{made['id']}"))[0] == 404
        assert (await api(who, "GET", "/silences?all=true"))[1]["items"] == []
    for who in ("view", "hear"):
        assert (await api(who, "GET", f"/silences/{made['id']}"))[0] == 200
        assert (await api(who, "DELETE", f"/silences/{made['id']}"))[0] == 403
    assert (await api("shop", "DELETE", f"/silences/{made['id']}"))[0] == 204


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (wanted(host="n1", begins_at="2020-01-01T00:00:00Z"), "begins_at"),
        ({"reason": "x", "for_s": 60}, "scope"),
        ({"reason": "x", "host": "n1"}, "ends_at"),
        ({"reason": "x", "host": "n1", "for_s": 60, "ends_at": at(60)}, "ends_at"),
        ({"reason": "x", "host": "n1", "for_s": 3601}, "for_s"),
        ({"reason": "x", "host": "n1", "for_s": 0}, "for_s"),
        ({"reason": "x", "host": "n1", "ends_at": at(-1)}, "ends_at"),
        ({"reason": "x", "host": "n1", "ends_at": "9999-12-31T00:00:00Z"}, "ends_at"),
        ({"reason": "x", "host": "n1", "ends_at": "2026-11-21T00:00:00"}, "ends_at"),
        ({"reason": "x", "host": "n1", "for_s": 60, "begins_at": at(400 * 86400)}, "begins_at"),
        ({"reason": "", "host": "n1", "for_s": 60}, "reason"),
        ({"reason": "a\u0000b", "host": "n1", "for_s": 60}, "reason"),
        ({"host": "n1", "for_s": 60}, "reason"),
        ({"reason": "x", "host": "n9", "for_s": 60}, "host"),
        ({"reason": "x", "zone": "rack-z", "for_s": 60}, "zone"),
        ({"reason": "x", "resource": "nothing", "for_s": 60}, "resource"),
        ({"reason": "x", "kind": "bad_weather", "for_s": 60}, "kind"),
    ],
)
async def test_what_makes_no_sense_is_one_field(api: Api, body: dict[str, object], field: str) -> None:
    status, refused = await api("admin", "POST", "/silences", body)
    assert (status, refused["error"]["field"]) == (422, field)
    assert not api.silences.all()


async def test_one_may_be_planned_and_a_project_has_a_bound(api: Api) -> None:
    _, made = await api("admin", "POST", "/silences", wanted(host="n1", begins_at=at(600)))
    assert made["state"] == "planned"
    begins = datetime.fromisoformat(made["begins_at"]).timestamp()
    assert 590 < begins - time.time() < 610
    for _ in range(2):
        assert (await api("shop", "POST", "/silences", wanted(resource="web")))[0] == 201
    status, refused = await api("shop", "POST", "/silences", wanted(resource="web"))
    assert status == 403
    assert "notices.silences_max" in refused["error"]["message"]
