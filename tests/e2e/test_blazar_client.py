"""The unmodified python-blazarclient: every command of leases, hosts, properties and allocations works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from blazar_client import BlazarClient, BlazarLab, ClientProcess, admin_token, blazar_lab, http_basic

pytestmark = pytest.mark.e2e

FLOATING_IPS = {"floatingip-list", "floatingip-show", "floatingip-create", "floatingip-delete"}
HOST = "resource_properties=" + '["=", "$rack", "r1"]'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlazarLab]:
    """A lab with the listener."""
    with blazar_lab(tmp_path_factory.mktemp("blazar") / "state") as started:
        yield started


@pytest.fixture(scope="module")
def process() -> Iterator[ClientProcess]:
    """A process for the commands of which only the answers matter."""
    started = ClientProcess()
    yield started
    started.close()


def by(way: str, lab: BlazarLab, process: ClientProcess) -> BlazarClient:
    """An administrator, by one of the two ways to say so."""
    if way == "http_basic":
        return http_basic(lab.url, "admin", lab.admin, process)
    return admin_token(lab.url, lab.admin, process)


@pytest.fixture
def root(lab: BlazarLab, process: ClientProcess) -> BlazarClient:
    """An administrator."""
    return admin_token(lab.url, lab.admin, process)


class Counted:
    """A client that notes which commands it was asked for, and starts a process for the first of each."""

    def __init__(self, first: BlazarClient, more: BlazarClient) -> None:
        self._first, self._more, self.commands = first, more, set[str]()

    def _client(self, command: str) -> BlazarClient:
        known = command in self.commands
        self.commands.add(command)
        return self._more if known else self._first

    def done(self, *words: str) -> str:
        return self._client(words[0]).done(*words).out

    def shown(self, *words: str) -> Any:
        return self._client(words[0]).shown(*words)


@pytest.mark.parametrize("way", ["admin_token", "http_basic"])
@pytest.mark.seed("003 flags lease")
def test_the_sixteen_commands_work(way: str, lab: BlazarLab, process: ClientProcess) -> None:
    """With `admin_token` each is a process of its own."""
    client = by(way, lab, process)
    said = Counted(admin_token(lab.url, lab.admin) if way == "admin_token" else client, client)
    for host, rack in (("n1", "r1"), ("n2", "r1"), ("n3", "r2")):
        made = said.shown("host-create", host, "--extra", f"rack={rack}", "--extra", "old=1")
        assert made["hypervisor_hostname"] == host and made["rack"] == rack and made["reservable"] is True
    listed = said.shown("host-list")
    assert [row["hypervisor_hostname"] for row in listed] == ["n1", "n2", "n3"]
    assert "Updated host: n3" in said.done("host-update", "n3", "--extra", "ssd=yes")
    assert "Updated host: n3" in said.done("host-unset", "n3", "--extra", "old")
    shown = said.shown("host-show", "n3")
    assert shown["ssd"] == "yes" and "old" not in shown
    assert said.shown("host-show", shown["id"]) == shown

    (rack,) = [row for row in said.shown("host-property-list", "--detail") if row["property"] == "rack"]
    assert rack == {"property": "rack", "private": False, "property_values": ["r1", "r2"]}
    said.done("host-property-set", "rack", "--private")
    assert "rack" not in [row["property"] for row in said.shown("host-property-list")]
    assert "rack" in [row["property"] for row in said.shown("host-property-list", "--all")]
    said.done("host-property-set", "rack", "--public")
    assert said.shown("host-property-show", "rack")["property_values"] == ["r1", "r2"]

    two = ("--physical-reservation", f"min=1,max=2,{HOST}")
    dates = ("--start-date", "2030-01-01 10:00", "--end-date", "2030-01-01 12:00")
    lease = said.shown("lease-create", "kept", *two, *dates)
    assert (lease["status"], lease["degraded"]) == ("PENDING", False)
    assert lease["start_date"] == "2030-01-01T10:00:00.000000"
    part = "resource_type=virtual:instance,vcpus=0,memory_mb=1,disk_gb=0,amount=1,affinity=None"
    assert "Malformed parameter vcpus" in client.blazar("lease-create", "part", "--reservation", part).error

    assert [row["name"] for row in said.shown("lease-list")] == ["kept"]
    assert said.shown("lease-show", "kept") == said.shown("lease-show", lease["id"]) == lease
    said.done("lease-update", "kept", "--name", "held", "--prolong-for", "1h", "--defer-by", "30m")
    after = said.shown("lease-show", "held")
    assert after["start_date"] == "2030-01-01T10:30:00.000000"
    assert after["end_date"] == "2030-01-01T13:00:00.000000"

    rows = said.shown("allocation-list", "host", "--lease-id", lease["id"])
    assert [len(row["reservations"]) for row in rows] == [1, 1, 0]
    reservation = rows[0]["reservations"][0]["id"]
    single = said.shown("allocation-show", "host", "n1", "--reservation-id", reservation)
    assert lease["id"] in str(single["reservations"])
    said.done("lease-update", "held", "--reservation", f"id={reservation},min=1,max=1")
    rows = said.shown("allocation-list", "host", "--lease-id", lease["id"])
    assert sum(len(row["reservations"]) for row in rows) == 1

    refused = client.blazar("host-delete", rows[0]["resource_id"]).error
    if any(row["reservations"] for row in rows[:1]):
        assert refused.startswith("The host is reserved: Can't delete host n1")
    assert "Deleted lease: held" in said.done("lease-delete", "held")
    assert said.done("lease-list").strip() == ""
    for host in ("n1", "n2", "n3"):
        said.done("host-delete", host)
    commands = client.script(
        "from blazarclient.shell import COMMANDS_V1; print(json.dumps(list(COMMANDS_V1)))"
    )
    assert said.commands == set(commands) - FLOATING_IPS
    assert len(said.commands) == 16


@pytest.mark.parametrize("way", ["admin_token", "http_basic"])
def test_the_four_of_floating_ips_say_that_there_is_no_such_plug_in(
    way: str, lab: BlazarLab, process: ClientProcess
) -> None:
    client = by(way, lab, process)
    for words in (
        ("floatingip-list",),
        ("floatingip-show", "1"),
        ("floatingip-create", "net", "192.0.2.7"),
        ("floatingip-delete", "1"),
    ):
        said = client.blazar(*words)
        assert said.error.startswith("The virtual:floatingip resource type is not supported: no such plug-in")
        assert len(said.err.strip().splitlines()) == 1


def test_openstack_has_the_same_leases(root: BlazarClient) -> None:
    root.done("host-create", "n1")
    try:
        root.done(
            *("lease-create", "both", "--end-date", "2030-01-01 12:00"),
            *("--physical-reservation", "min=1,max=1"),
        )
        listed = root.openstack("lease", "list", "-f", "json")
        assert listed.code == 0, listed.err
        assert listed.json == root.shown("lease-list")
        shown = root.openstack("lease", "show", "both", "-f", "json").json
        assert shown["name"] == "both" and shown["status"] in ("PENDING", "STARTING", "ACTIVE"), (
            "it starts now"
        )
        root.done("lease-delete", "both")
    finally:
        root.done("host-delete", "n1")


PYTHON = """
from blazarclient import client
from keystoneauth1 import session, token_endpoint
blazar = client.Client(1, session=session.Session(token_endpoint.Token(url, token)))
host = blazar.host.create("n2", rack="r1")
wanted = dict(resource_type="physical:host", min=1, max=1, hypervisor_properties="",
              resource_properties='["=", "$rack", "r1"]', before_end="default")
lease = blazar.lease.create("mine", "2030-01-01 10:00", "2030-01-01 12:00", [wanted], [])
longer = blazar.lease.update(lease["id"], prolong_for="1h", reservations=[
    dict(id=lease["reservations"][0]["id"], max=1)])
found = dict(
    host=blazar.host.get(host["id"])["hypervisor_hostname"],
    leases=[each["name"] for each in blazar.lease.list(sort_by="name")],
    end=longer["end_date"],
    allocation=[each["lease_id"] == lease["id"] for each in
                blazar.allocation.get("os-hosts", host["id"])["reservations"]],
    properties=blazar.host.list_properties(detail=True),
    health=lease["reservations"][0]["health"],
)
from blazarclient import exception
try:
    blazar.lease.create("late", "2001-01-01 10:00", "2030-01-01 12:00", [wanted], [])
except exception.BlazarClientException as error:
    found["refused"] = [error.kwargs["code"], str(error)]
blazar.lease.delete(lease["id"])
blazar.host.delete(host["id"])
old = client.Client(1, blazar_url=url, auth_token=token)
found["after"] = [old.lease.list(), old.host.list()]
print(json.dumps(found))
"""


def test_a_program_uses_the_client_class(lab: BlazarLab) -> None:
    found = admin_token(lab.url, lab.admin).script(PYTHON)
    assert found == {
        "host": "n2",
        "leases": ["mine"],
        "end": "2030-01-01T13:00:00.000000",
        "allocation": [True],
        "properties": [{"property": "rack", "private": False, "property_values": ["r1"]}],
        "health": {"reason": ""},
        "refused": [
            400,
            "ERROR: Start date must be later than current date: start_date is 2001-01-01 10:00 UTC",
        ],
        "after": [[], []],
    }


def test_another_project_sees_nothing_and_a_viewer_changes_nothing(
    lab: BlazarLab, root: BlazarClient, process: ClientProcess
) -> None:
    blue = http_basic(lab.url, "blue-op", lab.token("blue-op", "operator", "blue"), process)
    green = admin_token(lab.url, lab.token("green-op", "operator", "green"), process)
    watcher = admin_token(lab.url, lab.token("blue-viewer", "viewer", "blue"), process)
    nobody = BlazarClient(lab.url, ("--os-auth-type", "none"), process)
    root.done("host-create", "n3")
    try:
        one = ("--physical-reservation", "min=1,max=1", "--end-date", "2030-01-01 12:00")
        lease = blue.shown("lease-create", "ours", *one)
        assert (lease["project_id"], lease["user_id"]) == ("blue", "blue-op")
        assert green.done("lease-list").out.strip() == ""
        foreign = green.blazar("lease-delete", lease["id"]).error
        assert foreign == f"Object with {{'lease_id': '{lease['id']}'}} not found"
        assert [row["name"] for row in watcher.shown("lease-list")] == ["ours"]
        assert "Policy doesn't allow blazar:leases:delete" in watcher.blazar("lease-delete", "ours").error
        assert "Policy doesn't allow blazar:oshosts:get" in blue.blazar("host-list").error
        full = green.blazar("lease-create", "too", *one).error
        assert full.startswith("Not enough hosts available: 1 wanted, 0 free in this window; free from 2030-")
        assert "requires authentication: this token is not known" in nobody.blazar("lease-list").error
        blue.done("lease-delete", "ours")
    finally:
        root.done("host-delete", "n3")
