"""Our own API of leases: who may book and read what, what a refusal says, and hosts that may be reserved."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from lease_parts import HOUR_NS, NOON_NS, LeaseService, reported, serving
from lease_site import InlinePool, outlook_of

from homeostat.components import catalogue
from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId, SetPointState
from homeostat.kernel.access import Caller, Role, Token, hash_token, insert_token
from homeostat.kernel.clock import SystemClock, iso
from homeostat.kernel.http import Callers, make_app
from homeostat.kernel.journal import Journal, Submission
from homeostat.kernel.workers import WorkCrashed, WorkOutcome
from homeostat.leases import api as leases_api
from homeostat.leases import hosts_api
from homeostat.leases.api import LeasesApi
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext, lease_event
from homeostat.leases.healing_loop import HealingDependencies, HealingLoop
from homeostat.leases.model import LeaseId
from homeostat.leases.monitoring import HostOutcome, healing_times
from homeostat.leases.outlook import LeaseOutlook, OutlookDependencies
from homeostat.leases.settings import LeasesSettings
from store_parts import Store

CALLERS = {
    "admin": (Role.ADMIN, "infrastructure"),
    "shop": (Role.OPERATOR, "shop"),
    "bank": (Role.OPERATOR, "bank"),
    "view": (Role.VIEWER, "shop"),
    "hear": (Role.CONSUMER, "shop"),
}
ONE_HOST = [{"resource_type": "physical:host", "min": 1}]


def at(hours: float) -> str:
    """Hours after noon, as the API takes it."""
    return iso(NOON_NS + round(hours * HOUR_NS))


def wanted(start_h: float, end_h: float, **more: Any) -> dict[str, Any]:
    """A lease of one host, from then to then, counted in hours from noon."""
    return {
        "name": "build",
        "starts_at": at(start_h),
        "ends_at": at(end_h),
        "reservations": ONE_HOST,
        **more,
    }


@dataclass
class Api:
    """Calls by the name of the caller."""

    client: httpx2.AsyncClient
    service: LeaseService
    outlook: LeaseOutlook

    async def __call__(self, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await self.client.request(
            method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {who}"}
        )
        return answer.status_code, answer.json() if answer.content else None

    async def made(self, who: str, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self(who, "POST", "/leases", body)
        assert status == 201, answer
        found: dict[str, Any] = answer
        return found

    async def said(self, who: str, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        """The status of a refusal, its field and its message."""
        status, answer = await self(who, method, path, body)
        assert status >= 400, answer
        return status, answer["error"]["field"] or "", answer["error"]["message"]


@asynccontextmanager
async def served(store: Store, *hosts: int) -> AsyncIterator[Api]:
    async with serving(store, hosts) as service:
        rows = CALLERS.items()
        tokens = tuple(insert_token(Token(n, hash_token(n), role, owner, 1)) for n, (role, owner) in rows)
        await service.appender.append(Submission("test", changes=tokens))
        app = make_app(Callers(store.readers, SystemClock()))
        app.include_router(leases_api.router)
        app.include_router(hosts_api.router)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            found = Api(client, service, outlook_of(service))
            journal = Journal(store.readers, catalogue())
            app.state.leases = LeasesApi(service.keeper, service.clock, journal, found.outlook)
            yield found


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Api]:
    async with served(store, 1, 2) as found:
        yield found


async def test_a_lease_is_booked_read_changed_and_deleted(api: Api) -> None:
    made = await api.made("shop", wanted(1, 3, reservations=[{"min": 1, "max": 2}]))
    assert (made["project"], made["user"], made["status"]) == ("shop", "shop", "PENDING")
    assert (made["starts_at"], made["ends_at"], made["before_end_at"]) == (at(1), at(3), at(2))
    assert made["hosts"] == ["h1", "h2"] and (made["health"], made["degraded"]) == ("ok", False)
    (reservation,) = made["reservations"]
    assert (reservation["min"], reservation["max"], reservation["resource_type"]) == (1, 2, "physical:host")
    assert [each["host"] for each in reservation["allocations"]] == ["h1", "h2"]
    for name in (made["id"], made["id"][:8], "build"):
        assert await api("shop", "GET", f"/leases/{name}") == (200, made), name
    change = {"name": "farm", "ends_at": at(4), "reservations": [{"id": reservation["id"], "max": 1}]}
    status, changed = await api("shop", "PATCH", "/leases/build", change)
    assert (status, changed["name"], changed["ends_at"], changed["hosts"]) == (200, "farm", at(4), ["h1"])
    assert changed["before_end_at"] == at(3), "the reminder keeps its distance from the end"
    assert (await api("shop", "GET", "/leases"))[1]["items"] == [changed]
    assert await api("shop", "DELETE", f"/leases/{made['id']}") == (204, None)
    assert (await api("shop", "GET", "/leases?all=true"))[1]["items"] == []
    assert (await api("shop", "GET", f"/leases/{made['id']}"))[0] == 404


async def test_parts_of_hosts_are_booked_with_their_size(api: Api) -> None:
    slots = {"resource_type": "virtual:instance", "amount": 3, "vcpus": 2, "memory_mb": 1024, "disk_gb": 1}
    made = await api.made("shop", wanted(1, 2, reservations=[slots]))
    (row,) = made["reservations"]
    assert [row[name] for name in ("amount", "vcpus", "memory_mb", "disk_gb")] == [3, 2, 1024, 1]
    assert [each["host"] for each in row["allocations"]] == ["h1", "h1", "h2"]
    apart = slots | {"affinity": False}
    status, field, said = await api.said("shop", "POST", "/leases", wanted(3, 4, reservations=[apart]))
    assert (status, field) == (422, "reservations.amount") and "fewer than are asked for" in said


async def test_without_dates_it_begins_now_and_lasts_as_long_as_is_said(api: Api) -> None:
    made = await api.made("shop", {"name": "now", "for_s": 3600, "reservations": ONE_HOST})
    assert (made["starts_at"], made["ends_at"]) == (at(0), at(1))


@pytest.mark.parametrize("who", ["bank", "view", "hear", "admin"])
async def test_another_project_sees_nothing_and_who_only_looks_changes_nothing(api: Api, who: str) -> None:
    made = await api.made("shop", wanted(1, 2))
    here = f"/leases/{made['id']}"
    reads = who != "bank"
    assert [row["id"] for row in (await api(who, "GET", "/leases"))[1]["items"]] == [made["id"]] * reads
    assert (await api(who, "GET", here))[0] == (200 if reads else 404)
    writes = [("PATCH", here, {"name": "x"}), ("POST", f"{here}/ack", None), ("DELETE", here, None)]
    for method, path, body in writes:
        status, answer = await api(who, method, path, body)
        assert (status < 300) == (who == "admin"), (method, answer)
        if who != "admin":
            assert status == (403 if reads else 404), answer
    assert (await api("shop", "GET", here))[0] == (404 if who == "admin" else 200)


async def test_only_administrators_book_for_another_project(api: Api) -> None:
    assert (await api.made("admin", wanted(1, 2, project="bank")))["project"] == "bank"
    status, _, said = await api.said("shop", "POST", "/leases", wanted(1, 2, project="bank"))
    assert status == 403 and "for the project shop only" in said
    for who in ("view", "hear"):
        assert (await api.said(who, "POST", "/leases", wanted(1, 2)))[0] == 403, who


@pytest.mark.seed("order A refused create shows the free hosts and the next free slot")
async def test_a_refused_booking_names_what_is_free_and_the_next_slot_which_is_then_accepted(
    api: Api,
) -> None:
    await api.made("bank", wanted(1, 3, name="secret"))
    both = [{"min": 2}]
    status, field, said = await api.said("shop", "POST", "/leases", wanted(2, 4, reservations=both))
    assert (status, field) == (409, "reservations.max")
    assert "1 of 2 free (h2)" in said and f"from {at(3)[:19]}Z" in said
    assert "secret" not in said and "bank" not in said
    slot = wanted(3, 5, reservations=both)
    assert (await api.made("shop", slot))["hosts"] == ["h1", "h2"]


@pytest.mark.seed("order an extension that conflicts names the conflict")
async def test_an_extension_that_conflicts_names_what_is_in_the_way_to_who_may_know(api: Api) -> None:
    first = await api.made("shop", wanted(0, 2, name="first"))
    second = await api.made("shop", wanted(0, 2, name="second"))
    assert first["hosts"] + second["hosts"] == ["h1", "h2"]
    await api.made("bank", wanted(2, 3, name="secret"))
    await api.made("shop", wanted(2, 3, name="other"))
    await _become_active(api, first["id"])
    for who, named in (
        ("shop", f"h1 from {at(2)[:19]}Z to {at(3)[:19]}Z: another project"),
        ("admin", "lease secret of project bank"),
    ):
        status, field, said = await api.said(who, "PATCH", "/leases/first", {"ends_at": at(4)})
        assert (status, field) == (409, "ends_at") and named in said
    status, _, said = await api.said("shop", "PATCH", "/leases/first", {"starts_at": at(1)})
    assert status == 409 and "has started" in said


async def _become_active(api: Api, lease: str) -> None:
    def start(book: LeaseBook, context: LeaseContext) -> LeaseChange:
        row = book.leases[LeaseId(lease)]
        event = events.LeaseStatusChanged(row.id, row.project, "ACTIVE", "active", "")
        rows = tuple(replace(each, status="active") for each in book.reservations_of(row.id))
        return LeaseChange(
            events=(lease_event(row.id, event, context),),
            leases=(replace(row, status="ACTIVE"),),
            reservations=rows,
        )

    await api.service.keeper.decide(start)
    await api.service.keeper.reload()


async def _move(api: Api, lease: str, host: str | None, reason: str) -> None:
    """What healing does to the first allocation of a running lease."""

    def change(book: LeaseBook, context: LeaseContext) -> LeaseChange:
        row = book.leases[LeaseId(lease)]
        (reservation,) = book.reservations_of(row.id)
        place = book.allocations_of(reservation.id)[0]
        target = None if host is None else HostId(host)
        moved = events.ReservationMoved(
            reservation.id, row.id, row.project, ((str(place.host), host or ""),), True, reason
        )
        noted = replace(reservation, moved_ns=context.now_ns, changed_ns=context.now_ns)
        return LeaseChange(
            events=(lease_event(row.id, moved, context),),
            reservations=(noted if host else reservation,),
            allocations=(replace(place, host=target, since_ns=context.now_ns, reason=reason),),
        )

    await api.service.keeper.decide(change)


@pytest.mark.seed("003 resources_changed and missing_resources flags, degraded lease")
async def test_flags_say_why_and_an_acknowledgement_clears_what_changed_but_not_what_is_missing(
    api: Api,
) -> None:
    made = await api.made("shop", wanted(0, 2))
    await _move(api, made["id"], "h2", "host h1 failed (host_down)")
    _, seen = await api("shop", "GET", "/leases/build")
    assert (seen["degraded"], seen["health"], seen["reason"]) == (
        True,
        "changed",
        "host h1 failed (host_down)",
    )
    assert seen["reservations"][0]["resources_changed"] and seen["reservations"][0]["moved_at"] == at(0)
    _, noted = await api("shop", "POST", "/leases/build/ack")
    assert (noted["degraded"], noted["health"]) == (False, "ok")
    assert noted["reservations"][0]["acknowledged_at"] == at(0)
    await _move(api, made["id"], None, "no host is free")
    _, seen = await api("shop", "POST", "/leases/build/ack")
    assert (seen["health"], seen["missing"], seen["reason"], seen["hosts"]) == (
        "missing",
        1,
        "no host is free",
        [],
    )
    assert seen["degraded"] and seen["reservations"][0]["missing_resources"]


@pytest.mark.seed("order the N-1 table marks each lease safe or at risk before anything fails")
async def test_the_outlook_says_what_one_failure_would_mean(api: Api) -> None:
    made = await api.made("shop", wanted(1, 2))
    assert made["outlook"] == "unknown", "nothing was surveyed yet"
    await api.outlook.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["outlook"] == "safe"
    await api.made("bank", wanted(1, 2, name="till"))
    await api.outlook.look()
    _, seen = await api("shop", "GET", "/leases/build")
    assert seen["outlook"] == "at_risk" and "h2 has a lease of another project" in seen["outlook_reason"]
    assert "h2 has till" in (await api("admin", "GET", "/leases/build"))[1]["outlook_reason"]
    rows = (await api("admin", "GET", "/lease-hosts"))[1]["items"]
    assert [(row["host"], row["at_risk"]) for row in rows] == [("h1", ["build"]), ("h2", ["till"])]


async def test_a_lease_is_not_called_safe_when_its_host_failed_or_is_unknown_since_the_survey(
    api: Api,
) -> None:
    made = await api.made("shop", wanted(0, 2))
    await _become_active(api, made["id"])
    await api.outlook.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["outlook"] == "safe"
    await _report(api, "h1", HostOutcome.ABSENT)
    _, seen = await api("shop", "GET", "/leases/build")
    assert (seen["outlook"], seen["health"]) == ("unknown", "ok") and "h1" in seen["outlook_reason"]
    await api.outlook.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["outlook"] == "unknown"
    await _report(api, "h1", HostOutcome.FAILED)
    _, seen = await api("shop", "GET", "/leases/build")
    assert (seen["outlook"], seen["health"], seen["failed_hosts"]) == ("at_risk", "failed", ["h1"])
    await _move(api, made["id"], None, "no host is free")
    _, seen = await api("shop", "GET", "/leases/build")
    assert (seen["outlook"], seen["health"]) == ("at_risk", "missing")


async def test_status_counts_running_leases_without_a_host_that_works(api: Api) -> None:
    service, shop = api.service, Caller("shop", Role.OPERATOR, "shop")
    healing = HealingLoop(HealingDependencies(service.keeper, BrokenPool(), service.clock, LeasesSettings()))
    assert await healing.set_points(shop) == (), "nothing is promised yet"
    await api.made("shop", wanted(0, 2))
    await api.made("shop", wanted(1, 2, name="later"))
    (row,) = await healing.set_points(shop)
    assert (row.value, row.standing, row.project) == (0, SetPointState.KEPT, "shop")
    await _report(api, "h1", HostOutcome.ABSENT)
    (row,) = await healing.set_points(shop)
    assert (row.value, row.standing, row.detail) == (None, SetPointState.UNKNOWN, "unknown: build")
    await _fail(api, "h1")
    assert not await healing.look(), "no worker plans"
    for caller in (shop, Caller("admin", Role.ADMIN, "infrastructure")):
        (row,) = await healing.set_points(caller)
        assert (row.value, row.standing, row.detail) == (1, SetPointState.BROKEN, "without: build")
    assert await healing.set_points(Caller("bank", Role.OPERATOR, "bank")) == ()


async def test_nothing_is_called_safe_when_the_survey_fails(api: Api) -> None:
    await api.made("shop", wanted(1, 2))
    await api.outlook.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["outlook"] == "safe"
    await api.made("bank", wanted(1, 2, name="till"))
    broken = LeaseOutlook(
        OutlookDependencies(api.service.keeper, BrokenPool(), api.service.clock, LeasesSettings())
    )
    broken.risks = api.outlook.risks
    assert not await broken.look() and broken.risks == {}


class BrokenPool:
    """Workers that die."""

    async def run(self, function: str, argument: object, *, deadline_s: float) -> WorkOutcome:
        return WorkCrashed("it died")


@pytest.mark.seed("order explain names competing reservations, hosts, hours and the smallest change")
async def test_an_explanation_names_who_has_the_hosts_and_what_would_help(api: Api) -> None:
    await api.made("shop", wanted(1, 4))
    await api.outlook.look()
    status, safe = await api("shop", "GET", "/leases/build/explain")
    assert (status, safe["reservations"]) == (200, []) and "1 of 1 place" in safe["sentences"][0]
    await api.made("bank", wanted(3, 9, name="till"))
    await api.made("bank", wanted(1, 2, name="vault"))
    await _fail(api, "h1")
    await _move(api, (await api("shop", "GET", "/leases/build"))[1]["id"], None, "host h1 failed")
    await api.outlook.look()
    _, told = await api("admin", "GET", "/leases/build/explain")
    (found,) = told["reservations"]
    assert (found["missing"], found["if_host_fails"], told["health"]) == (1, None, "missing")
    assert [(each["host"], each["lease"], each["starts_at"]) for each in found["competitors"]] == [
        ("h2", "vault", at(1)),
        ("h2", "till", at(3)),
    ]
    assert found["change"]["kind"] in ("hosts_more", "earlier_end", "fewer_units")
    assert found["change"]["sentence"] in told["sentences"] and found["is_smallest"]
    text = json.dumps((await api("shop", "GET", "/leases/build/explain"))[1])
    assert "another project" not in text or "till" not in text
    assert not [word for word in ("till", "vault", "bank") if word in text]
    assert (await api("bank", "GET", "/leases/build/explain"))[0] == 404


async def test_what_would_be_missing_is_explained_before_it_is(api: Api) -> None:
    await api.made("shop", wanted(1, 4))
    await api.made("bank", wanted(1, 9, name="till"))
    await api.outlook.look()
    _, told = await api("admin", "GET", "/leases/build/explain")
    (found,) = told["reservations"]
    assert (found["if_host_fails"], told["outlook"], told["health"]) == ("h1", "at_risk", "ok")
    assert found["competitors"][0]["lease"] == "till"


async def _fail(api: Api, host: str) -> None:
    await _report(api, host, HostOutcome.FAILED)


async def _report(api: Api, host: str, outcome: HostOutcome) -> None:
    await api.service.keeper.decide(lambda book, context: reported(book, host, outcome, context))


async def test_a_name_that_several_leases_have_asks_for_an_id(api: Api) -> None:
    ids = {(await api.made("shop", wanted(1, 2)))["id"] for _ in range(2)}
    await api.made("bank", wanted(3, 4, name="till"))
    status, field, said = await api.said("shop", "GET", "/leases/build")
    assert (status, field) == (422, "lease") and all(each in said for each in ids)
    assert (await api.said("shop", "GET", "/leases/till"))[0] == 404, "the name of another project's"


BAD: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"starts_at": at(-2)}, "starts_at", "must not be in the past"),
    ({"ends_at": at(1)}, "ends_at", "must be after the start"),
    ({"ends_at": None}, "ends_at", "ends_at or for_s"),
    ({"for_s": 60}, "ends_at", "ends_at or for_s"),
    ({"before_end_at": at(9)}, "before_end_at", "between start and end"),
    ({"starts_at": "tomorrow"}, "starts_at", "datetime"),
    ({"name": ""}, "name", "at least 1 item"),
    ({"reservations": []}, "reservations", "at least 1 item"),
    ({"reservations": [{"min": 3}]}, "reservations.max", "fewer than are asked for"),
    ({"reservations": [{"min": 2, "max": 1}]}, "reservations.0.max", "at least min, which is 2"),
    ({"reservations": [{"amount": 1}]}, "reservations.0.amount", "physical:host has no such field"),
    (
        {"reservations": [{"resource_type": "virtual:instance", "amount": 1, "min": 1}]},
        "reservations.0.min",
        "virtual:instance has no such field",
    ),
    (
        {"reservations": [{"resource_type": "virtual:instance", "amount": 1}]},
        "reservations.0.vcpus",
        "1 or more",
    ),
    ({"reservations": [{"resource_type": "virtual:floatingip"}]}, "reservations.0.resource_type", "host"),
    (
        {"reservations": [{"resource_properties": json.dumps(["==", "$colour", "red"])}]},
        "resource_properties",
        "colour",
    ),
    ({"reservations": [{"resource_properties": "rack=r1"}]}, "resource_properties", ""),
    ({"colour": "red"}, "colour", "no field of this name"),
)


async def test_bad_input_names_the_field_and_books_nothing(api: Api) -> None:
    for change, where, says in BAD:
        body = {name: value for name, value in (wanted(1, 2) | change).items() if value is not None}
        status, found, said = await api.said("shop", "POST", "/leases", body)
        assert status == 422 and found.startswith(where) and says in said, (change, said)
    assert (await api("shop", "GET", "/leases"))[1]["items"] == []


async def test_a_change_of_nothing_or_of_a_foreign_reservation_is_refused(api: Api) -> None:
    await api.made("shop", wanted(1, 2))
    other = await api.made("bank", wanted(1, 2))
    assert (await api.said("shop", "PATCH", "/leases/build", {}))[1] == "body"
    foreign = {"reservations": [{"id": other["reservations"][0]["id"], "max": 2}]}
    status, field, _ = await api.said("shop", "PATCH", "/leases/build", foreign)
    assert (status, field) == (422, "reservations.0.id")


async def test_hosts_are_added_held_released_and_removed_by_administrators(api: Api) -> None:
    api.service.capacities[HostId("h3")] = api.service.capacities[HostId("h1")]
    status, made = await api("admin", "POST", "/lease-hosts", {"host": "h3", "properties": {"rack": "r1"}})
    assert (status, made["number"], made["vcpus"], made["properties"]) == (201, 3, 4, {"rack": "r1"})
    assert (await api.said("admin", "POST", "/lease-hosts", {"host": "h3"}))[0] == 409
    status, field, said = await api.said("admin", "POST", "/lease-hosts", {"host": "h9"})
    assert (status, field) == (422, "name") and "no such host reports" in said
    rack = [{"min": 1, "resource_properties": json.dumps(["==", "$rack", "r1"])}]
    assert (await api.made("shop", wanted(1, 2, reservations=rack)))["hosts"] == ["h3"]
    status, _, said = await api.said("admin", "DELETE", "/lease-hosts/h3")
    assert status == 409 and "h3 from" in said and "lease build of project shop" in said
    await api("shop", "DELETE", "/leases/build")
    assert await api("admin", "DELETE", "/lease-hosts/h3") == (204, None)
    rows = (await api("admin", "GET", "/lease-hosts"))[1]["items"]
    assert [row["host"] for row in rows] == ["h1", "h2"]


async def test_a_held_host_gets_nothing_new_until_the_hold_is_over(api: Api) -> None:
    await api.made("shop", wanted(1, 2, name="there"))
    status, held = await api("admin", "PUT", "/lease-hosts/h2/hold", {"reason": "disk", "for_s": 3600})
    assert (status, held["hold"]) == (200, {"reason": "disk", "until_at": at(1), "by": "admin"})
    assert "0 of 1 free" in (await api.said("shop", "POST", "/leases", wanted(1, 2)))[2]
    api.service.clock.now_ns += HOUR_NS + 1
    rows = (await api("admin", "GET", "/lease-hosts"))[1]["items"]
    assert [row["hold"] for row in rows] == [None, None], "its time is over"
    await api("admin", "PUT", "/lease-hosts/h2/hold", {"reason": "disk"})
    status, released = await api("admin", "DELETE", "/lease-hosts/h2/hold")
    assert (status, released["hold"]) == (200, None)
    both = {"reason": "x", "for_s": 1, "until_at": at(9)}
    assert (await api.said("admin", "PUT", "/lease-hosts/h2/hold", both))[1] == "for_s"
    past = {"reason": "x", "until_at": at(0)}
    assert (await api.said("admin", "PUT", "/lease-hosts/h2/hold", past))[1] == "until_at"
    assert (await api.said("admin", "PUT", "/lease-hosts/h9/hold", {"reason": "x"}))[0] == 404


@pytest.mark.parametrize("who", ["shop", "view", "hear"])
async def test_hosts_are_nobody_elses(api: Api, who: str) -> None:
    assert await api(who, "GET", "/lease-hosts") == (200, {"items": []})
    for method, path, body in (
        ("POST", "/lease-hosts", {"host": "h1"}),
        ("DELETE", "/lease-hosts/h1", None),
        ("PUT", "/lease-hosts/h1/hold", {"reason": "x"}),
        ("DELETE", "/lease-hosts/h1/hold", None),
    ):
        assert (await api(who, method, path, body))[0] == 403, method


@pytest.mark.seed("order what-if host includes leases, and says what healing then does")
async def test_what_a_death_would_mean_is_what_healing_then_does(api: Api) -> None:
    made = await api.made("shop", wanted(0, 4))
    later = await api.made("bank", wanted(5, 9, name="till", reservations=[{"min": 2}]))
    told = await api.outlook.foretell(HostId("h1"))
    assert [(each.subject, each.owner, each.says) for each in told] == [
        (f"lease/{made['id']}", "shop", "build: moves from h1 to h2"),
        (
            f"lease/{later['id']}",
            "bank",
            "till: keeps h1 until its start is near, then moves if the host is still down",
        ),
    ]
    assert (await api("shop", "GET", "/leases/build"))[1]["hosts"] == ["h1"], "nothing happened"
    await _fail(api, "h1")
    service = api.service
    healing = HealingLoop(HealingDependencies(service.keeper, InlinePool(), service.clock, LeasesSettings()))
    assert await healing.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["hosts"] == ["h2"]
    seen = (await api("bank", "GET", "/leases/till"))[1]
    assert (seen["hosts"], seen["failed_hosts"]) == (["h1", "h2"], ["h1"])
    assert await api.outlook.foretell(HostId("h9")) == []


async def test_what_a_death_would_mean_looks_as_far_ahead_as_healing_does(api: Api) -> None:
    """A monitoring plug-in may ask for everything that is booked, whatever the section of the server says."""
    await api.made("shop", wanted(24, 28))
    service, times = api.service, healing_times([3600.0, 0.0], 3600.0, 60.0)
    parts = (service.keeper, InlinePool(), service.clock, LeasesSettings(), times)
    (told,) = await LeaseOutlook(OutlookDependencies(*parts)).foretell(HostId("h1"))
    assert told.says == "build: moves from h1 to h2"
    await _fail(api, "h1")
    assert await HealingLoop(HealingDependencies(*parts)).look()
    assert (await api("shop", "GET", "/leases/build"))[1]["hosts"] == ["h2"]


async def test_what_the_death_of_a_held_host_would_mean_is_what_then_happens(api: Api) -> None:
    """A hold keeps monitors from the host, so nothing moves before it is over."""
    made = await api.made("shop", wanted(0, 4))
    await api("admin", "PUT", "/lease-hosts/h1/hold", {"reason": "disks", "until_at": at(1)})
    (told,) = await api.outlook.foretell(HostId("h1"))
    assert (told.subject, told.owner) == (f"lease/{made['id']}", "shop")
    assert told.says == f"build: keeps h1, which is held until {at(1)}, then moves if the host is still down"
    await _fail(api, "h1")
    service = api.service
    healing = HealingLoop(HealingDependencies(service.keeper, InlinePool(), service.clock, LeasesSettings()))
    assert await healing.look()
    assert (await api("shop", "GET", "/leases/build"))[1]["hosts"] == ["h1"]
