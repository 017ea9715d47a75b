"""Drills and a running server: announced, claimed, halted, tagged, reported, and read by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats_voice import Voice

from drill_reports import report
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Intent,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Subjects,
    digest,
    encode,
)
from homeostat.drills.records.facts import BroughtBack, FaultNoticed
from homeostat.drills.running.announcement import (
    Announcer,
    DrillAnnouncement,
    ServerAnnouncer,
    server_announcer,
)
from homeostat.kernel.client import Client
from homeostat.kernel.errors import AlreadyRunning, BadInput, NotAllowed, NotFound, RetryLater
from real_parts import PATIENCE, NatsServer
from running_server import ADMIN, RunningServer, running_server

pytestmark = pytest.mark.e2e

N1 = HostId("n1")


@pytest.fixture
def server(tmp_path: Path, nats: NatsServer) -> Iterator[RunningServer]:
    with running_server(tmp_path, nats) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, shared_nats: NatsServer) -> Iterator[RunningServer]:
    """For tests that do not kill it; each has runs and sites of its own."""
    with running_server(tmp_path_factory.mktemp("server"), shared_nats) as running:
        yield running


def announced(run: str = "r-1", site: str = "lab", **more: Any) -> DrillAnnouncement:
    told = {"drill": "service-down", "suite": None, "hosts": ("n1",), "resources": (), "seed": 7, **more}
    return DrillAnnouncement(run=run, site=site, **told)


def token(server: RunningServer, name: str, role: str, project: str) -> Client:
    made = server.client.call("PUT", f"/tokens/{name}", {"role": role, "project": project})
    return Client(server.url, made["token"])


def eventually(found: Callable[[], Any], what: str, within_s: float = 20) -> Any:
    deadline_s = time.monotonic() + PATIENCE * within_s
    while not (value := found()):
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)
    return value


def command(server: RunningServer, *words: str) -> str:
    environment = {**os.environ, "HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN}
    done = subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.seed("order one drill at a time per cluster: the claim survives kill -9 of the server")
async def test_a_claim_outlives_a_kill_of_the_server_and_a_report_frees_the_site(
    server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(ADMIN + "\n")
    ours, other = server_announcer(server.url + "/", tmp_path / "token"), ServerAnnouncer(server.client)
    await ours.begin(announced())
    with pytest.raises(AlreadyRunning, match="run r-1, begun by admin has it"):
        await other.begin(announced("r-2"))
    assert await ours.renew() is None
    server.kill()
    assert await ours.renew() is None, "a server that starts again stops no drill"
    with pytest.raises(RetryLater):
        await ours.noticed()
    server.start()
    with pytest.raises(AlreadyRunning, match="run r-1"):
        await other.begin(announced("r-2"))
    assert await ours.renew() is None
    await ours.injected(time.time_ns() - 1000, time.time_ns())
    await ours.finish(report("r-1"))
    assert "lapsed" in str(await ours.renew())
    await other.begin(announced("r-2"))
    await other.finish(report("r-2", upper_ms=6_000, lower_ms=5_900))
    rows = json.loads(command(server, "drill", "runs", "--json"))["items"]
    assert [(row["run"], row["verdict"], row["state"]) for row in rows] == [
        ("r-2", "FAIL", "reported"),
        ("r-1", "PASS", "reported"),
    ]
    assert "r-2" in command(server, "drill", "runs", "--limit", "1")
    assert server.client.call("GET", "/drills/runs/r-1")["report"] == report("r-1")
    shown = command(server, "drill", "trends", "service-down")
    assert "outage of web (web), R1.11, limit 5.00 s" in shown
    assert "1 of 2 runs passed" in shown
    (trend,) = json.loads(command(server, "drill", "trends", "--json"))["items"]
    assert [(each["run"], each["upper_ms"]) for each in trend["points"]] == [("r-1", 421), ("r-2", 6000)]
    assert command(server, "drill", "trends", "nothing").startswith("No run has a report.")


@pytest.mark.seed("order drill halt: stops what runs, refuses what begins, until resume")
async def test_a_halt_stops_every_drill_and_refuses_new_ones(server: RunningServer) -> None:
    ours = ServerAnnouncer(server.client)
    await ours.begin(announced())
    await ours.halt("smoke in rack 4")
    assert await ours.renew() == "halted by admin: smoke in rack 4"
    server.kill()
    server.start()
    assert await ours.renew() == "halted by admin: smoke in rack 4"
    with pytest.raises(AlreadyRunning, match="smoke in rack 4"):
        await ServerAnnouncer(server.client).begin(announced("r-2", "other"))
    assert "drills are halted" in command(server, "drill", "runs")
    await ours.resume()
    assert await ours.renew() is None
    await ServerAnnouncer(server.client).begin(announced("r-2", "other"))


async def test_without_a_server_nobody_is_asked_and_a_halt_says_what_to_do() -> None:
    alone = Announcer()
    await alone.begin(announced())
    assert (await alone.renew(), await alone.noticed()) == (None, [])
    with pytest.raises(BadInput, match="node halt"):
        await alone.halt("x")


def level(seq: int, state: ResourceState) -> ResourceStatus:
    return ResourceStatus(
        ResourceId("web"), ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "it died", seq, seq
    )


def seen(*transitions: ResourceTransition) -> bytes:
    return encode(Observations(N1, "b1", 10**12, 1, transitions))


@pytest.mark.seed("order drills are tagged faults: our monitors noticed, how late, and who brought it back")
async def test_a_fault_of_a_drill_is_tagged_heard_and_explained(
    server: RunningServer, nats: NatsServer
) -> None:
    ours, subjects = ServerAnnouncer(server.client), Subjects(N1)
    with Voice(nats.port, "n1", "n1-secret") as n1:
        n1.publish(subjects.heartbeat, encode(Heartbeat(N1, "b1", "i1", 0, digest({}))))
        eventually(lambda: server.client.call("GET", "/nodes")["items"], "n1 joins")
        before_ns = ours.clock.mono_ns()
        await ours.begin(announced())
        assert await ours.noticed() == []
        intent = Intent("web-1", "restart", 20.0, "it died")
        n1.publish(
            subjects.observations, seen(ResourceTransition(level(1, ResourceState.DOWN), 10**9, intent))
        )
        (fault,) = eventually(lambda: server.client.call("GET", "/faults")["items"], "the fault is raised")
        (noticed,) = await ours.noticed()
        assert isinstance(noticed, FaultNoticed)
        assert (noticed.fault, noticed.kind) == (fault["id"], "resource_down")
        assert before_ns < noticed.after_ns < noticed.by_ns < ours.clock.mono_ns()
        assert await ours.noticed() == [], "each is told once"
        n1.publish(subjects.observations, seen(ResourceTransition(level(2, ResourceState.UP), 2 * 10**9)))
        eventually(lambda: server.client.call("GET", "/drills/runs/r-1/noticed")["brought_back"], "it is up")
        assert await ours.noticed() == [BroughtBack("web", "itself: no act of ours")]
    assert fault["drill"] == "r-1"
    assert "r-1" in command(server, "fault", "ls")
    assert "broken on purpose by the drill r-1" in command(server, "explain", fault["id"])
    blue = token(server, "blue", "operator", "blue")
    assert blue.call("GET", f"/faults/{fault['id']}")["drill"] == "r-1", "who is hurt is told why"
    await ours.finish(report("r-1"))
    assert server.client.call("GET", f"/faults/{fault['id']}")["drill"] == "r-1"


def refused(client: Client, kind: type[Exception], method: str, path: str, body: object = None) -> str:
    with pytest.raises(kind) as error:
        client.call(method, path, body)
    return str(error.value)


@pytest.mark.seed("order owner rules of drills: operators drill, viewers read, consumers read nothing of it")
async def test_who_may_drill_and_who_may_read_it(shared: RunningServer) -> None:
    wanted = {"run": "r-9", "drill": "d", "site": "s", "hosts": ["n1"]}
    roles = {name: token(shared, name, name, "blue") for name in ("operator", "viewer", "consumer")}
    eyes = token(shared, "eyes", "viewer", "infrastructure")
    await ServerAnnouncer(shared.client).begin(announced())
    for name in ("viewer", "consumer"):
        for path, body in (
            ("/drills/runs", wanted),
            ("/drills/halt", {"why": "x"}),
            ("/drills/resume", None),
        ):
            refused(roles[name], NotAllowed, "POST", path, body)
    items = eyes.call("GET", "/drills/runs")["items"]
    assert [row["run"] for row in items if row["site"] == "lab"] == ["r-1"]
    refused(eyes, NotAllowed, "POST", "/drills/runs/r-1/renew")
    refused(eyes, NotAllowed, "PUT", "/drills/runs/r-1/report", report("r-1"))
    for client in roles.values():
        assert client.call("GET", "/drills/runs")["items"] == []
        for method, path, body in (
            ("GET", "", None), ("GET", "/noticed", None), ("POST", "/renew", None),
            ("POST", "/injected", {"before_ns": 1, "after_ns": 2}), ("PUT", "/report", report("r-1")),
        ):  # fmt: skip
            refused(client, NotFound, method, f"/drills/runs/r-1{path}", body)
    operator = roles["operator"]
    refused(operator, NotAllowed, "POST", "/drills/runs", wanted | {"resources": ["somebody-s"]})
    assert operator.call("POST", "/drills/runs", wanted)["project"] == "blue"
    assert [row["run"] for row in roles["viewer"].call("GET", "/drills/runs")["items"]] == ["r-9"]
    assert roles["consumer"].call("GET", "/drills/runs")["items"] == []
    assert roles["consumer"].call("GET", "/drills/trends")["items"] == []
    shared.client.call("POST", "/drills/halt", {"why": "secret reasons"})
    assert roles["viewer"].call("GET", "/drills/runs")["halt"]["why"] is None
    assert "administrator" in refused(operator, NotAllowed, "POST", "/drills/resume")
    shared.client.call("POST", "/drills/resume")


async def test_what_makes_no_sense_is_one_field(shared: RunningServer) -> None:
    await ServerAnnouncer(shared.client).begin(announced("r-5", "no-sense"))
    client, runs = shared.client, "/drills/runs"
    told = report("r-5")
    for method, path, body, field in (
        ("POST", runs, {"run": "r-6", "drill": "d", "site": "s"}, "hosts"),
        ("POST", runs, {"run": "../x", "drill": "d", "site": "s", "hosts": ["n1"]}, "run"),
        ("POST", f"{runs}/r-5/injected", {"before_ns": 2, "after_ns": 1}, "after_ns"),
        ("PUT", f"{runs}/r-5/report", told | {"run": "r-6"}, "run"),
        ("PUT", f"{runs}/r-5/report", told | {"drill": "other"}, "drill"),
        ("PUT", f"{runs}/r-5/report", told | {"verdict": "GREEN"}, "verdict"),
        ("PUT", f"{runs}/r-5/report", told | {"window_ms": float("nan")}, "report"),
        ("POST", "/drills/halt", {"why": ""}, "why"),
    ):
        with pytest.raises(BadInput) as error:
            client.call(method, path, body)
        assert error.value.field == field
    assert client.call("GET", f"{runs}/r-5")["state"] == "running"
