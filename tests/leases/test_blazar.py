"""Blazar's API over our leases: what a Blazar user sends, gets, and is told when it does not go."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blazar_parts import blazar, host_body, instance_body, lease_body
from lease_parts import HOUR_NS

from homeostat.contracts.nouns import HostId
from store_parts import Store

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DATE = re.compile(r"2026-09-21T\d\d:\d\d:\d\d\.\d{6}")
LEASE_FIELDS = {
    *("id", "name", "user_id", "project_id", "start_date", "end_date", "status", "degraded", "trust_id"),
    *("created_at", "updated_at", "reservations", "events"),
}


@pytest.fixture
def here(sqlite_with_schema: Path, tmp_path: Path) -> Iterator[Store]:
    """A database of one kind: what is tested here is the same on the other."""
    made = Store(f"sqlite:///{shutil.copy(sqlite_with_schema, tmp_path / 'homeostat.db')}")
    yield made
    made.close()


# ---- who calls ----


def basic(name: str, token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-Auth-Token": "notused"}, 401),
        ({"X-Auth-Token": "hs_anna"}, 200),
        (basic("anna", "hs_anna"), 200),
        (basic("bert", "hs_anna"), 401),
        (basic("anna", "hs_none"), 401),
        ({"Authorization": "Basic !!!"}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff").decode()}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"anna").decode()}, 401),
        ({"Authorization": "Bearer hs_anna"}, 200),
        ({"Authorization": "Digest hs_anna"}, 401),
    ],
    ids=str,
)
async def test_a_token_of_ours_says_who_calls(here: Store, headers: dict[str, str], status: int) -> None:
    async with blazar(here) as api:
        found, answer = await api.call("", "GET", "/v1/leases", headers=headers)
        assert found == status
        if status == 401:
            assert answer["error_code"] == 401
            assert "The request you have made requires authentication" in answer["error_message"]
            assert "--os-auth-type admin_token" in answer["error_message"]


async def test_a_wrong_user_of_a_right_token_is_told_so(here: Store) -> None:
    async with blazar(here) as api:
        _, answer = await api.call("", "GET", "/v1/leases", headers=basic("bert", "hs_anna"))
        assert "this token has another name than the user that is given" in answer["error_message"]


async def test_the_versions_are_there_for_anybody(here: Store) -> None:
    async with blazar(here) as api:
        for path in ("/", "/versions"):
            status, answer = await api.call("", "GET", path)
            (version,) = answer["versions"]
            assert (status, version["id"], version["max_version"]) == (300, "v1.0", "1.0")
            assert version["links"][0]["href"] == "http://blazar/v1"


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("reservation 1.0", 200),
        ("reservation latest", 200),
        ("compute 2.99", 200),
        ("compute 2.99, reservation 1.0", 200),
        ("reservation 1.1", 406),
        ("reservation", 406),
    ],
)
async def test_another_version_is_refused(here: Store, version: str, status: int) -> None:
    async with blazar(here) as api:
        found, answer = await api.call(
            "anna", "GET", "/v1/leases", headers={"OpenStack-API-Version": version}
        )
        assert found == status
        if status == 406:
            assert "Minimum is 1.0 and maximum is 1.0." in answer["error_message"]


async def test_roles_are_ours_and_another_project_sees_nothing(here: Store) -> None:
    async with blazar(here) as api:
        lease = await api.lease("anna")
        path = f"/v1/leases/{lease['id']}"
        for name, seen in {"root": 1, "anna": 1, "albert": 1, "carl": 1, "bert": 0, "ops": 0}.items():
            _, answer = await api.call(name, "GET", "/v1/leases")
            assert len(answer["leases"]) == seen, name
            assert (await api.call(name, "GET", path))[0] == (200 if seen else 404), name
        unknown = await api.refused("bert", "GET", "/v1/leases/no-such-lease")
        assert unknown == (404, "Object with {'lease_id': 'no-such-lease'} not found")
        for method, body in (("GET", None), ("PUT", {"name": "mine"}), ("DELETE", None)):
            found = await api.refused("bert", method, path, body)
            assert found == (404, f"Object with {{'lease_id': '{lease['id']}'}} not found")
        for name in ("albert", "carl"):
            status, said = await api.refused(name, "PUT", path, {"name": "mine"})
            assert status == 403 and said.startswith("Policy doesn't allow blazar:leases:put to be performed")
            assert (await api.refused(name, "DELETE", path))[0] == 403
            assert (await api.refused(name, "POST", "/v1/leases", lease_body()))[0] == 403
        assert (await api.call("root", "DELETE", path)) == (204, None)


async def test_hosts_are_for_those_who_run_them(here: Store) -> None:
    async with blazar(here) as api:
        for name, status in {"root": 200, "ops": 200, "anna": 403, "albert": 403}.items():
            for path in ("/v1/os-hosts", "/v1/os-hosts/1", "/v1/os-hosts/allocations"):
                assert (await api.call(name, "GET", path))[0] == status, (name, path)
            assert (await api.call(name, "GET", "/v1/os-hosts/properties"))[0] == 200
        calls = (("POST", "/v1/os-hosts"), ("PUT", "/v1/os-hosts/1"), ("DELETE", "/v1/os-hosts/1"))
        for method, path in calls:
            status, said = await api.refused("anna", method, path, {"name": "h9"})
            assert status == 403 and "Policy doesn't allow blazar:oshosts:" in said


# ---- leases ----


async def test_a_lease_has_every_field_that_blazar_shows(store: Store) -> None:
    async with blazar(store) as api:
        shown = await api.lease(
            "anna",
            reservations=[
                host_body(max=2, hypervisor_properties='[">=", "$vcpus", "4"]'),
                instance_body(amount="2", affinity="True"),
            ],
        )
        assert set(shown) == LEASE_FIELDS
        assert UUID.fullmatch(shown["id"])
        assert (shown["name"], shown["user_id"], shown["project_id"]) == ("l", "anna", "alpha")
        assert (shown["status"], shown["degraded"]) == ("PENDING", False)
        assert (shown["start_date"], shown["end_date"]) == (
            "2026-09-21T15:00:00.000000",
            "2026-09-21T17:00:00.000000",
        )
        assert shown["created_at"] == "2026-09-21 14:00:00"
        host, instance = shown["reservations"]
        common = {
            *("id", "lease_id", "resource_id", "resource_type", "status", "missing_resources"),
            *("resources_changed", "health", "resource_properties", "created_at", "updated_at"),
        }
        assert set(host) == common | {"min", "max", "hypervisor_properties", "before_end"}
        sizes = {"amount", "vcpus", "memory_mb", "disk_gb", "affinity"}
        assert set(instance) == common | sizes | {"flavor_id", "aggregate_id", "server_group_id"}
        assert (host["min"], host["max"], host["status"]) == (1, 2, "pending")
        assert host["hypervisor_properties"] == '[">=", "$vcpus", "4"]'
        assert (instance["amount"], instance["affinity"]) == (2, True)
        assert UUID.fullmatch(host["id"]) and host["lease_id"] == shown["id"]
        assert {each["event_type"]: each["time"] for each in shown["events"]} == {
            "start_lease": "2026-09-21T15:00:00.000000",
            "before_end_lease": "2026-09-21T16:00:00.000000",
            "end_lease": "2026-09-21T17:00:00.000000",
        }
        for each in shown["events"]:
            assert DATE.fullmatch(each["time"]) and each["status"] == "UNDONE"
            assert set(each) == {
                *("id", "lease_id", "event_type", "time", "status", "created_at", "updated_at")
            }
        assert await api.call("anna", "GET", f"/v1/leases/{shown['id']}") == (200, {"lease": shown})
        assert await api.call("anna", "GET", "/v1/leases") == (200, {"leases": [shown]})


async def test_now_is_now_and_this_very_minute_is_not_past(here: Store) -> None:
    async with blazar(here) as api:
        api.service.clock.now_ns += 30 * 10**9
        shown = await api.lease("anna", start_date="now", reservations=[host_body()])
        assert shown["start_date"] == "2026-09-21T14:00:30.000000"
        assert (await api.lease("anna", start_date="2026-09-21 14:00"))["status"] == "PENDING"


BAD_LEASES: list[tuple[dict[str, Any], int, str]] = [
    ({"start_date": "soon"}, 400, "soon is an invalid date. Required format: %Y-%m-%d %H:%M"),
    ({"start_date": "2026-09-21T15:00"}, 400, "2026-09-21T15:00 is an invalid date."),
    ({"start_date": None}, 400, "None is an invalid date."),
    ({"end_date": 7}, 400, "7 is an invalid date."),
    ({"end_date": "2026-13-01 00:00"}, 400, "2026-13-01 00:00 is an invalid date."),
    ({"end_date": "9999-01-01 00:00"}, 400, "9999-01-01 00:00 is an invalid date."),
    (
        {"start_date": "2026-09-21 13:59"},
        400,
        "Start date must be later than current date: start_date is 2026",
    ),
    ({"start_date": "1969-09-21 13:59"}, 400, "Start date must be later than current date"),
    ({"end_date": "2026-09-21 15:00"}, 400, "End date must be later than start date: end_date is 2026-09-21"),
    ({"end_date": "2026-09-21 14:30"}, 400, "End date must be later than start date"),
    ({"before_end_date": "2026-09-21 14:30"}, 403, "Datetime is out of lease limits"),
    ({"before_end_date": "later"}, 400, "later is an invalid date."),
    ({"colour": "red"}, 400, "Unknown parameter 'colour' of a lease; known are: name, start_date"),
    ({"name": ""}, 400, "Malformed parameter name (printable text of 1 to 80 characters)"),
    ({"name": "x" * 81}, 400, "Malformed parameter name"),
    ({"name": "a\nb"}, 400, "Malformed parameter name"),
    ({"name": None}, 400, "Malformed parameter name"),
    ({"reservations": []}, 400, "Missing parameter reservations"),
    ({"reservations": {}}, 400, "Malformed parameter reservations (a list of objects)"),
    ({"reservations": ["n1"]}, 400, "Malformed parameter reservations (a list of objects)"),
    (
        {"events": [{"event_type": "notification", "event_date": "2026-09-21 16:00"}]},
        400,
        "Event type notification is not supported",
    ),
]
BAD_RESERVATIONS: list[tuple[dict[str, Any], int, str]] = [
    ({"min": 1}, 400, "Missing parameter resource_type"),
    (host_body(resource_type="flavor:instance"), 500, "The flavor:instance resource type is not supported"),
    (
        {"resource_type": "virtual:floatingip", "amount": 1, "network_id": "n"},
        500,
        "The virtual:floatingip resource type is not supported: no such plug-in here; there are physical",
    ),
    ({"resource_type": "physical:host", "min": 1}, 400, "Missing parameter max, hypervisor_properties, res"),
    (host_body(min=""), 400, "Malformed parameter min (must be an integer greater than or equal to 1)"),
    (host_body(min=0), 400, "Malformed parameter min"),
    (host_body(min=True), 400, "Malformed parameter min"),
    (host_body(min=1.5), 400, "Malformed parameter min"),
    (host_body(max=10**30), 400, "Malformed parameter max"),
    (host_body(max="3,resource_type=x"), 400, "Malformed parameter max"),
    (host_body(min=2), 400, "Invalid values for min/max of hosts. Max must be equal to or larger than min."),
    (host_body(colour="red"), 400, "Unknown parameter 'colour' of a physical:host reservation; known are"),
    (host_body(amount=1), 400, "Unknown parameter 'amount' of a physical:host reservation"),
    (host_body(before_end="snapshot"), 400, 'Malformed parameter before_end ("snapshot" is not done here'),
    (host_body(before_end="shrug"), 400, "Malformed parameter before_end"),
    (host_body(hypervisor_properties="vcpus>4"), 400, "Malformed requirements vcpus>4: "),
    (
        host_body(hypervisor_properties='["or", ["=", "$vcpus", "4"], ["=", "$vcpus", "8"]]'),
        400,
        'Malformed requirements ["or", ["=", "$vcpus", "4"], ["=", "$vcpus", "8"]]: ',
    ),
    (host_body(resource_properties='["=", "$gpus", "1"]'), 400, "no host has a property 'gpus'; known are "),
    (host_body(resource_properties=7), 400, "Malformed requirements 7"),
    (
        host_body(min=4, max=9),
        500,
        "Not enough hosts available: 4 wanted, only 3 could ever have what is required, whatever is booked",
    ),
    (
        host_body(hypervisor_properties='[">", "$vcpus", "400"]'),
        500,
        "Not enough hosts available: 1 wanted, no host has what is required",
    ),
    (
        {"resource_type": "virtual:instance", "amount": 1},
        400,
        "Missing parameter vcpus, memory_mb, disk_gb, affinity, resource_properties",
    ),
    (instance_body(amount=0), 400, "Malformed parameter amount (must be an integer greater than or equal"),
    (instance_body(vcpus=""), 400, "Malformed parameter vcpus"),
    (instance_body(disk_gb=-1), 400, "Malformed parameter disk_gb"),
    (instance_body(affinity="maybe"), 400, "Malformed parameter affinity (must be a bool value or None)"),
    (instance_body(vcpus=64), 500, "Not enough hosts available"),
    (instance_body(amount=5, affinity=False), 500, "Not enough hosts available: 5 wanted, only 3"),
    (instance_body(min=1), 400, "Unknown parameter 'min' of a virtual:instance reservation"),
]


async def test_a_lease_that_cannot_be_is_refused_as_blazar_does_and_with_its_value(here: Store) -> None:
    async with blazar(here) as api:
        for change, status, said in BAD_LEASES:
            found, message = await api.refused("anna", "POST", "/v1/leases", lease_body(**change))
            assert (found, said in message) == (status, True), (change, found, message)
            assert "\n" not in message
        assert not api.service.keeper.book.leases


async def test_a_reservation_that_cannot_be_is_refused_as_blazar_does_and_with_its_value(here: Store) -> None:
    async with blazar(here) as api:
        for reservation, status, said in BAD_RESERVATIONS:
            body = lease_body(reservations=[reservation])
            found, message = await api.refused("anna", "POST", "/v1/leases", body)
            assert (found, said in message) == (status, True), (reservation, found, message)
            assert "\n" not in message
        assert not api.service.keeper.book.leases


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (("name",), "Missing parameter name"),
        (("name", "end_date"), "Missing parameter end_date, name"),
        (("reservations",), "Missing parameter reservations"),
    ],
)
async def test_what_is_missing_is_named(here: Store, absent: tuple[str, ...], said: str) -> None:
    async with blazar(here) as api:
        body = {name: value for name, value in lease_body().items() if name not in absent}
        status, message = await api.refused("anna", "POST", "/v1/leases", body)
        assert status == 400 and message.startswith(said)


async def test_what_is_not_free_is_refused_with_what_is_and_when_more_will_be(here: Store) -> None:
    async with blazar(here) as api:
        await api.lease("bert", reservations=[host_body(min=2, max=2)])
        status, said = await api.refused(
            "anna", "POST", "/v1/leases", lease_body(reservations=[host_body(min=2, max=2)])
        )
        free = "2 wanted, 1 free in this window (h3); free from 2026-09-21 17:00 UTC"
        assert (status, said) == (500, f"Not enough hosts available: {free}")
        later = lease_body(start_date="2026-09-21 17:00", end_date="2026-09-21 19:00")
        later["reservations"] = [host_body(min=2, max=2)]
        assert (await api.call("anna", "POST", "/v1/leases", later))[0] == 201


async def test_a_lease_is_changed_as_the_client_changes_it(store: Store) -> None:
    async with blazar(store) as api:
        lease = await api.lease("anna", reservations=[host_body(max=2), instance_body()])
        path, (host, instance) = f"/v1/leases/{lease['id']}", lease["reservations"]

        async def changed(body: dict[str, Any]) -> dict[str, Any]:
            status, answer = await api.call("anna", "PUT", path, body)
            assert status == 200, answer
            return dict(answer["lease"])

        assert await changed({}) == lease
        assert (await changed({"name": "renamed"}))["name"] == "renamed"
        after = await changed({"end_date": "2026-09-21 18:00"})
        assert after["end_date"] == "2026-09-21T18:00:00.000000"
        times = {each["event_type"]: each["time"] for each in after["events"]}
        assert times["before_end_lease"] == "2026-09-21T17:00:00.000000"
        after = await changed({"start_date": "2026-09-21 16:00", "before_end_date": "2026-09-21 17:30"})
        times = {each["event_type"]: each["time"] for each in after["events"]}
        assert (times["start_lease"], times["before_end_lease"]) == (
            "2026-09-21T16:00:00.000000",
            "2026-09-21T17:30:00.000000",
        )
        wanted = [{"id": host["id"], "max": 1}, {"id": instance["id"], "amount": 2, "affinity": None}]
        after = await changed({"reservations": wanted})
        assert [after["reservations"][0]["max"], after["reservations"][1]["amount"]] == [1, 2]
        after = await changed(
            {"reservations": [{"id": host["id"], "hypervisor_properties": '["=", "$vcpus", "4"]'}]}
        )
        assert after["reservations"][0]["hypervisor_properties"] == '["=", "$vcpus", "4"]'
        assert (after["reservations"][0]["min"], after["reservations"][0]["max"]) == (1, 1)


BAD_CHANGES: list[tuple[dict[str, Any], int, str]] = [
    ({"end_date": "2026-09-21 13:00"}, 400, "End date must be later than"),
    ({"start_date": "2026-09-21 13:00"}, 400, "Start date must be later than current date"),
    ({"start_date": "soon"}, 400, "soon is an invalid date."),
    ({"before_end_date": "2026-09-21 20:00"}, 403, "Datetime is out of lease limits"),
    ({"prolong_for": "1h"}, 400, "Unknown parameter 'prolong_for' of a lease that is updated; known are"),
    ({"events": []}, 400, "Unknown parameter 'events'"),
    ({"reservations": [{"min": 1}]}, 400, "Missing parameter reservation ID"),
    ({"reservations": [{"id": "x"}]}, 400, "Please enter valid reservation IDs. Invalid reservation IDs"),
    ({"reservations": [{"id": "HOST", "min": 2}]}, 400, "Invalid values for min/max of hosts."),
    (
        {"reservations": [{"id": "HOST", "resource_type": "virtual:instance"}]},
        409,
        "resource_type cannot",
    ),
    (
        {"reservations": [{"id": "HOST", "affinity": True}]},
        400,
        "Unknown parameter 'affinity' of a physic",
    ),
    ({"reservations": [{"id": "HOST", "min": 9, "max": 9}]}, 500, "Not enough hosts available: 9 wanted"),
    ({"reservations": [{"id": "HOST"}, {"id": "HOST"}]}, 400, "is given twice"),
    ({"reservations": [{"id": "PART", "affinity": True}]}, 409, "affinity cannot be updated"),
    ({"reservations": [{"id": "PART", "vcpus": 0}]}, 400, "Malformed parameter vcpus"),
]


async def test_a_change_that_cannot_be_is_refused_whole(here: Store) -> None:
    async with blazar(here) as api:
        lease = await api.lease("anna", reservations=[host_body(), instance_body()])
        host, part = (each["id"] for each in lease["reservations"])
        path = f"/v1/leases/{lease['id']}"
        for body, status, said in BAD_CHANGES:
            sent = json.loads(json.dumps(body).replace("HOST", host).replace("PART", part))
            found, message = await api.refused("anna", "PUT", path, sent)
            assert (found, said in message) == (status, True), (body, found, message)
        assert (await api.call("anna", "GET", path))[1]["lease"] == lease


async def test_an_extension_that_conflicts_names_the_conflict_to_who_may_read_it(here: Store) -> None:
    async with blazar(here, hosts=(1,)) as api:
        lease = await api.lease("anna")
        await api.lease("bert", name="secret", start_date="2026-09-21 17:00", end_date="2026-09-21 18:00")
        path, longer = f"/v1/leases/{lease['id']}", {"end_date": "2026-09-21 17:30"}
        status, said = await api.refused("anna", "PUT", path, longer)
        assert status == 500 and said.startswith("Not enough hosts available")
        assert "secret" not in said and "bert" not in said


# ---- hosts ----


async def test_a_host_has_every_field_that_blazar_shows(here: Store) -> None:
    async with blazar(here, hosts=(1,)) as api:
        api.service.capacities[HostId("h7")] = api.service.capacities[HostId("h1")]
        body = {"name": "h7", "rack": "r1", "gpus": "2"}
        status, answer = await api.call("root", "POST", "/v1/os-hosts", body)
        assert (status, answer["host"]["id"], answer["host"]["rack"]) == (201, "2", "r1")
        shown = answer["host"]
        assert {
            *("id", "vcpus", "cpu_info", "hypervisor_type", "hypervisor_version", "hypervisor_hostname"),
            *("service_name", "memory_mb", "local_gb", "status", "availability_zone", "trust_id"),
            *("reservable", "created_at", "updated_at", "health", "architecture", "rack", "gpus"),
        } == set(shown)
        assert (shown["hypervisor_hostname"], shown["vcpus"], shown["memory_mb"]) == ("h7", 4, 8192)
        assert (shown["local_gb"], json.loads(shown["cpu_info"])) == (100, {"arch": "x86_64"})
        assert (shown["reservable"], shown["health"]) == (True, {"reason": ""})
        assert await api.call("root", "GET", "/v1/os-hosts/2") == (200, {"host": shown})
        listed = (await api.call("root", "GET", "/v1/os-hosts"))[1]["hosts"]
        assert [each["id"] for each in listed] == ["1", "2"]
        changed = (await api.call("root", "PUT", "/v1/os-hosts/2", {"rack": "r2", "gpus": None}))[1]["host"]
        assert changed["rack"] == "r2" and "gpus" not in changed
        assert await api.call("root", "DELETE", "/v1/os-hosts/2") == (204, None)
        assert (await api.refused("root", "GET", "/v1/os-hosts/2"))[0] == 404


BAD_HOSTS: list[tuple[str, str, dict[str, Any] | None, int, str]] = [
    ("POST", "/v1/os-hosts", {}, 400, "Missing parameter name"),
    ("POST", "/v1/os-hosts", {"name": 7}, 400, "Malformed parameter name"),
    (
        "POST",
        "/v1/os-hosts",
        {"name": "h1"},
        409,
        "Conflict while adding host: h1 may be reserved already",
    ),
    ("POST", "/v1/os-hosts", {"name": "h9"}, 404, "Host not found!: no host 'h9' reports to this server"),
    ("POST", "/v1/os-hosts", {"name": "h9", "vcpus": "8"}, 409, "vcpus cannot be updated: a fact of the"),
    ("PUT", "/v1/os-hosts/1", {}, 400, "No data to update"),
    ("PUT", "/v1/os-hosts/1", {"name": "h5"}, 409, "name cannot be updated"),
    ("PUT", "/v1/os-hosts/1", {"x" * 65: "1"}, 400, "Extra capability key too long"),
    ("PUT", "/v1/os-hosts/1", {"rack": 7}, 400, "Malformed parameter rack (text that is not empty)"),
    ("PUT", "/v1/os-hosts/1", {"rack": ""}, 400, "Malformed parameter rack"),
    ("PUT", "/v1/os-hosts/1", {"a b": "c"}, 400, "Malformed parameter 'a b' (a name without blanks)"),
    ("PUT", "/v1/os-hosts/9", {"rack": "r1"}, 404, "Object with {'host_id': '9'} not found"),
    ("GET", "/v1/os-hosts/h1", None, 404, "Object with {'host_id': 'h1'} not found"),
    ("GET", "/v1/os-hosts/99999999999999999999", None, 404, "not found"),
    ("DELETE", "/v1/os-hosts/9", None, 404, "Object with {'host_id': '9'} not found"),
    ("PATCH", "/v1/os-hosts/properties/rack", {}, 400, "Missing parameter private"),
    ("PATCH", "/v1/os-hosts/properties/rack", {"private": "yes"}, 400, "Malformed parameter private"),
    (
        "PATCH",
        "/v1/os-hosts/properties/rack",
        {"is_private": True},
        400,
        "Unknown parameter 'is_private'",
    ),
    (
        "PATCH",
        "/v1/os-hosts/properties/rack",
        {"private": True},
        404,
        "The resource property does not exist: property is rack",
    ),
]


async def test_a_wrong_request_about_hosts_is_refused(here: Store) -> None:
    async with blazar(here) as api:
        for method, path, body, status, said in BAD_HOSTS:
            found, message = await api.refused("root", method, path, body)
            assert (found, said in message) == (status, True), (method, path, body, found, message)


async def test_a_reserved_host_stays_and_keeps_what_is_required_of_it(here: Store) -> None:
    async with blazar(here, hosts=(1,)) as api:
        await api.call("root", "PUT", "/v1/os-hosts/1", {"rack": "r1", "gpus": "2"})
        wanted = host_body(resource_properties='["and", ["=", "$rack", "r1"], [">=", "$gpus", "2"]]')
        lease = await api.lease("anna", reservations=[wanted])
        status, said = await api.refused("root", "DELETE", "/v1/os-hosts/1")
        assert status == 409 and said.startswith("The host is reserved: Can't delete host h1; lease l (")
        for body in ({"rack": "r2"}, {"rack": None}, {"gpus": "1"}):
            status, said = await api.refused("root", "PUT", "/v1/os-hosts/1", body)
            assert status == 409 and said.startswith("Can't add extracapabilities: "), said
            assert lease["id"] in said
        assert (await api.call("root", "PUT", "/v1/os-hosts/1", {"gpus": "4", "ssd": "yes"}))[0] == 200
        await api.call("anna", "DELETE", f"/v1/leases/{lease['id']}")
        assert (await api.call("root", "DELETE", "/v1/os-hosts/1"))[0] == 204


async def test_allocations_are_shown_of_every_host_and_filtered_on_request(here: Store) -> None:
    async with blazar(here, hosts=(1, 2)) as api:
        one = await api.lease("anna", reservations=[host_body(), instance_body(amount=2)])
        other = await api.lease("bert", start_date="2026-09-21 18:00", end_date="2026-09-21 19:00")
        path = "/v1/os-hosts/allocations"
        listed = (await api.call("root", "GET", path))[1]["allocations"]
        found = {each["resource_id"]: [row["id"] for row in each["reservations"]] for each in listed}
        ids = [each["id"] for each in (*one["reservations"], *other["reservations"])]
        assert sorted(each for rows in found.values() for each in rows) == sorted(ids) and set(found) == {
            "1",
            "2",
        }
        shown = listed[0]["reservations"][0]
        assert set(shown) == {"id", "lease_id", "start_date", "end_date"}
        assert (shown["lease_id"], shown["start_date"]) == (one["id"], "2026-09-21T15:00:00.000000")
        filtered = (await api.call("root", "GET", f"{path}?lease_id={other['id']}"))[1]["allocations"]
        assert sum(len(each["reservations"]) for each in filtered) == 1
        single = f"/v1/os-hosts/1/allocation?reservation_id={ids[0]}"
        answer = (await api.call("root", "GET", single))[1]["allocation"]
        assert (answer["resource_id"], [each["id"] for each in answer["reservations"]]) == ("1", [ids[0]])


async def test_private_properties_are_listed_for_who_runs_the_hosts(store: Store) -> None:
    async with blazar(store) as api:
        await api.call("root", "PUT", "/v1/os-hosts/1", {"rack": "r1", "owner": "x"})
        await api.call("root", "PUT", "/v1/os-hosts/2", {"rack": "r2"})
        path = "/v1/os-hosts/properties"
        status, answer = await api.call("root", "PATCH", f"{path}/owner", {"private": True})
        assert (status, answer["resource_property"]["property_name"]) == (200, "owner")
        assert answer["resource_property"]["private"] is True
        assert (await api.call("anna", "GET", path))[1]["resource_properties"] == [{"property": "rack"}]
        detail = (await api.call("anna", "GET", f"{path}?detail=True"))[1]["resource_properties"]
        assert detail == [{"property": "rack", "private": False, "values": ["r1", "r2"]}]
        everything = (await api.call("root", "GET", f"{path}?detail=True&all=True"))[1]
        assert [(each["property"], each["private"]) for each in everything["resource_properties"]] == [
            ("owner", True),
            ("rack", False),
        ]
        assert len((await api.call("root", "GET", path))[1]["resource_properties"]) == 1
        assert (await api.refused("anna", "GET", f"{path}?all=True"))[0] == 403
        await api.call("root", "PATCH", f"{path}/owner", {"private": False})
        assert len((await api.call("anna", "GET", path))[1]["resource_properties"]) == 2


async def test_a_failed_or_held_host_is_not_reservable_and_says_why(here: Store) -> None:
    async with blazar(here) as api:
        until_ns = api.service.clock.now_ns + HOUR_NS
        await api.service.keeper.hold_host(HostId("h1"), "new disks", until_ns, "root")
        shown = (await api.call("root", "GET", "/v1/os-hosts/1"))[1]["host"]
        assert (shown["reservable"], shown["health"]["reason"]) == (False, "held by root: new disks")


# ---- the edge ----


async def test_there_is_no_plug_in_for_floating_ips_and_one_line_says_so(here: Store) -> None:
    async with blazar(here) as api:
        for method, path in (
            ("GET", "/v1/floatingips"),
            ("POST", "/v1/floatingips"),
            ("GET", "/v1/floatingips/1"),
            ("DELETE", "/v1/floatingips/1"),
        ):
            status, said = await api.refused("anna", method, path)
            assert (status, said.count("\n")) == (404, 0)
            assert said.startswith("The virtual:floatingip resource type is not supported: no such plug-in")
        assert await api.call("anna", "GET", "/v1/plugins") == (
            200,
            {"plugins": ["physical:host", "virtual:instance"]},
        )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/leases?status=ACTIVE", "Unknown query parameter 'status'; known here are: none at all"),
        ("/v1/os-hosts?reservable=1", "Unknown query parameter 'reservable'"),
        (
            "/v1/os-hosts/allocations?host=1",
            "Unknown query parameter 'host'; known here are: lease_id, reserv",
        ),
        ("/v1/os-hosts/properties?detail=maybe", "Malformed parameter detail (True or False)"),
        ("/v1/os-hosts/properties?all=1&all=0", "Each of all may be given once"),
    ],
)
async def test_a_query_that_would_be_ignored_is_refused(here: Store, path: str, said: str) -> None:
    async with blazar(here) as api:
        status, message = await api.refused("root", "GET", path)
        assert status == 400 and said in message


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"{", "application/json", "Malformed body: no JSON"),
        (b"[]", "application/json", "Malformed parameter body (a JSON object)"),
        (b"\xff\xfe", "application/json", "Malformed body: no JSON"),
        (
            b"name=l",
            "application/x-www-form-urlencoded",
            "Content type 'application/x-www-form-urlencoded' isn't",
        ),
        (b"", "application/json", "Missing parameter end_date, name, start_date"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    here: Store, content: bytes, kind: str, said: str
) -> None:
    async with blazar(here) as api:
        headers = {"X-Auth-Token": "hs_anna", "Content-Type": kind}
        answer = await api.http.post("/v1/leases", content=content, headers=headers)
        assert (answer.status_code, said in answer.json()["error_message"]) == (400, True), answer.text


async def test_an_unknown_path_and_method_have_the_same_form(here: Store) -> None:
    async with blazar(here) as api:
        assert (await api.refused("anna", "GET", "/v2/leases"))[0] == 404
        assert (await api.refused("anna", "PATCH", "/v1/leases"))[0] == 405


async def test_every_answer_names_the_version_it_is_of(here: Store) -> None:
    async with blazar(here) as api:
        answer = await api.http.get("/v1/leases", headers={"X-Auth-Token": "hs_anna"})
        assert answer.headers["OpenStack-API-Version"] == "reservation 1.0"
        assert "hs_anna" not in answer.text
