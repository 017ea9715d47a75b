"""A server that cannot hear, or cannot write, says so in every view, and shows nothing as good meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeostat.contracts.health import (
    Impairment,
    ServerHealth,
    ServerSigns,
    judge_health,
    known_set_points,
    overall_state,
)
from homeostat.contracts.nouns import (
    HostId,
    Owner,
    ResourceId,
    ResourceKind,
    ResourceState,
    SetPoint,
    SetPointState,
)
from homeostat.contracts.wire import (
    Heartbeat,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Subjects,
    digest,
    encode,
)
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.errors import HomeostatError
from real_parts import PATIENCE, NatsServer
from running_server import ADMIN, RunningServer

N1, WEB = HostId("n1"), ResourceId("web")
KEPT, BROKEN, UNKNOWN = SetPointState.KEPT, SetPointState.BROKEN, SetPointState.UNKNOWN


class SpeakingNode:
    """The node n1, on which the service `web` is up until `web_dies` is set. It speaks until told not to."""

    def __init__(self, nats: NatsServer) -> None:
        self.web_dies = threading.Event()
        self._nats, self._stop = nats, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._speak()), daemon=True)

    async def _speak(self) -> None:
        bus = Bus(BusSettings(self._nats.url, "n1", "n1-secret", "test"))
        running = asyncio.create_task(bus.run())
        while not self._stop.is_set():
            states = (ResourceState.UP, ResourceState.DOWN)[: 1 + self.web_dies.is_set()]
            said = Observations(N1, "b1", 10**12, 1, tuple(map(web_is, states, (1, 2))))
            beat = Heartbeat(N1, "b1", "i1", len(states), digest({WEB: states[-1]}))
            await bus.publish(Subjects(N1).heartbeat, encode(beat))
            await bus.publish(Subjects(N1).observations, encode(said))
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def __enter__(self) -> SpeakingNode:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fall_silent()

    def fall_silent(self) -> None:
        self._stop.set()
        self._thread.join()


def web_is(state: ResourceState, seq: int) -> ResourceTransition:
    level = ResourceStatus(WEB, ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "", seq, seq)
    return ResourceTransition(level, seq)


def soon(true: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + PATIENCE * within_s
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)


def command(server: RunningServer, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN},
    )


def state_of_web(server: RunningServer) -> str:
    try:
        return str(server.client.call("GET", "/resources/web")["state"])
    except HomeostatError:
        return ""


@pytest.fixture
def server(tmp_path: Path, nats: NatsServer) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path, nats)
    try:
        running.start()
        yield running
    finally:
        running.kill()


def shows_nothing_good(server: RunningServer, reason: str, word: str) -> None:
    """Every view at this moment; `reason` is in all of them, `word` the label of the metric."""
    assert server.status("/healthz") == 503
    answer = server.client.call("GET", "/status")
    assert answer["standing"] != "kept"
    assert reason in answer["reason"]
    of_nodes = [row for row in answer["items"] if row["component"] in ("fleet", "faults")]
    assert of_nodes and not [row for row in of_nodes if row["standing"] == "kept"]
    assert all(reason in row["detail"] for row in of_nodes)
    (host,) = server.client.call("GET", "/hosts")["items"]
    assert (host["state"], host["agent"]) != ("up", "present") and host["state"] != "up"
    assert reason in host["doubt"]
    web = server.client.call("GET", "/resources/web")
    assert (web["state"], web["pid"]) == ("unknown", None)
    assert reason in web["reason"]
    page = server.get("/metrics")[1]
    assert f'homeostat_impaired{{reason="{word}"}} 1.0' in page
    assert 'homeostat_set_point_value{component="fleet"' not in page
    assert 'homeostat_nodes{agent="present"} 0.0' in page
    assert not re.search(r"^homeostat_faults_open\{", page, re.MULTILINE)
    for words in (("status",), ("fault", "ls")):
        ended = command(server, *words)
        first = ended.stderr.splitlines()[:1]
        assert first and first[0].startswith("homeostat: the server cannot "), ended
        assert reason in first[0] and "may be old" in first[0]
        assert ended.returncode == (1 if words == ("status",) else 0), ended


def page_of(server: RunningServer) -> Callable[[str], str]:
    """The pages of a browser that is logged in."""
    import http.cookiejar
    import urllib.request

    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(jar)
    link = server.client.call("POST", "/console-links")["path"]
    opener.open(server.url + link).read()
    return lambda path: opener.open(server.url + path).read().decode()


@pytest.mark.seed("order never greener than the truth: a server that cannot write or hear says so everywhere")
def test_without_nats_every_view_says_that_nothing_is_heard(server: RunningServer, nats: NatsServer) -> None:
    with SpeakingNode(nats):
        soon(lambda: state_of_web(server) == "up", "the node was heard")
        pages = page_of(server)
        assert 'class="impaired"' not in pages("/console/")
        assert command(server, "status").stderr == ""
        nats.kill()
        soon(lambda: server.status("/healthz") == 503, "the loss is noticed")
        shows_nothing_good(server, "NATS is not connected", "nats_down")
        for path in ("/console/", "/console/faults", "/console/journal", "/console/drills"):
            assert 'class="impaired" role="alert"' in pages(path), path
            assert "NATS is not connected" in pages(path), path
        assert "Every set point is kept" not in pages("/console/")
        assert '<span class="state good">up</span>' not in pages("/console/")
        nats.start()
        soon(lambda: server.status("/healthz") == 200, "it is heard again")
        soon(lambda: state_of_web(server) == "up", "what it says counts again")
        assert command(server, "status").stderr == ""


def test_a_server_that_hears_no_node_says_so(server: RunningServer, nats: NatsServer) -> None:
    with SpeakingNode(nats) as node:
        soon(lambda: state_of_web(server) == "up", "the node was heard")
        node.fall_silent()
        soon(lambda: server.status("/healthz") == 503, "the silence is noticed")
        shows_nothing_good(server, "the one node that should report is not heard", "no_node_heard")
        server.kill()
        server.start()
        assert state_of_web(server) == "unknown", "no node was heard since the start"
    with SpeakingNode(nats):
        soon(lambda: state_of_web(server) == "up", "it is heard")


def test_a_server_whose_store_is_gone_says_so(
    server: RunningServer, nats: NatsServer, tmp_path: Path
) -> None:
    with SpeakingNode(nats):
        soon(lambda: state_of_web(server) == "up", "the node was heard")
        (tmp_path / "homeostat.db").rename(tmp_path / "away.db")
        body = {"role": "viewer", "project": "blue"}
        with pytest.raises(HomeostatError, match="is gone"):
            server.client.call("PUT", "/tokens/somebody", body)
        assert server.status("/healthz") == 503
        answer: dict[str, Any] = server.client.call("GET", "/status")
        assert answer["standing"] == "unknown" and "is gone" in answer["reason"]
        assert {row["standing"] for row in answer["items"]} == {"unknown"}
        assert state_of_web(server) == "unknown"
        assert 'homeostat_impaired{reason="store_unavailable"} 1.0' in server.get("/metrics")[1]
        assert command(server, "status").returncode == 1


@pytest.mark.parametrize(
    ("signs", "found", "can_write", "can_hear"),
    [
        (ServerSigns(), (), True, True),
        (ServerSigns(expected=3, heard=1), (), True, True),
        (ServerSigns(store_full="no room"), (Impairment.STORE_FULL,), False, True),
        (ServerSigns(term="late"), (Impairment.TERM_IN_DOUBT,), False, True),
        (ServerSigns(connected=False, expected=3, evidence="x"), (Impairment.NATS_DOWN,), True, False),
        (ServerSigns(expected=3, evidence="x"), (Impairment.NO_NODE_HEARD,), True, False),
        (ServerSigns(expected=3, heard=1, evidence="x"), (Impairment.EVIDENCE_LOST,), True, False),
        (
            ServerSigns(store_unavailable="gone", connected=False),
            (Impairment.STORE_UNAVAILABLE, Impairment.NATS_DOWN),
            False,
            False,
        ),
    ],
)
def test_what_can_be_known_follows_from_the_signs(
    signs: ServerSigns, found: tuple[Impairment, ...], can_write: bool, can_hear: bool
) -> None:
    health = judge_health(signs)
    assert tuple(each for each, _ in health.impairments) == found
    assert (health.can_write, health.can_hear) == (can_write, can_hear)
    assert bool(health.reason) == bool(health.warning) == bool(found)


DEAF = judge_health(ServerSigns(connected=False))
MUTE = judge_health(ServerSigns(store_full="no room"))


@pytest.mark.parametrize(
    ("states", "health", "expected", "overall"),
    [
        ((KEPT, KEPT), ServerHealth(), (KEPT, KEPT), KEPT),
        ((KEPT, UNKNOWN), ServerHealth(), (KEPT, UNKNOWN), UNKNOWN),
        ((UNKNOWN, BROKEN), ServerHealth(), (UNKNOWN, BROKEN), BROKEN),
        ((), ServerHealth(), (), UNKNOWN),
        ((KEPT, BROKEN), DEAF, (UNKNOWN, BROKEN), BROKEN),
        ((KEPT, KEPT), MUTE, (UNKNOWN, UNKNOWN), UNKNOWN),
    ],
)
def test_no_set_point_is_kept_that_is_not_known(
    states: tuple[SetPointState, ...],
    health: ServerHealth,
    expected: tuple[SetPointState, ...],
    overall: SetPointState,
) -> None:
    rows = known_set_points([SetPoint("a", "b", 0, "s", 0, state, "d") for state in states], health)
    assert tuple(row.standing for row in rows) == expected
    assert overall_state(rows, health) is overall
    if health.impairments:
        assert all(row.value is None and health.reason in row.detail for row in rows)


def test_what_the_server_measures_itself_is_known_though_it_is_deaf() -> None:
    own = SetPoint("notices", "b", 1, "s", 0.1, KEPT, needs_nodes=False)
    assert known_set_points([own], DEAF) == [own]
    assert known_set_points([own], MUTE)[0].standing is UNKNOWN
    assert overall_state([own], DEAF) is UNKNOWN
