"""`homeostat drill heal` beyond undoing: the server hears of the end, and a late fence is looked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from broken_host import BrokenHost
from drilled_site import FROZEN, HOMEOSTAT, DrilledSite, drilled_site, until
from played_run import shipped

from homeostat.drills.records.evidence import Ledger
from homeostat.drills.records.facts import Injecting, RunPlan
from homeostat.drills.records.history import LEDGER, Recording
from real_parts import NatsServer
from running_server import ADMIN, RunningServer, running_server

SWITCH = Path(__file__).with_name("power_switch.py")


def heal(state: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows, and what was said."""
    argv = [*HOMEOSTAT, "drill", "heal", "--dir", str(state), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)["items"], done.stderr


def known(server: RunningServer) -> list[dict[str, Any]]:
    """As `homeostat drill runs` has them."""
    found: list[dict[str, Any]] = server.client.call("GET", "/drills/runs")["items"]
    return found


# ---- the server hears of the end ------------------------------------------------------------------


@pytest.fixture
def announced(tmp_path: Path, nats: NatsServer) -> Iterator[tuple[DrilledSite, RunningServer]]:
    """A small site, and the server to which its drills are announced."""
    (tmp_path / "server").mkdir()
    (tmp_path / "site").mkdir()
    with running_server(tmp_path / "server", nats) as server, drilled_site(tmp_path / "site") as site:
        (site.state / "admin.token").write_text(ADMIN)
        given = yaml.safe_load((site.state / "site.yaml").read_text())
        given["server"] = {"url": server.url, "token_file": "admin.token"}
        (site.state / "site.yaml").write_text(yaml.safe_dump(given))
        yield site, server


@pytest.mark.slow
@pytest.mark.seed("order a tool that was killed: its run is ABORTED at the server, too")
def test_the_server_knows_the_end_of_a_run_whose_tool_was_killed(
    announced: tuple[DrilledSite, RunningServer],
) -> None:
    site, server = announced
    tool = site.tool(site.write_drill(FROZEN))
    until(lambda: site.facts("Injected") or tool.poll() is not None, "the fault", 60)
    tool.kill()
    assert tool.communicate()[0] == ""
    (row,) = known(server)
    until(lambda: known(server)[0]["state"] == "lapsed", "the claim lapses")
    assert known(server)[0]["verdict"] is None
    server.kill()
    code, rows, said = heal(site.state)
    assert code == 1, (rows, said)
    assert [(each["what"], each["ok"]) for each in rows][-2:] == [(row["run"], True), ("reports", False)]
    assert "once more when it answers" in rows[-1]["seen"]
    server.start()
    code, rows, said = heal(site.state)
    assert (code, [each["what"] for each in rows]) == (0, [row["run"]]), (rows, said)
    assert known(server)[0]["verdict"] == "ABORTED"
    assert server.client.call("GET", f"/drills/runs/{row['run']}")["report"]["verdict"] == "ABORTED"
    assert heal(site.state)[:2] == (0, [])


# ---- a late fence -----------------------------------------------------------------------------------


class OurServer(ThreadingHTTPServer):
    """What `GET /hosts` says of n2: fenced for so many answers, then up."""

    def __init__(self, fenced_for: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.fenced_for, self.asked = fenced_for, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    """Hosts, and no runs."""

    server: OurServer

    def do_GET(self) -> None:
        items: list[dict[str, Any]] = []
        if self.path.endswith("/hosts"):
            self.server.asked += 1
            fenced = self.server.asked <= self.server.fenced_for
            items = [{"host": "n2", "state": "down" if fenced else "up", "acting": ["fence"] * fenced}]
        body = json.dumps({"items": items, "next": None, "halt": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def our_server(fenced_for: int) -> Iterator[OurServer]:
    """Until the end of the test."""
    with OurServer(fenced_for) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def switched_off(host: BrokenHost) -> Path:
    """A run of host-down whose tool was killed: n2 was switched off at n1, undone there, and fenced late."""
    words = [sys.executable, str(SWITCH), str(host.root)]
    programs = {f"power-{verb}": {"argv": [*words, verb, "{host}"]} for verb in ("off", "on", "state")}
    power = {"n2": {"answers_at": ["127.0.0.1:9"]}}
    host.permit(injectors=["node_power"], programs=programs, power=power)
    host.root.joinpath("n2.json").write_text(json.dumps({"pid": 1, "start_ticks": -1, "boot_id": "none"}))
    other = {"host": "n2", "state_dir": str(host.root / "n2")}
    host.root.joinpath("n2.yaml").write_text(yaml.safe_dump(other))
    state = host.root / "state-of-the-tool"
    folder = state / "drills" / "r-1"
    plan = host.order("node_power", {"host": "n2"}, 3000.0)
    for verb in ("plan", "inject"):
        host.good(verb, plan)
    with Recording.begin(folder, RunPlan("r-1", shipped("host-down"), 0, ("n2",), (), 0)) as recording:
        recording.note(Injecting(), 1)
    with Ledger(folder) as ledger:
        ledger.to_undo("n1", json.loads(plan.read_text()))
    dead = {"kind": "tool", "site": "room", "pid": os.getpid(), "start_ticks": 1}
    with (folder / LEDGER).open("a") as file:
        file.write(json.dumps(dead) + "\n")
    host.good("undo", plan)
    assert not is_off(host)
    subprocess.run([*words, "off", "n2"], check=True)
    return state


def is_off(host: BrokenHost) -> bool:
    return (host.root / "n2.off").exists()


def written(host: BrokenHost, state: Path, server: OurServer) -> None:
    """site.yaml."""
    (state / "token").write_text("hs_x")
    hosts = {"n1": {"config": str(host.config)}}
    hosts |= {"n2": {"config": str(host.root / "n2.yaml"), "power": {"host": "n1"}}}  # type: ignore[dict-item]
    given = {"site": "room", "hosts": hosts, "server": {"url": server.url, "token_file": "token"}}
    given["drills"] = {"undo_deadline_s": 5, "renew_s": 1}
    (state / "site.yaml").write_text(yaml.safe_dump(given))


@pytest.mark.seed("order a late fence after a killed tool: heal looks, and switches the host on again")
@pytest.mark.slow
def test_a_host_that_was_fenced_after_its_undo_is_switched_on_again(host: BrokenHost) -> None:
    state = switched_off(host)
    assert is_off(host)
    with our_server(fenced_for=2) as server:
        written(host, state, server)
        code, rows, said = heal(state)
    assert (code, [each["ok"] for each in rows]) == (0, [True]), (rows, said)
    assert "somebody did the same again: undone 1 more" in rows[0]["seen"]
    assert not is_off(host) and server.asked > 3, "until nobody has done anything to it for a while"
    assert "looking whether n2 stays on" in said
    argv = [*HOMEOSTAT, "drill", "verify", "r-1", "--dir", str(state)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 13


@pytest.mark.slow
def test_a_fence_that_never_ends_is_said_with_what_to_do_and_looked_at_again(host: BrokenHost) -> None:
    state = switched_off(host)
    with our_server(fenced_for=10_000) as server:
        written(host, state, server)
        code, rows, said = heal(state)
        assert (code, [each["ok"] for each in rows]) == (1, [False]), (rows, said)
        for word in ("our own server: n2 is fence", "drill heal", "homeostat lab start-host"):
            assert word in rows[0]["seen"], rows
        server.fenced_for = 0
        assert heal(state)[0] == 0
    assert heal(state)[:2] == (0, []), "without a server, too, when nothing is left"
