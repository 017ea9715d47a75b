"""Asking for faults: Doctor's FaultQueryFilter, on both engines, and nothing that is somebody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from homeostat.components import catalogue, journal_view
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultId, FaultKind, Owner, ResourceId, Severity
from homeostat.faults.api import FaultsApi, router
from homeostat.faults.store import FaultQuery, fault_raised, load_latest
from homeostat.kernel.access import Role, Token, hash_token, insert_token
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.http import Callers, make_app
from homeostat.kernel.journal import Journal, Seq, Submission
from homeostat.notices.subscriptions import Subscriptions
from store_parts import Store

SECOND = 10**9
PLAIN = Fault(
    id=FaultId("f-1"),
    kind=FaultKind.RESOURCE_DOWN,
    severity=Severity.MAJOR,
    about="resource/web_1",
    owner=Owner("blue"),
    reason="it died",
    state=FaultState.OPEN,
    raised_seq=Seq(1),
    trace="t",
    raised_ns=100 * SECOND,
    raised_mono_ns=None,
)
HOST = replace(
    PLAIN,
    id=FaultId("f-2"),
    kind=FaultKind.HOST_DOWN,
    severity=Severity.CRITICAL,
    about="node/n1",
    owner=Owner("infrastructure"),
    raised_seq=Seq(2),
    raised_ns=200 * SECOND,
    affected='{"guest":{"blue":["g1"],"green":["g2","web%1"]}}',
)
LATE = replace(
    PLAIN,
    id=FaultId("f-3"),
    severity=Severity.WARNING,
    about="resource/webx1",
    state=FaultState.CLEARED,
    raised_seq=Seq(3),
    raised_ns=300 * SECOND,
    cleared_ns=301 * SECOND,
)
FAULTS = (PLAIN, HOST, LATE)


async def write(store: Store, *more: Any) -> None:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    try:
        await appender.append(Submission("test", changes=(*map(fault_raised, FAULTS), *more)))
    finally:
        await appender.close()


@pytest.mark.seed("002 FaultQueryFilter: type, resource, minimum severity, start and end time")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (FaultQuery(), ["f-3", "f-2", "f-1"]),
        (FaultQuery(kinds=(FaultKind.HOST_DOWN,)), ["f-2"]),
        (FaultQuery(kinds=(FaultKind.HOST_DOWN, FaultKind.RESOURCE_DOWN)), ["f-3", "f-2", "f-1"]),
        (FaultQuery(resource=ResourceId("web_1")), ["f-1"]),
        (FaultQuery(resource=ResourceId("g1")), ["f-2"]),
        (FaultQuery(resource=ResourceId("web%1")), ["f-2"]),
        (FaultQuery(resource=ResourceId("g")), []),
        (FaultQuery(minimum_severity=Severity.CRITICAL), ["f-2"]),
        (FaultQuery(minimum_severity=Severity.MAJOR), ["f-2", "f-1"]),
        (FaultQuery(minimum_severity=Severity.WARNING), ["f-3", "f-2", "f-1"]),
        (FaultQuery(from_ns=200 * SECOND), ["f-3", "f-2"]),
        (FaultQuery(until_ns=200 * SECOND), ["f-1"]),
        (FaultQuery(from_ns=100 * SECOND, until_ns=300 * SECOND), ["f-2", "f-1"]),
        (FaultQuery(state=FaultState.CLEARED), ["f-3"]),
        (FaultQuery(owner=Owner("green")), ["f-2"]),
        (FaultQuery(owner=Owner("blue"), minimum_severity=Severity.MAJOR, from_ns=150 * SECOND), ["f-2"]),
    ],
)
async def test_each_filter(store: Store, wanted: FaultQuery, found: list[str]) -> None:
    await write(store)
    faults = await store.readers.read(lambda conn: load_latest(conn, wanted, 100))
    assert [each.id for each in faults] == found
    newest = await store.readers.read(lambda conn: load_latest(conn, wanted, 1))
    assert [each.id for each in newest] == found[:1]


Ask = Callable[..., Awaitable[tuple[int, list[str]]]]


@asynccontextmanager
async def asking(store: Store, *more: Any) -> AsyncIterator[Ask]:
    """Ask as a project, or as root, with the fields of a query; the code of the answer and the faults."""
    tokens = [
        insert_token(Token(owner, hash_token(owner), role, owner, 1))
        for owner, role in (("blue", Role.VIEWER), ("green", Role.CONSUMER), ("root", Role.ADMIN))
    ]
    await write(store, *tokens, *more)
    app = make_app(Callers(store.readers, SystemClock()))
    app.include_router(router)
    app.state.faults = FaultsApi(
        store.readers, Journal(store.readers, catalogue()), Subscriptions(store.readers), journal_view()
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:

        async def ask(who: str, **query: Any) -> tuple[int, list[str]]:
            answer = await client.get(
                "/api/v1/faults", params=query, headers={"Authorization": f"Bearer {who}"}
            )
            return answer.status_code, [each["id"] for each in answer.json().get("items", [])]

        yield ask


async def test_over_http_nobody_finds_a_fault_by_what_is_not_theirs(store: Store) -> None:
    async with asking(store) as ask:
        assert await ask("blue", resource="g1") == (200, ["f-2"])
        assert await ask("blue", resource="g2") == (200, [])
        assert await ask("green", resource="g2") == (200, ["f-2"])
        assert await ask("root", resource="g2") == (200, ["f-2"])
        assert await ask("blue", kind=["host_down", "resource_down"]) == (200, ["f-3", "f-2", "f-1"])
        assert await ask("blue", minimum_severity="critical") == (200, ["f-2"])
        assert await ask("root", raised_from="1970-01-01T00:03:20Z") == (200, ["f-3", "f-2"])
        assert await ask("root", raised_until="1970-01-01T04:03:20+04:00") == (200, ["f-1"])
        assert await ask("root", raised_from="9999-12-31T00:00:00Z") == (200, [])
        assert await ask("root", raised_until="0001-01-02T00:00:00Z") == (200, [])
        for wrong in (
            {"kind": "loud"},
            {"resource": "a b"},
            {"resource": ""},
            {"minimum_severity": "worst"},
            {"raised_from": "yesterday"},
            {"raised_from": "2026-01-01T00:00:00"},
            {"severity": "major"},
        ):
            assert (await ask("root", **wrong))[0] == 422, wrong


@pytest.mark.parametrize("state", [FaultState.OPEN, FaultState.CLEARING])
async def test_what_is_shown_as_recovered_is_found_as_recovered(store: Store, state: FaultState) -> None:
    """The guests of this project run elsewhere; the fault of their host goes on, or is being settled."""
    away = replace(
        HOST,
        id=FaultId("f-4"),
        about="node/n2",
        state=state,
        raised_seq=Seq(4),
        affected='{"guest":{"blue":["g9"]}}',
        restored='{"g9":["n3",1,0,1,"blue",1]}',
    )
    async with asking(store, fault_raised(away)) as ask:
        assert await ask("blue", state="recovered") == (200, ["f-4"])
        assert await ask("blue", state=state.value) == (200, ["f-2", "f-1"] if state == "open" else [])
        assert await ask("root", state="recovered") == (200, [])
