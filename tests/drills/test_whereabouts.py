"""Whose data is on the disk that is hit, and who holds an address: from a site's words to a row."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import yaml
from broken_host import BrokenHost
from drilled_site import free_port
from played_run import Played

from engines import needs
from homeostat.drills.actions import DiskFault, Victim
from homeostat.drills.model import Dependant, HolderMoved
from homeostat.drills.planning.blast_radius import dependants_in, services_used_by, verdict_services
from homeostat.drills.planning.preflight import HOLDERS_HELD_S, Preflight
from homeostat.drills.planning.preparation import injector_order
from homeostat.drills.planning.service_client import ServiceClient
from homeostat.drills.records.facts import DependantsSeen, Fact, HolderSeen
from homeostat.drills.site import Site, read_site
from homeostat.drills.transports.connections import Transports
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import RowReason, VerdictRow
from homeostat.kernel.errors import BadInput
from homeostat.monitors.verdicts import Verdict

MIB = 1 << 20


def site_of(folder: Path, services: dict[str, Any], hosts: dict[str, Any] | None = None) -> Site:
    """A site with hosts n1 and n2."""
    given = {"site": "cloud", "hosts": hosts or {"n1": {"config": "n1.yaml"}, "n2": {"config": "n2.yaml"}}}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({**given, "services": services}))
    return read_site(path)


def services(data: str | None = "/var/lib/mysql") -> dict[str, Any]:
    """An API that uses a database through another service; the database is on n1."""
    on_n1 = {"profile": "mariadb"} | ({"data": data} if data else {})
    web = {"endpoint": "http://10.0.0.1:80", "uses": ["token"]}
    return {
        "web": {**web, "hosts": {each: {"profile": "web"} for each in ("n1", "n2")}},
        "token": {"uses": ["database"], "hosts": {"n1": {"profile": "token"}}},
        "database": {"hosts": {"n1": on_n1}},
        "mail": {"hosts": {"n1": {"profile": "mail", "data": "/var/mail"}}},
    }


# ---- from the site to what the host is asked ------------------------------------------------------------


@pytest.mark.seed("000 I16 the disk that is hit is the one of the service's data")
def test_a_disk_is_hit_where_the_data_of_the_target_lies_or_of_what_it_uses(tmp_path: Path) -> None:
    site = site_of(tmp_path, services())
    fault = DiskFault("disk", Victim(service="web"), 1000)
    assert services_used_by(site, ["web"]) == ("web", "token", "database")
    order = injector_order(site, fault, "n1", "r-1", 30)
    assert list(order["target"]["data"].items()) == [("database", "/var/lib/mysql"), ("mail", "/var/mail")]
    assert "data" not in injector_order(site, fault, "n2", "r-1", 30)["target"]


def test_services_may_use_each_other_in_a_ring(tmp_path: Path) -> None:
    given = services()
    given["database"]["uses"] = ["web"]
    assert services_used_by(site_of(tmp_path, given), ["token"]) == ("token", "database", "web")


def test_only_what_decides_and_what_it_uses_counts(tmp_path: Path) -> None:
    drill = Played().drill
    assert verdict_services(site_of(tmp_path, services()), drill) == ("web", "token", "database")
    shown = replace(drill, checks=tuple(each for each in drill.checks if each.kind != "service_outage"))
    assert verdict_services(site_of(tmp_path, services()), shown) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"web": {"uses": ["nobody"]}}, "services.web.uses: nobody is no other service here"),
        ({"web": {"uses": ["web"]}}, "services.web.uses: web is no other service here"),
        ({"mail": {"hosts": {"n1": {"profile": "mail", "data": "var/mail"}}}}, "an absolute path"),
    ],
)
def test_a_site_says_what_is_there(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    given = services()
    for name, words in change.items():
        given[name] |= words
    with pytest.raises(BadInput, match=said):
        site_of(tmp_path, given)


# ---- on the host ------------------------------------------------------------------------------------------


def planned(host: BrokenHost, **target: Any) -> dict[str, Any]:
    """The plan section of a disk fault."""
    given = {"size_mib": 1, "floor_mib": 64, **target}
    return host.good("plan", host.order("node_disk", given))


def test_a_host_says_whose_data_lies_on_the_disk(host: BrokenHost) -> None:
    here = host.root / "mysql"
    here.mkdir()
    data = {"database": str(here), "queue": "/dev/shm", "gone": str(host.root / "none")}
    plan = planned(host, data=data)
    assert Path(plan["path"]).parent == host.root, "beside the data, where we may write"
    assert [(each["service"], each["on_it"]) for each in plan["data"]] == [
        ("database", True),
        ("queue", False),
        ("gone", False),
    ]
    seen = dependants_in(plan, ["database", "gone"])
    assert seen.on_it == (f"database in {here}",)
    assert seen.beside == (f"gone in {host.root / 'none'}",)
    assert ":" in seen.device


@needs("shared-memory")
def test_the_first_data_that_can_be_hit_decides_which_disk(host: BrokenHost) -> None:
    shared = Path("/dev/shm")
    host.permit(writable_paths=[str(host.root), str(shared)])
    data = {"elsewhere": "/proc", "queue": str(shared), "database": str(host.root)}
    assert Path(planned(host, data=data)["path"]).parent == shared
    assert Path(planned(host, data=data, folder=str(host.root))["path"]).parent == host.root


# ---- rows ----------------------------------------------------------------------------------------------


def row(check: Dependant | HolderMoved, *facts: tuple[float, Fact]) -> tuple[VerdictRow, Verdict]:
    """The row of one more check in a clean run, and the verdict."""
    played = Played()
    played.drill = replace(played.drill, checks=(*played.drill.checks, check))
    for at_ms, fact in facts:
        played = played.also(at_ms, fact)
    judgement = judge(played.evidence)
    (found,) = [each for each in judgement.rows if each.requirement == check.requirement]
    return found, judgement.verdict


DEPENDANT = Dependant("dependant", "R7.8")
ON = DependantsSeen("7:0 (loop0)", ("database in /var/lib/mysql",), ())
BESIDE = DependantsSeen("7:0 (loop0)", (), ("database in /var/lib/mysql",))


@pytest.mark.seed("000 I16 a disk that nothing monitored uses proves nothing, and says so")
@pytest.mark.parametrize(
    ("facts", "verdict", "why"),
    [
        ([(2_000, ON)], Verdict.PASS, RowReason.DEPENDANT),
        ([(2_000, BESIDE)], Verdict.INCONCLUSIVE, RowReason.NO_DEPENDANT),
        ([(2_000, DependantsSeen("7:0", (), ()))], Verdict.INCONCLUSIVE, RowReason.NO_DEPENDANT),
        ([(2_000, BESIDE), (2_100, ON)], Verdict.PASS, RowReason.DEPENDANT),
        ([], Verdict.ERROR, RowReason.NOT_LOOKED),
        ([(5_000, ON)], Verdict.ERROR, RowReason.NOT_LOOKED),
    ],
)
def test_a_disk_without_a_dependant_does_not_count(
    facts: list[tuple[float, Fact]], verdict: Verdict, why: RowReason
) -> None:
    found, whole = row(DEPENDANT, *facts)
    assert (found.result, found.why, whole) == (verdict, why, verdict)
    assert found.binding


def seen(when: Any, *hosts: str, silent: tuple[str, ...] = ()) -> HolderSeen:
    return HolderSeen("balancer", when, hosts, silent)


MOVED = HolderMoved("holder_moved", "R8.1", "balancer")


@pytest.mark.parametrize(
    ("facts", "verdict", "why"),
    [
        (
            [seen("before", "n1"), seen("during", "n2"), seen("after", "n1")],
            Verdict.PASS,
            RowReason.HOLDER_MOVED,
        ),
        ([seen("before", "n1"), seen("after", "n2")], Verdict.PASS, RowReason.HOLDER_MOVED),
        ([seen("before", "n1"), seen("during"), seen("after", "n1")], Verdict.FAIL, RowReason.HOLDER_STAYED),
        ([seen("before", "n1"), seen("after", "n1")], Verdict.FAIL, RowReason.HOLDER_STAYED),
        ([seen("before", "n1"), seen("after", "n1", "n2")], Verdict.INCONCLUSIVE, RowReason.HOLDER_UNKNOWN),
        (
            [seen("before", "n1"), seen("after", silent=("n2",))],
            Verdict.INCONCLUSIVE,
            RowReason.HOLDER_UNKNOWN,
        ),
        (
            [seen("before", "n1", silent=("n2",)), seen("after", "n2", silent=("n1",))],
            Verdict.INCONCLUSIVE,
            RowReason.HOLDER_UNKNOWN,
        ),
        (
            [seen("before", "n1", silent=("n2",)), seen("after", "n2")],
            Verdict.INCONCLUSIVE,
            RowReason.HOLDER_UNKNOWN,
        ),
        (
            [seen("before", "n1"), seen("after", "n2", silent=("n1",))],
            Verdict.INCONCLUSIVE,
            RowReason.HOLDER_UNKNOWN,
        ),
        ([seen("before", "n1"), seen("after", "n2", silent=("n3",))], Verdict.PASS, RowReason.HOLDER_MOVED),
        (
            [seen("before", "n1"), seen("during", "n2", silent=("n1",)), seen("after", "n2")],
            Verdict.PASS,
            RowReason.HOLDER_MOVED,
        ),
        ([seen("before", "n1", "n2"), seen("after", "n2")], Verdict.ERROR, RowReason.HOLDER_UNKNOWN),
        ([seen("before"), seen("after", "n2")], Verdict.ERROR, RowReason.HOLDER_UNKNOWN),
        ([seen("before", "n1")], Verdict.ERROR, RowReason.NOT_LOOKED),
        ([seen("after", "n2")], Verdict.ERROR, RowReason.NOT_LOOKED),
    ],
)
@pytest.mark.seed("order the address really moves: who holds it is asked of the hosts, before and after")
def test_an_address_has_moved_only_when_another_host_says_so(
    facts: list[HolderSeen], verdict: Verdict, why: RowReason
) -> None:
    found, whole = row(MOVED, *((2_000 + number, fact) for number, fact in enumerate(facts)))
    assert (found.result, found.why, whole) == (verdict, why, verdict)


def test_where_the_address_is_may_inform_only() -> None:
    stayed = ((2_000, seen("before", "n1")), (2_001, seen("after", "n1")))
    found, whole = row(replace(MOVED, weight=MOVED.weight.INFORMATIVE), *stayed)
    assert (found.result, found.binding, whole) == (Verdict.FAIL, False, Verdict.PASS)
    assert found.detail == "before the fault: n1, after the fault: n1"


async def test_who_holds_an_address_is_asked_of_every_host(host: BrokenHost, tmp_path: Path) -> None:
    """Both hosts are this machine, which has the address; one has no file that could be read."""
    on = {each: {"profile": "web"} for each in ("n1", "n2")}
    balancer = {"endpoint": f"tcp://127.0.0.1:{free_port()}", "holder": "address", "hosts": on}
    config = {"n1": {"config": str(host.config)}, "n2": {"config": str(tmp_path / "none.yaml")}}
    site = site_of(tmp_path, {"balancer": balancer}, config)
    async with ServiceClient() as asker, Transports(site, tmp_path) as transports:
        looking = Preflight(site, transports, asker)
        found = await looking.holder("balancer", "before")
        assert (found.hosts, found.silent) == (("n1",), ("n2",))
        assert await looking.holder("balancer", "during", ["n1", "n2"]) == seen("during")


async def test_a_host_that_says_nothing_holds_no_fault_up(tmp_path: Path) -> None:
    """One that takes the connection and never a word more, as a host whose network was cut."""
    endless, taken = asyncio.Event(), asyncio.Event()

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        await endless.wait()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    (tmp_path / "known").write_bytes(f"[127.0.0.1]:{port} ".encode() + key.export_public_key())
    files = {"key_file": str(tmp_path / "key"), "known_hosts_file": str(tmp_path / "known")}
    ssh = {"address": "127.0.0.1", "port": port, "user": "ops", **files}
    balancer = {"endpoint": "tcp://127.0.0.1:80", "holder": "address", "hosts": {"n1": {"profile": "web"}}}
    site = site_of(tmp_path, {"balancer": balancer}, {"n1": {"ssh": ssh}})
    try:
        async with ServiceClient() as asker, Transports(site, tmp_path) as transports:
            asking = Preflight(site, transports, asker).holder("balancer", "during")
            assert await asyncio.wait_for(asking, 10 * HOLDERS_HELD_S) == seen("during", silent=("n1",))
            assert taken.is_set()
    finally:
        endless.set()
        server.close()
        await server.wait_closed()
