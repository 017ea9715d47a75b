"""The API of notices: who may do what, what is never told, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from homeostat.kernel.access import Role, Token, hash_token, insert_token
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.http import Callers, make_app
from homeostat.kernel.journal import Submission
from homeostat.notices import api as notices_api
from homeostat.notices import subscriptions_api
from homeostat.notices.api import NoticeStreams
from homeostat.notices.subscriptions_api import NoticesApi
from homeostat.notices.targets import AddressGuard, make_guard
from homeostat.notices.webhook import SystemLookup, TargetCheck, WebhookTransport
from notices_parts import LOOPBACK, QUICK, World, picture, world

SECRET = "a-secret-of-mine-0123"
URL = "http://127.0.0.1:9999/hear/token-in-path"
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
    released: list[str] = field(default_factory=list)

    async def __call__(self, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await self.client.request(
            method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {who}"}
        )
        return answer.status_code, answer.json() if answer.content else None


@pytest.fixture
def lookup() -> Iterator[SystemLookup]:
    made = SystemLookup()
    yield made
    made.close()


@pytest.fixture
async def api(tmp_path: Path, lookup: SystemLookup) -> AsyncIterator[Api]:
    async with world(tmp_path) as here:
        tokens = tuple(
            insert_token(Token(name, hash_token(name), role, owner, 1))
            for name, (role, owner) in CALLERS.items()
        )
        await here.appender.append(Submission("test", changes=tokens))
        app = make_app(Callers(here.readers, SystemClock()))
        app.include_router(subscriptions_api.router)
        app.include_router(notices_api.router)
        released: list[str] = []
        transport = WebhookTransport(make_guard(LOOPBACK, ()), lookup, QUICK)
        app.state.notices = NoticesApi(
            enrol=here.enrol,
            readers=here.readers,
            subscriptions=here.subscriptions,
            check=TargetCheck(AddressGuard(LOOPBACK), lookup, 2.0),
            transport=transport,
            release=released.append,
            clock=SystemClock(),
            settings=QUICK.model_copy(update={"subscriptions_per_project": 3, "subscriptions_max": 5}),
        )
        app.state.notice_streams = NoticeStreams(here.readers, here.recall, QUICK)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://test"
        ) as client:
            yield Api(client, here, released)
        await transport.close()


async def names(api: Api, who: str) -> list[str]:
    status, body = await api(who, "GET", "/subscriptions")
    assert status == 200
    return [each["name"] for each in body["items"]]


async def test_a_secret_is_made_and_shown_once(api: Api) -> None:
    status, made = await api("shop", "POST", "/subscriptions", {"name": "mine", "url": URL})
    assert status == 201 and len(made["secret"]) >= 32
    assert (made["project"], made["key_id"], made["kinds"]) == ("shop", "default", [])
    for path in ("/subscriptions", "/subscriptions/mine"):
        _, read = await api("shop", "GET", path)
        assert made["secret"] not in str(read)
    row = api.world.subscriptions.find("mine")
    assert row is not None and row.secret == made["secret"]


async def test_a_given_secret_is_never_shown_and_never_in_the_journal(api: Api) -> None:
    body = {"url": URL, "secret": SECRET, "key_id": "k7", "minimum_severity": "major"}
    status, made = await api("shop", "PUT", "/subscriptions/mine", body)
    assert (status, made["secret"], made["key_id"]) == (201, None, "k7")
    (event,) = await api.world.journal.read(0, 10)  # type: ignore[arg-type]
    assert (event.kind, event.subject, event.origin) == (
        "SubscriptionCreated",
        "subscription/mine",
        "api/shop",
    )
    assert event.payload == {"subscription": "mine", "owner": "shop", "url": "http://127.0.0.1:9999"}


async def test_put_makes_changes_and_repeats(api: Api) -> None:
    body = {"url": URL, "secret": SECRET}
    assert (await api("shop", "PUT", "/subscriptions/mine", body))[0] == 201
    assert (await api("shop", "PUT", "/subscriptions/mine", body))[0] == 200
    assert len(await api.world.journal.read(0, 10)) == 1  # type: ignore[arg-type]
    status, changed = await api("shop", "PUT", "/subscriptions/mine", {"url": URL, "kinds": ["agent_lost"]})
    assert (status, changed["kinds"], changed["secret"]) == (200, ["agent_lost"], None)
    row = api.world.subscriptions.find("mine")
    assert row is not None and (row.secret, row.key_id) == (SECRET, "default")
    assert api.released == ["mine"]
    status, refused = await api("admin", "PUT", "/subscriptions/mine", {"url": URL, "project": "bank"})
    assert (status, refused["error"]["field"]) == (422, "project")


async def test_a_taken_name_is_a_conflict_and_a_race_makes_one(api: Api) -> None:
    answers = await asyncio.gather(
        *(api(who, "POST", "/subscriptions", {"name": "one", "url": URL}) for who in ("shop", "bank", "hear"))
    )
    assert sorted(status for status, _ in answers) == [201, 409, 409]
    status, body = await api("bank", "POST", "/subscriptions", {"name": "one", "url": URL})
    assert (status, body["error"]["type"], body["error"]["field"]) == (409, "conflict", "name")
    assert "shop" not in str(body)


async def test_remove(api: Api) -> None:
    await api("shop", "PUT", "/subscriptions/mine", {"url": URL})
    assert await api("shop", "DELETE", "/subscriptions/mine") == (204, None)
    assert (await api("shop", "DELETE", "/subscriptions/mine"))[0] == 404
    assert (await api("shop", "GET", "/subscriptions/mine"))[0] == 404
    events = await api.world.journal.read(0, 10)  # type: ignore[arg-type]
    assert [each.kind for each in events] == ["SubscriptionCreated", "SubscriptionRemoved"]
    assert api.released == ["mine"]


@pytest.mark.parametrize(
    ("who", "project", "status"),
    [
        ("admin", "shop", 201),
        ("admin", "infrastructure", 201),
        ("admin", None, 201),
        ("shop", "shop", 201),
        ("shop", None, 201),
        ("shop", "bank", 403),
        ("shop", "infrastructure", 403),
        ("hear", "shop", 201),
        ("hear", "infrastructure", 403),
        ("view", "shop", 403),
        ("view", None, 403),
        ("sly", None, 403),
        ("sly", "infrastructure", 403),
        ("nobody", "shop", 401),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_who_may_subscribe_for_whom(
    api: Api, method: str, who: str, project: str | None, status: int
) -> None:
    body = {"url": URL, **({} if project is None else {"project": project})}
    if method == "POST":
        got, _ = await api(who, "POST", "/subscriptions", {**body, "name": "new"})
    else:
        got, _ = await api(who, "PUT", "/subscriptions/new", body)
    assert got == status
    assert (api.world.subscriptions.find("new") is not None) == (status == 201)


async def test_what_is_not_yours_is_not_there(api: Api) -> None:
    await api("admin", "PUT", "/subscriptions/ops", {"url": URL, "project": "infrastructure"})
    await api("shop", "PUT", "/subscriptions/of-shop", {"url": URL})
    await api("bank", "PUT", "/subscriptions/of-bank", {"url": URL})
    assert await names(api, "admin") == ["of-bank", "of-shop", "ops"]
    assert await names(api, "view") == await names(api, "hear") == await names(api, "shop") == ["of-shop"]
    assert await names(api, "sly") == []
    for who, name in (("shop", "of-bank"), ("hear", "ops"), ("sly", "ops"), ("bank", "of-shop")):
        missing = await api(who, "GET", "/subscriptions/none")
        for method, body in (("GET", None), ("PUT", {"url": URL}), ("DELETE", None)):
            status, answer = await api(who, method, f"/subscriptions/{name}", body)
            assert status == 404
            expected = missing[1]["error"]["message"].replace("subscription none,", f"subscription {name},")
            assert answer["error"]["message"] == expected
    assert (await api("view", "DELETE", "/subscriptions/of-shop"))[0] == 403
    assert (await api("view", "PUT", "/subscriptions/of-shop", {"url": URL}))[0] == 403
    assert await names(api, "admin") == ["of-bank", "of-shop", "ops"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "http://93.184.216.34/"}, "url"),
        ({"url": "http://user:hunter2@127.0.0.1/"}, "url"),
        ({"url": "ftp://127.0.0.1/"}, "url"),
        ({"url": "http://2130706433/"}, "url"),
        ({"url": "http://no-such-host.invalid/"}, "url"),
        ({"url": ""}, "url"),
        ({"endpoints": [{"url": URL}]}, "url"),
        ({"url": None, "endpoints": [{"url": URL}, {"url": URL}]}, "endpoints.1.url"),
        ({"url": None, "endpoints": [{"url": URL, "format": "xml"}]}, "endpoints.0.format"),
        ({"url": None, "endpoints": [{"url": "http://10.0.0.1/"}]}, "url"),
        ({"url": None, "endpoints": [{"url": f"{URL}/{n}"} for n in range(9)]}, "endpoints"),
        ({"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2300-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"secret": "short"}, "secret"),
        ({"secret": "with\nnewline-0123456789"}, "secret"),
        ({"key_id": "a,b"}, "key_id"),
        ({"kinds": ["everything"]}, "kinds.0"),
        ({"kinds": "agent_lost"}, "kinds"),
        ({"resources": ["a b"]}, "resources.0"),
        ({"minimum_severity": "loud"}, "minimum_severity"),
        ({"project": "a b"}, "project"),
        ({"colour": "red"}, "colour"),
        ({"owner": "bank"}, "owner"),
    ],
)
async def test_bad_input_is_one_line_and_changes_nothing(
    api: Api, change: dict[str, Any], field: str
) -> None:
    status, body = await api("shop", "PUT", "/subscriptions/mine", {"url": URL, **change})
    assert (status, body["error"]["type"], body["error"]["field"]) == (422, "bad_input", field)
    assert "\n" not in body["error"]["message"] and "hunter2" not in str(body)
    assert await names(api, "admin") == []
    assert await api.world.journal.read(0, 10) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Upper", "a_b", "a" * 64, "a:b", "%00", "a%2fb"])
async def test_bad_names(api: Api, name: str) -> None:
    assert (await api("shop", "PUT", f"/subscriptions/{name}", {"url": URL}))[0] in (404, 422)
    assert await names(api, "admin") == []


async def test_there_is_a_bound_for_a_project_and_for_all(api: Api) -> None:
    for index in range(3):
        assert (await api("shop", "PUT", f"/subscriptions/s{index}", {"url": URL}))[0] == 201
    status, body = await api("shop", "PUT", "/subscriptions/s3", {"url": URL})
    assert status == 403 and "subscriptions_per_project" in body["error"]["message"]
    for index in range(2):
        assert (await api("bank", "PUT", f"/subscriptions/b{index}", {"url": URL}))[0] == 201
    status, body = await api("bank", "PUT", "/subscriptions/b2", {"url": URL})
    assert status == 403 and "subscriptions_max" in body["error"]["message"]
    assert (await api("shop", "PUT", "/subscriptions/s0", {"url": URL, "kinds": ["agent_lost"]}))[0] == 200


async def test_notices_are_listed_for_their_owner(api: Api) -> None:
    for who, name in (("shop", "of-shop"), ("bank", "of-bank"), ("admin", "ops")):
        await api(who, "PUT", f"/subscriptions/{name}", {"url": URL})
    await api.world.tell(None, picture("f-1", "shop"), picture("f-2", "bank"))
    keys = {}
    for who in ("admin", "shop", "view", "hear", "bank", "sly"):
        status, body = await api(who, "GET", "/notices?state=pending")
        assert status == 200
        keys[who] = sorted(each["key"] for each in body["items"])
    assert keys["shop"] == keys["view"] == keys["hear"] == ["of-shop:f-1:raised"]
    assert keys["bank"] == ["of-bank:f-2:raised"]
    assert keys["admin"] == sorted(
        ["of-shop:f-1:raised", "of-bank:f-2:raised", "ops:f-1:raised", "ops:f-2:raised"]
    )
    assert keys["sly"] == []
    assert (await api("admin", "GET", "/notices?state=delivered"))[1] == {"items": [], "next": None}
    assert (await api("shop", "GET", "/notices?state=lost"))[0] == 422


async def test_notices_come_in_pages_newest_first(api: Api) -> None:
    await api("shop", "PUT", "/subscriptions/s", {"url": URL})
    await api.world.tell(None, *(picture(f"f-{index}") for index in range(5)))
    found, before = [], ""
    for _ in range(4):
        _, body = await api("shop", "GET", f"/notices?limit=2{before}")
        found += [each["fault"] for each in body["items"]]
        if body["next"] is None:
            break
        before = f"&before={body['next']}"
    assert found == ["f-4", "f-3", "f-2", "f-1", "f-0"]


async def test_how_notices_are_grouped_is_written_read_and_bounded(api: Api) -> None:
    body = {"url": URL, "group_by": "host", "group_wait_ms": 500}
    status, made = await api("shop", "PUT", "/subscriptions/mine", body)
    assert (status, made["group_by"], made["group_wait_ms"]) == (201, "host", 500)
    await api.world.subscriptions.reload()
    read = (await api("shop", "GET", "/subscriptions/mine"))[1]
    assert (read["group_by"], read["group_wait_ms"]) == ("host", 500)
    for more in ({"group_by": "none", "group_wait_ms": 1}, {"group_by": "kind", "group_wait_ms": 60_001}):
        status, refused = await api("shop", "PUT", "/subscriptions/mine", {"url": URL, **more})
        assert (status, refused["error"]["field"]) == (422, "group_wait_ms")
