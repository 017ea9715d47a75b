"""A server that many connect to and say nothing: it goes on hearing, answering and telling."""

from __future__ import annotations

import http.server
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from test_impaired_server import SpeakingNode, soon, state_of_web

from homeostat.kernel.client import Client
from homeostat.kernel.errors import RetryLater
from real_parts import NatsServer
from running_server import ADMIN, RunningServer

FILES_MAX = 400
LIMITED = (
    "import resource, runpy, sys; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES_MAX}, {FILES_MAX})); "
    "runpy.run_module('homeostat.server.main', run_name='__main__')"
)


@pytest.fixture(params=[pytest.param("as many files as here", marks=pytest.mark.slow), f"{FILES_MAX} files"])
def server(request: pytest.FixtureRequest, tmp_path: Path, nats: NatsServer) -> Iterator[RunningServer]:
    """A server, and one that may open fewer files than connect to it."""
    api = {"header_timeout_s": 600}  # none goes by itself
    running = RunningServer(tmp_path, nats, api=api, notices={"allowed_networks": ["127.0.0.0/8"]})
    if request.param.startswith("400"):
        running.program = ("-c", LIMITED)
    try:
        running.start()
        yield running
    finally:
        running.kill()


@contextmanager
def silent(port: int, addresses: list[str], count: int) -> Iterator[list[socket.socket]]:
    """So many connections from these addresses on which nothing, or half a head, is said."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            source = (addresses[number % len(addresses)], 0)
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, source))
            if number % 2:
                one.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n")
            made.append(one)
        yield made


@contextmanager
def consumer() -> Iterator[tuple[str, list[bytes]]]:
    """A consumer of notices, and what it was told."""
    told: list[bytes] = []

    class Hears(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hears) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/hear", told
        listening.shutdown()
        thread.join()


def status(server: RunningServer) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeostat.cli", "status"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN},
    )


def observations(server: RunningServer) -> int:
    return int(server.client.call("GET", "/nodes/n1")["observations"])


@pytest.mark.seed("order 1 000 half-open connections without a token silence nobody")
def test_a_thousand_half_open_connections_silence_nobody(server: RunningServer, nats: NatsServer) -> None:
    with SpeakingNode(nats) as node, consumer() as (url, told_of):
        soon(lambda: state_of_web(server) == "up", "the node was heard")
        made = {"name": "pager", "project": "blue", "url": url, "secret": "s" * 32}
        server.client.call("POST", "/subscriptions", made)
        with silent(server.port, ["127.0.0.1"], 1000) as of_one:
            _goes_on(server)
            several = [f"127.0.0.{number}" for number in range(2, 12)]
            with silent(server.port, several, 500):
                _goes_on(server)
                node.web_dies.set()
                soon(lambda: told_of, "its consumer is told")
            readable = select.select(of_one, [], [], 0)[0]
            answers = [each.recv(4096) for each in readable]
            told = [each for each in answers if each]
            assert told and all(each.startswith(b"HTTP/1.1 503 ") for each in told)
            assert all(b"in favour of another" in each for each in told)
        assert state_of_web(server) == "down"
        assert "Traceback" not in server.said() and "connection to NATS lost" not in server.said()


def _goes_on(server: RunningServer) -> None:
    """It answers who has a token from the same address, hears its node, and can still write."""
    ended = status(server)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert server.status("/healthz") == 200
    assert state_of_web(server) == "up"
    server.client.call("PUT", "/tokens/somebody", {"role": "viewer", "project": "blue"})


def test_the_streams_of_a_token_are_limited(tmp_path: Path, nats: NatsServer) -> None:
    running = RunningServer(tmp_path, nats, api={"streams_per_token": 2})
    try:
        running.start()
        client = Client(running.url, ADMIN)
        streams = [client.listen("/notices/stream") for _ in range(2)]
        assert [next(each)[1] for each in streams] == ["open", "open"]
        with pytest.raises(RetryLater, match="the token admin has 2 streams open already"):
            next(client.listen("/notices/stream"))
    finally:
        running.kill()
