"""Several endpoints of one subscription: what each is called, and that none stands in another's way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import NewEvent, Submission
from homeostat.notices import store
from homeostat.notices.model import Endpoint, NoticeFormat, NoticeState, Subscription
from homeostat.notices.subscriptions import SubscriptionChange, numbered_endpoints
from notices_parts import World, consumer, dead_url, picture, subscription, until, world

JSON = NoticeFormat.JSON


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def cleared(fault: str = "f-1"):  # type: ignore[no-untyped-def]
    return picture(fault, cleared_ns=1_700_000_001_000_000_000, cleared_reason="it is up")


def at(*urls: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(number, url) for number, url in enumerate(urls, 1))


@pytest.mark.parametrize(
    ("there", "wanted", "last", "numbers"),
    [
        ([], ["a"], 0, [1]),
        ([], ["a", "b"], 0, [1, 2]),
        ([], ["a"], 2, [3]),
        ([(1, "a")], ["b"], 1, [1]),
        ([(1, "a"), (2, "b")], ["b"], 2, [2]),
        ([(1, "a"), (2, "b")], ["b", "a"], 2, [2, 1]),
        ([(2, "b")], ["b", "c"], 2, [2, 3]),
        ([(1, "a"), (2, "b")], ["a", "c"], 2, [1, 2]),
        ([(1, "a"), (2, "b")], ["b", "c"], 2, [2, 3]),
        ([(1, "")], ["a"], 1, [2]),
        ([(1, "a")], [], 1, [2]),
        ([(1, "")], [], 1, [1]),
    ],
)
def test_who_keeps_a_number(
    there: list[tuple[int, str]], wanted: list[str], last: int, numbers: list[int]
) -> None:
    made = numbered_endpoints([Endpoint(n, url) for n, url in there], [(url, JSON) for url in wanted], last)
    assert [each.number for each in made] == numbers
    assert [each.url for each in made] == (wanted or [""])


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), min_size=1, max_size=8))
def test_an_address_that_stays_keeps_its_number_and_none_is_shared(steps: list[list[str]]) -> None:
    there: tuple[Endpoint, ...] = ()
    last = 0
    for wanted in steps:
        made = numbered_endpoints(there, [(url, JSON) for url in wanted], last)
        before = {each.url: each.number for each in there}
        assert len({each.number for each in made}) == len(made)
        assert all(before[each.url] == each.number for each in made if each.url in before)
        taken = {each.number for each in there} | {each.number for each in made}
        assert all(each.number <= last + len(wanted) + 1 or each.number in before.values() for each in made)
        there, last = made, max(last, *taken)


@pytest.mark.seed("002 several endpoints per subscription")
async def test_every_endpoint_is_told_in_its_own_format_with_its_own_key(here: World) -> None:
    async with consumer() as one, consumer() as two, here.delivering() as delivery:
        endpoints = (Endpoint(1, one.url), Endpoint(2, two.url, NoticeFormat.DOCTOR))
        await here.subscribe(subscription(endpoints=endpoints))
        await here.tell(delivery, picture())
        await here.tell(delivery, cleared())
        rows = await here.until_none_pending()
    assert one.keys == ["s:f-1:raised", "s:f-1:cleared"]
    assert two.keys == ["s/2:f-1:raised", "s/2:f-1:cleared"]
    assert orjson.loads(one.heard[0].body)["notice"] == "s:f-1:raised"
    assert orjson.loads(two.heard[0].body)["current"] == "alarm"
    assert {(row.destination, row.state) for row in rows.values()} == {
        ("s", NoticeState.DELIVERED),
        ("s/2", NoticeState.DELIVERED),
    }


async def test_a_dead_endpoint_has_its_own_circuit_breaker(here: World) -> None:
    settings = here.settings.model_copy(update={"waiting_per_subscription": 4, "longest_wait_s": 30.0})
    async with consumer() as living, here.delivering(settings=settings) as delivery:
        await here.subscribe(subscription(endpoints=at(dead_url(), living.url)))
        faults = [picture(f"f-{index}") for index in range(40)]
        await here.tell(delivery, *faults)
        await until(lambda: len(living.heard) == 40)
        assert delivery.figures().suspects == ("s",)
    assert sorted(living.keys) == sorted(f"s/2:{each.id}:raised" for each in faults)
    states = {row.state for row in (await here.rows()).values() if row.endpoint == 1}
    assert states == {NoticeState.PENDING}


async def test_what_waits_for_a_removed_endpoint_is_given_up_and_the_others_go_on(here: World) -> None:
    async with consumer() as living, here.delivering() as delivery:
        both = subscription(endpoints=at(dead_url(), living.url))
        await here.subscribe(both)
        await here.tell(delivery, picture())
        await until(lambda: len(living.heard) == 1 and delivery.figures().suspects == ("s",))
        await write(here, replace(both, endpoints=both.endpoints[1:]))
        delivery.release("s")
        await here.tell(delivery, cleared())
        rows = await here.until_none_pending()
    assert rows["s:f-1:raised"].reason == "the endpoint was removed from its subscription"
    assert set(rows) == {"s:f-1:raised", "s/2:f-1:raised", "s/2:f-1:cleared"}
    assert living.keys == ["s/2:f-1:raised", "s/2:f-1:cleared"]


async def test_what_waits_for_an_expired_subscription_is_given_up_with_that_reason(here: World) -> None:
    async with here.delivering() as delivery:
        row = subscription(url=dead_url())
        await here.subscribe(row)
        await here.tell(delivery, picture())
        await until(lambda: delivery.figures().suspects == ("s",))
        await write(here, replace(row, expires_ns=SystemClock().wall_ns()))
        delivery.release("s")
        await here.tell(delivery, picture("f-2"))
        rows = await here.until_none_pending()
    assert {key: row.reason for key, row in rows.items()} == {"s:f-1:raised": "the subscription has expired"}


async def test_a_subscription_without_url_keeps_its_notices_and_nothing_waits(here: World) -> None:
    async with here.delivering() as delivery:
        await here.subscribe(subscription(endpoints=(Endpoint(1, ""),)))
        told = await here.tell(delivery, picture())
        assert delivery.figures().waiting == 0
    rows = await here.rows()
    assert [each.key for each in told] == list(rows)
    assert rows["s:f-1:raised"].state is NoticeState.KEPT
    assert "stream" in rows["s:f-1:raised"].reason


async def test_after_a_restart_each_endpoint_gets_what_it_did_not_get(here: World) -> None:
    broken = [True]

    async def behave(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=500 if broken[0] else 200)

    async with consumer() as well, consumer(behave) as ill:
        await here.subscribe(subscription(endpoints=at(well.url, ill.url)))
        async with here.delivering() as delivery:
            await here.tell(delivery, picture())
            await until(lambda: len(well.heard) == 1 and len(ill.heard) >= 1)
        broken[0] = False
        async with here.delivering():
            await here.until_none_pending()
    assert well.keys == ["s:f-1:raised"]
    assert set(ill.keys) == {"s/2:f-1:raised"}
    assert len({each.body for each in ill.heard}) == 1


async def write(here: World, row: Subscription) -> None:
    """Change a subscription as the API does."""
    event = SubscriptionCreated(row.name, row.owner, "")
    draft = NewEvent(event, f"subscription/{row.name}", SystemClock().wall_ns(), "test", "t-write")
    await here.enrol(SubscriptionChange(row.name, row, draft, store.replace_subscription(row)))


async def test_a_taken_name_begins_behind_the_numbers_of_the_one_before(here: World) -> None:
    await here.subscribe(subscription(endpoints=at("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")))
    await here.tell(None, picture())
    await here.appender.append(Submission("test", changes=(store.remove_subscription("s"),)))
    assert await here.readers.read(lambda conn: store.last_number(conn, "s")) == 2
    assert await here.readers.read(lambda conn: store.last_number(conn, "t")) == 0
