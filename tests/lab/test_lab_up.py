"""`homeostat up` itself: real NATS, services, balancer, consumer and bootstrap; server and nodes stand in."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_waiting import accepts, free_port, get, running, until

from homeostat.kernel.files import write_json
from homeostat.kernel.processes import Identity, is_alive, send_signal
from homeostat.lab.children import end_all, processes_in_pid_files, processes_of_lab, read_children
from homeostat.lab.plan import HOSTS, PREFERRED_PORTS, PROJECTS, RESOURCES, LabPlan, StateDirectory
from homeostat.lab.preparation import load_or_create_credentials, write_files
from homeostat.notices.signing import sign

PROGRAM = str(Path(__file__).with_name("up_program.py"))
CHILDREN = {"nats", "server", "balancer-edge1", "balancer-edge2", "consumer"} | {
    f"{what}-{host}" for what in ("node", "machine") for host in HOSTS
}


class Up:
    """One state directory and what `up` says about it."""

    def __init__(self, root: Path) -> None:
        self.state = StateDirectory(root / "state")
        self.argv = [sys.executable, PROGRAM, str(self.state.root)]
        self.output = root / "output"
        self.output.touch()

    def said(self) -> str:
        return self.output.read_text()

    def await_green(self, times: int = 1) -> None:
        until(lambda: self.said().count("All 9 services and guests") == times, "the green line", 30)

    @property
    def ports(self) -> dict[str, int]:
        ports = json.loads(self.state.lab_file.read_text())["ports"]
        assert isinstance(ports, dict)
        return ports

    def children(self) -> dict[str, Identity]:
        return read_children(self.state.children_file)

    def guests(self) -> set[Identity]:
        return processes_in_pid_files(self.state.root / "hosts")

    def nothing_lives(self) -> bool:
        return not processes_of_lab(self.state.root) and not any(
            accepts(port) for port in self.ports.values()
        )


def test_a_resource_that_never_comes_is_named_with_its_logs(lab: Up, tmp_path: Path) -> None:
    lab.state.root.mkdir()
    credentials = load_or_create_credentials(
        lab.state.credentials_file, users=["server", *HOSTS], projects=PROJECTS
    )
    ports = dict(PREFERRED_PORTS) | {"api": free_port()}
    write_json(lab.state.lab_file, {"version": 1, "ports": ports})
    write_files(LabPlan(lab.state, ports, sys.executable), credentials)
    stand_in = str(Path(__file__).with_name("stand_in_program.py"))
    server = [sys.executable, stand_in, "run", "server", "--config", str(lab.state.server_config_file)]
    for resource in RESOURCES[1:]:
        (lab.state.host(resource.host) / f"{resource.id}.pid").touch()  # what the stand-in says is up
    bootstrap = [sys.executable, "-m", "homeostat.lab.bootstrap", "--dir", str(lab.state.root)]
    proxied = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    with running(server, tmp_path / "server.log"):
        done = subprocess.run(
            [*bootstrap, "--deadline-s", "6"], capture_output=True, text=True, timeout=60, env=proxied
        )
    assert done.returncode == 1
    assert "8 of 9 up; waiting for web-n1 missing" in done.stdout
    assert f"web-n1 is missing; see {lab.state.resource_log(HOSTS[0], 'web-n1')} and" in done.stdout
    assert done.stdout.count("is missing") == 1
    assert "Traceback" not in done.stderr


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    end_all(lambda: processes_of_lab(made.state.root) | made.guests(), grace_s=0.0)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that is up, for tests that leave it as it is."""
    made = Up(tmp_path_factory.mktemp("green"))
    try:
        with running(made.argv, made.output) as up:
            made.await_green()
            yield made
            stop(up)
    finally:
        end_all(lambda: processes_of_lab(made.state.root) | made.guests(), grace_s=0.0)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


def test_from_nothing_to_green_and_back_to_nothing(lab: Up) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        until(lambda: set(lab.children()) == CHILDREN, "the end of the bootstrap")
        names = {json.loads(get(lab.ports["balancer"])[1])["name"] for _ in range(9)}
        assert names == {"web-n1", "web-n2", "web-n3"}
        assert "nats-server v2." in lab.said()
        for name in (
            "lab.json",
            "site.yaml",
            "credentials.json",
            "client.json",
            "children.json",
            "nats/nats.conf",
        ):
            assert (lab.state.root / name).stat().st_mode & 0o777 == 0o600, name
        assert lab.state.root.stat().st_mode & 0o777 == 0o700
        secrets = json.loads(lab.state.credentials_file.read_text())
        client = json.loads(lab.state.client_file.read_text())
        assert client == {"url": f"http://127.0.0.1:{lab.ports['api']}", "token": secrets["admin_token"]}
        logs = "".join(path.read_text() for path in lab.state.logs.iterdir()) + lab.said()
        for secret in (secrets["admin_token"], secrets["webhook_secret"], *secrets["nats"].values()):
            assert secret not in logs
        stop(up)
        assert lab.nothing_lives()
    assert "still running, " not in lab.said()
    asked = [json.loads(line) for line in (lab.state.server / "asked.jsonl").read_text().splitlines()]
    paths = [each["path"] for each in asked]
    assert paths == [f"/api/v1/tokens/{name}" for name in ("platform", "blue", "green")] + [
        f"/api/v1/subscriptions/{name}" for name in ("on-call", "platform", "blue", "green")
    ]
    assert asked[3]["body"]["project"] == "infrastructure"
    assert asked[3]["body"]["url"] == f"http://127.0.0.1:{lab.ports['consumer']}/hear/on-call"


def test_what_the_consumer_hears_is_shown_live(green: Up) -> None:
    secret = json.loads(green.state.credentials_file.read_text())["webhook_secret"]
    body = b'{"transition":"raised","fault":{"kind":"resource_down","about":"resource/web-n1"}}'
    connection = http.client.HTTPConnection("127.0.0.1", green.ports["consumer"], timeout=3)
    headers = {"Homeostat-Signature": sign(secret, "lab-1", int(time.time()), body)}
    connection.request("POST", "/hear/on-call", body, {**headers, "Idempotency-Key": "k"})
    assert connection.getresponse().status == 200
    connection.close()
    until(lambda: "heard: on-call: RAISED resource_down resource/web-n1\n" in green.said(), "the line")


def test_killed_children_come_back_and_a_killed_up_is_taken_over(lab: Up) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        guests, ports = lab.guests(), lab.ports
        assert len(guests) == 9
        before = lab.children()
        for name in ("nats", "server", "node-n1"):
            send_signal(before[name], signal.SIGKILL)
        until(
            lambda: all(f"{name} is up again" in lab.said() for name in ("nats", "server", "node-n1")), "back"
        )
        assert lab.guests() == guests
        up.kill()
        up.wait()
    until(lambda: not any(is_alive(each) for each in lab.children().values()), "the end of the children")
    assert lab.guests() == guests
    with running(lab.argv, lab.output) as up:
        lab.await_green(times=2)
        assert "9 services and guests still run" in lab.said()
        assert lab.guests() == guests
        assert lab.ports == ports
        stop(up)
        assert lab.nothing_lives()


def test_services_that_a_node_leaves_behind_are_ended_and_named(lab: Up) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        (lab.state.root / "refuse-to-stop").touch()
        # A pid file may be lost; the environment still tells.
        next((lab.state.root / "hosts").rglob("web-n2.pid")).unlink()
        stop(up)
        assert lab.nothing_lives()
    assert lab.said().count("still running, ended: pid") == 9
    assert "--name web-n2" in lab.said()


def test_a_port_taken_between_two_starts(lab: Up) -> None:
    with running(lab.argv, lab.output) as up:
        lab.await_green()
        stop(up)
    before = lab.ports
    with socket.create_server(("127.0.0.1", before["api"])):
        refused = subprocess.run(lab.argv, capture_output=True, text=True, timeout=120)
        assert refused.returncode == 3
        assert refused.stderr.count("\n") == 1
        for expected in ("ports.api", str(before["api"]), f"pid {os.getpid()}", "--renew-ports"):
            assert expected in refused.stderr
        assert lab.ports == before
        with running([*lab.argv, "--renew-ports"], lab.output) as up:
            lab.await_green(times=2)
            stop(up)
    after = lab.ports
    assert {name for name in after if after[name] != before[name]} == {"api"}


def test_two_first_starts_at_the_same_instant_each_have_their_own_ports(tmp_path: Path) -> None:
    labs = [Up(tmp_path / name) for name in "ab" if (tmp_path / name).mkdir() is None]
    try:
        with running(labs[0].argv, labs[0].output) as one, running(labs[1].argv, labs[1].output) as other:
            for lab in labs:
                lab.await_green()
            assert not set(labs[0].ports.values()) & set(labs[1].ports.values())
            stop(one)
            stop(other)
    finally:
        for lab in labs:
            end_all(lambda lab=lab: processes_of_lab(lab.state.root) | lab.guests(), grace_s=0.0)  # type: ignore[misc]


def test_a_corrupt_file_stops_the_start_before_anything_runs(lab: Up) -> None:
    lab.state.root.mkdir()
    lab.state.credentials_file.write_text("{")
    refused = subprocess.run(lab.argv, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 3
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"{lab.state.credentials_file}: not readable as JSON")
    assert refused.stderr.count("\n") == 1
    assert lab.state.credentials_file.read_text() == "{"
    assert not processes_of_lab(lab.state.root)


class Voice:
    """One NATS client in the protocol's own words: a refused permission is a line, nothing is hidden."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline().startswith(b"INFO ")
        told = {"user": user, "pass": password, "verbose": False, "pedantic": False}
        self.send(f"CONNECT {json.dumps(told)}")

    def send(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\r\n")

    def flush(self) -> list[str]:
        """What the server said up to the answer to a PING."""
        self.send("PING")
        said: list[str] = []
        while (line := self._lines.readline()) and line != b"PONG\r\n":
            said.append(line.decode().strip())
        return said

    def last_words(self) -> list[str]:
        """What it said before it closed the connection. Whoever still writes to it may not hear that."""
        return [line.decode().strip() for line in self._lines]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def test_a_node_hears_and_says_only_its_own(green: Up) -> None:
    passwords, port = json.loads(green.state.credentials_file.read_text())["nats"], green.ports["nats"]
    n1, server = (Voice(port, user, passwords[user]) for user in ("n1", "server"))
    assert server.flush() == n1.flush() == []
    server.send("SUB node.*.heartbeat 1")
    n1.send("SUB to.n1.> 1")
    assert server.flush() == n1.flush() == []
    n1.send("PUB node.n1.heartbeat 4\r\nmine")
    server.send("PUB to.n1.acknowledged 5\r\nyours")
    until(lambda: server.flush() == ["MSG node.n1.heartbeat 1 4", "mine"], "the node's word")
    until(lambda: n1.flush() == ["MSG to.n1.acknowledged 1 5", "yours"], "the server's word")
    n1.send("PUB node.n2.heartbeat 6\r\nforged")
    n1.send("SUB to.n2.> 2\r\nSUB node.> 3")
    complaints = n1.flush()
    assert [line.startswith("-ERR 'Permissions Violation for") for line in complaints] == [True] * 3
    assert server.flush() == []
    stranger = Voice(port, "n1", "wrong")
    assert stranger.last_words() == ["-ERR 'Authorization Violation'"]
    for voice in (n1, server, stranger):
        voice.close()
