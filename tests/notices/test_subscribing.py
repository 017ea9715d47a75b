"""The API of subscriptions: endpoints, expiry, what is answered at once, and the test of a subscription."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from test_notices_api import URL, Api, api, lookup  # noqa: F401 - fixtures

from homeostat.notices.model import NoticeFormat
from notices_parts import consumer, dead_url, picture

TWO = [{"url": f"{URL}/a"}, {"url": f"{URL}/b", "format": "doctor"}]


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_several_endpoints_and_the_short_form(api: Api) -> None:  # noqa: F811
    status, made = await api("shop", "POST", "/subscriptions", {"name": "many", "endpoints": TWO})
    assert status == 201
    assert made["endpoints"] == [
        {"number": 1, "url": f"{URL}/a", "format": "json"},
        {"number": 2, "url": f"{URL}/b", "format": "doctor"},
    ]
    assert made["url"] == f"{URL}/a"
    _, short = await api("shop", "POST", "/subscriptions", {"name": "one", "url": URL})
    assert short["endpoints"] == [{"number": 1, "url": URL, "format": "json"}]
    _, moved = await api("shop", "PUT", "/subscriptions/many", {"endpoints": TWO[1:]})
    assert [(each["number"], each["url"]) for each in moved["endpoints"]] == [(2, f"{URL}/b")]
    _, none = await api("shop", "POST", "/subscriptions", {"name": "silent"})
    assert (none["endpoints"], none["url"]) == ([], None)
    (event,) = await api.world.journal.read(0, 1)  # type: ignore[arg-type]
    assert event.payload["url"] == "http://127.0.0.1:9999", "paths stay out of the journal"


async def test_expiry_is_shown_taken_away_and_extended(api: Api) -> None:  # noqa: F811
    body = {"url": URL, "expires_at": ahead(3600)}
    _, made = await api("shop", "PUT", "/subscriptions/s", body)
    assert made["expired"] is False and made["expires_at"].endswith("Z")
    _, past = await api("shop", "PUT", "/subscriptions/s", {"url": URL, "expires_at": ahead(-1)})
    assert past["expired"] is True
    await api.world.tell(None, picture("f-1"))
    assert await api.world.rows() == {}
    _, longer = await api("shop", "PUT", "/subscriptions/s", body)
    assert longer["expired"] is False
    await api.world.tell(None, picture("f-2"))
    assert list(await api.world.rows()) == ["s:f-2:raised"]
    _, for_ever = await api("shop", "PUT", "/subscriptions/s", {"url": URL})
    assert for_ever["expires_at"] is None
    assert (await api("shop", "GET", "/subscriptions"))[1]["items"][0]["expired"] is False


@pytest.mark.seed("002 SubscribeResponse: SubscriptionID, VirtualResourceInfo[0..*]")
async def test_the_answer_says_what_is_wrong_now_of_what_may_be_heard(api: Api) -> None:  # noqa: F811
    api.world.open = [picture("f-1"), picture("f-2", "bank"), picture("f-3")]
    _, made = await api("shop", "POST", "/subscriptions", {"name": "s", "url": URL})
    assert [each["notice"] for each in made["current"]] == ["s:f-3:raised", "s:f-1:raised"]
    assert made["current_count"] == 2
    rows = await api.world.rows()
    assert sorted(rows) == ["s:f-1:raised", "s:f-3:raised"]
    assert made["seq"] == max(row.queued_seq for row in rows.values())  # type: ignore[type-var]
    _, again = await api("shop", "PUT", "/subscriptions/s", {"url": URL})
    assert (again["current"], again["seq"], again["current_count"]) == (None, None, None)
    _, wider = await api("shop", "PUT", "/subscriptions/s", {"url": URL, "kinds": ["resource_down"]})
    assert wider["current_count"] == 2 and len(await api.world.rows()) == 2, "nobody is told twice"
    _, bank = await api("bank", "POST", "/subscriptions", {"name": "b", "minimum_severity": "critical"})
    assert (bank["current"], bank["current_count"]) == ([], 0)


async def test_a_name_taken_again_gets_new_numbers_and_hears_what_is_open(api: Api) -> None:  # noqa: F811
    api.world.open = [picture("f-1")]
    await api("shop", "POST", "/subscriptions", {"name": "s", "url": URL})
    await api("shop", "DELETE", "/subscriptions/s")
    _, made = await api("shop", "POST", "/subscriptions", {"name": "s", "url": URL})
    assert made["endpoints"][0]["number"] == 2
    assert sorted(await api.world.rows()) == ["s/2:f-1:raised", "s:f-1:raised"]


async def test_trying_out_asks_every_endpoint_and_says_what_it_answered(api: Api) -> None:  # noqa: F811
    async with consumer() as one, consumer() as two:
        endpoints = [
            {"url": one.url},
            {"url": two.url, "format": "alertmanager"},
            {"url": dead_url(), "format": "doctor"},
        ]
        await api("shop", "POST", "/subscriptions", {"name": "s", "endpoints": endpoints})
        status, tried = await api("hear", "POST", "/subscriptions/s/test")
    assert status == 200
    assert [(each["endpoint"], each["status"], each["accepted"]) for each in tried["items"]] == [
        (1, 200, True),
        (2, 200, True),
        (3, None, False),
    ]
    assert tried["items"][2]["detail"].startswith("no answer: ")
    assert orjson.loads(one.heard[0].body)["transition"] == "test"
    assert orjson.loads(two.heard[0].body)["commonLabels"]["alertname"] == "test"
    assert two.keys[0].startswith("s/2:t-")
    assert await api.world.rows() == {}, "it is no notice"


@pytest.mark.parametrize(("who", "status"), [("view", 403), ("bank", 404), ("sly", 404), ("nobody", 401)])
async def test_who_may_not_try_it_out(api: Api, who: str, status: int) -> None:  # noqa: F811
    await api("shop", "POST", "/subscriptions", {"name": "s"})
    assert (await api(who, "POST", "/subscriptions/s/test"))[0] == status


async def test_a_stream_refuses_what_makes_no_sense(api: Api) -> None:  # noqa: F811
    refused: dict[str, Any] = {}
    for name, query in (("since", "?since=x"), ("before", "?since=-1"), ("name", "?subscription=A%20b")):
        refused[name] = (await api("shop", "GET", f"/notices/stream{query}"))[0]
    assert set(refused.values()) == {422}
    assert (await api("shop", "GET", "/notices/stream?subscription=none"))[0] == 404
    assert (await api("sly", "GET", "/notices/stream"))[0] == 403
    assert {each.value for each in NoticeFormat} == {"json", "doctor", "alertmanager"}
