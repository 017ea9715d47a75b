"""The dead-man notice of a real server: it comes, is signed, and stays out when it must."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from homeostat.notices.signing import HEADER, verify
from real_parts import NatsServer
from running_server import RunningServer, running_server

SECRET = "0123456789abcdef-dead-man"
INTERVAL_S = 0.1


class Receiver:
    """An endpoint on a free loopback port that keeps what it got; `status` is what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.status = 200
        receiver = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.headers[HEADER], body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._http.server_port}/ping"
        self._thread = threading.Thread(target=self._http.serve_forever)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def more(self, count: int = 3) -> None:
        """Return when so many more have come."""
        before, deadline_s = len(self.got), time.monotonic() + 15
        while len(self.got) < before + count:
            assert time.monotonic() < deadline_s, "no dead-man notice comes"
            time.sleep(0.01)

    def falls_silent(self) -> None:
        """Return when none has come for ten intervals."""
        deadline_s = time.monotonic() + 15
        while True:
            before = len(self.got)
            time.sleep(10 * INTERVAL_S)  # an absence can only be seen by looking for a while
            if len(self.got) == before:
                return
            assert time.monotonic() < deadline_s, "dead-man notices go on"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_nats: NatsServer, receiver: Receiver
) -> Iterator[RunningServer]:
    """One for all tests; each leaves it as it found it."""
    folder = tmp_path_factory.mktemp("server")
    secret = folder / "dead-man.secret"
    secret.write_text(SECRET)
    wanted = {"url": receiver.url, "interval_s": INTERVAL_S, "secret_file": str(secret)}
    with running_server(folder, shared_nats, notices={"dead_man": wanted}) as running:
        yield running


def standing(server: RunningServer) -> tuple[str, str]:
    rows = server.client.call("GET", "/status")["items"]
    row = next(row for row in rows if "dead-man" in row["promise"])
    return row["standing"], row["detail"]


@pytest.mark.seed("order a dead-man notice: silence when Homeostat itself is silent")
def test_it_comes_signed_and_stays_out_when_the_server_is_killed(
    server: RunningServer, receiver: Receiver
) -> None:
    receiver.more()
    header, body = receiver.got[-1]
    verify(header, body, {"dead-man": SECRET}, time.time())
    assert json.loads(body)["alive"] == "homeostat"
    assert standing(server)[0] == "kept"
    server.kill()
    receiver.falls_silent()
    server.start()
    receiver.more()


def test_a_server_that_does_not_hear_says_nothing(
    server: RunningServer, receiver: Receiver, shared_nats: NatsServer
) -> None:
    receiver.more()
    shared_nats.kill()
    receiver.falls_silent()
    kind, detail = standing(server)
    assert kind == "broken"
    assert "NATS" in detail
    shared_nats.start()
    receiver.more()


def test_an_endpoint_that_refuses_is_logged_once_and_is_a_broken_set_point(
    server: RunningServer, receiver: Receiver
) -> None:
    receiver.more()
    receiver.status = 500
    receiver.more(5)
    kind, detail = standing(server)
    assert kind == "broken"
    assert "500" in detail
    assert server.said().count("the endpoint answered 500") == 1
    receiver.status = 204
    receiver.more()
    assert standing(server)[0] == "kept"
    assert SECRET not in server.said()
