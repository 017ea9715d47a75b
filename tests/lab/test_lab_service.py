"""The lab's service, balancer and consumer as real processes."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_waiting import accepts, free_port, get, running, until

from homeostat.kernel.errors import CorruptState, NotAllowed
from homeostat.lab.balancer import Backend, Rotation, parse_backend
from homeostat.lab.consumer import TOLERANCE_S, ReceivedNotices, describe_notice, verify_signature
from homeostat.lab.service import LabService
from homeostat.notices.signing import sign as signature

KEYS = {"lab-1": "0123456789abcdef"}


def service_argv(name: str, port: int, ready: Path) -> list[str]:
    argv = [sys.executable, "-m", "homeostat.lab.service", "--name", name, "--host", "n1"]
    return [*argv, "--port", str(port), "--ready-file", str(ready)]


def test_the_service_says_who_it_is_and_its_ready_file_is_true(tmp_path: Path) -> None:
    port, ready = free_port(), tmp_path / "web-n1.ready"
    ready.write_text("stale\n")
    with running(service_argv("web-n1", port, ready), tmp_path / "log") as service:
        until(lambda: ready.exists() and ready.read_text() == f"{service.pid}\n", "ready")
        assert accepts(port)
        status, body = get(port)
        assert status == 200
        assert json.loads(body) == {"name": "web-n1", "host": "n1", "pid": service.pid}
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/pid") == (200, f"{service.pid}\n")
        assert get(port, "/other")[0] == 404
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
        for _ in range(3):
            kept.request("GET", "/")
            assert kept.getresponse().read()
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=25) == 0  # an idle connection is kept for 30 s
        kept.close()
    assert not ready.exists()
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(each["name"], each["pid"]) for each in said] == [("web-n1", service.pid)]


def test_a_taken_port_is_one_line_and_no_ready_file(tmp_path: Path) -> None:
    port, ready = free_port(), tmp_path / "ready"
    with running(service_argv("web-n1", port, ready), tmp_path / "log"):
        until(ready.exists, "ready")
        other = tmp_path / "other"
        done = subprocess.run(
            service_argv("web-n2", port, other), capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"web-n2: port {port}: ")
    assert done.stderr.count("\n") == 1
    assert not other.exists()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET / HTTP/1.1", 200),
        ("HEAD /healthz?x=1 HTTP/1.0", 200),
        ("GET /etc/passwd HTTP/1.1", 404),
        ("POST / HTTP/1.1", 405),
        ("nonsense", 400),
        ("GET / FTP/1", 400),
    ],
)
def test_request_lines(line: str, status: int) -> None:
    assert LabService("web-n1", "n1").answer(line)[0] == status


BACKENDS = [Backend("a", "127.0.0.1", 1), Backend("b", "127.0.0.1", 2), Backend("c", "127.0.0.1", 3)]


@given(st.lists(st.tuples(st.sampled_from(BACKENDS), st.booleans()), max_size=12))
def test_everybody_is_tried_once_and_the_living_first(seen: list[tuple[Backend, bool]]) -> None:
    rotation = Rotation(BACKENDS)
    down: set[Backend] = set()
    for backend, up in seen:
        assert rotation.mark(backend, up=up) == ((backend in down) == up)
        (down.discard if up else down.add)(backend)
    tried = rotation.candidates()
    assert sorted(tried, key=BACKENDS.index) == BACKENDS
    assert [each in down for each in tried] == sorted(each in down for each in tried)


def test_turns_are_even() -> None:
    rotation = Rotation(BACKENDS)
    firsts = [rotation.candidates()[0].name for _ in range(6)]
    assert firsts == ["a", "b", "c", "a", "b", "c"]


def test_a_back_end_is_named_with_its_address() -> None:
    assert parse_backend("web=127.0.0.1:80") == Backend("web", "127.0.0.1", 80)
    for wrong in ("web", "web=127.0.0.1", "=1.2.3.4:80", "web=1.2.3.4:http"):
        with pytest.raises(Exception, match="is no back end"):
            parse_backend(wrong)


def test_a_killed_back_end_costs_no_request_that_it_had_not_accepted(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("web-n1", "web-n2", "web-n3")}
    front = free_port()
    backends = [f"{name}=127.0.0.1:{port}" for name, port in ports.items()]
    balancer_argv = [sys.executable, "-m", "homeostat.lab.balancer", "--port", str(front), *backends]
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(running(service_argv(name, port, tmp_path / name), tmp_path / "log"))
            for name, port in ports.items()
        }
        until(lambda: all(accepts(port) for port in ports.values()), "services")
        balancer = stack.enter_context(running(balancer_argv, tmp_path / "balancer.log"))
        until(lambda: accepts(front), "balancer")
        log = tmp_path / "balancer.log"
        served = [json.loads(get(front)[1])["name"] for _ in range(9)]
        assert set(served) == set(ports)
        services["web-n2"].kill()
        services["web-n2"].wait()
        # Between requests nothing is in flight: every one of these must succeed, also before the next check.
        after = [json.loads(get(front)[1])["name"] for _ in range(60)]
        assert set(after) == {"web-n1", "web-n3"}
        until(lambda: "back end web-n2" in log.read_text() and "down" in log.read_text(), "line")
        assert log.read_text().count("\n") == 1
        stack.enter_context(
            running(service_argv("web-n2", ports["web-n2"], tmp_path / "x"), tmp_path / "log")
        )
        until(lambda: " up: accepts connections" in log.read_text(), "back")
        assert "web-n2" in {json.loads(get(front)[1])["name"] for _ in range(9)}
        balancer.send_signal(signal.SIGTERM)
        assert balancer.wait(timeout=120) == 0
        assert log.read_text().count("\n") == 2


def test_with_all_back_ends_dead_a_client_is_told_at_once(tmp_path: Path) -> None:
    front = free_port()
    argv = [sys.executable, "-m", "homeostat.lab.balancer", "--port", str(front)]
    with running([*argv, f"gone=127.0.0.1:{free_port()}"], tmp_path / "log"):
        until(lambda: accepts(front), "balancer")
        with socket.create_connection(("127.0.0.1", front), timeout=3) as client:
            assert client.recv(1) == b""


class Heard:
    """The consumer as a process, and its record."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self.file = root / "heard.jsonl"
        self.output = root / "consumer.log"
        keys = root / "keys.json"
        keys.write_text(json.dumps({"keys": KEYS}))
        argv = [sys.executable, "-m", "homeostat.lab.consumer", "--port", str(self.port)]
        self.argv = [*argv, "--keys-file", str(keys), "--heard-file", str(self.file)]

    def post(self, body: bytes, key: str = "on-call:f-1:raised", sign: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        sign = signature(KEYS["lab-1"], "lab-1", int(time.time()), body) if sign is None else sign
        if sign:
            headers["Homeostat-Signature"] = sign
        connection.request("POST", "/hear/on-call", body, headers)
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        connection.close()
        return reply.status, answer

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    consumer = Heard(tmp_path)
    with running(consumer.argv, consumer.output):
        until(lambda: accepts(consumer.port), "consumer")
        yield consumer


FAULT = {"id": "f-1", "kind": "resource_down", "severity": "major", "about": "resource/web-n1"}
NOTICE = json.dumps({"transition": "raised", "fault": FAULT}).encode()


def test_a_signed_notice_is_recorded_before_the_answer_and_shown_once(heard: Heard) -> None:
    before_ns = time.time_ns()
    assert heard.post(NOTICE) == (200, {"heard": "on-call:f-1:raised", "duplicate": False})
    assert heard.post(NOTICE) == (200, {"heard": "on-call:f-1:raised", "duplicate": True})
    first, second = heard.lines()
    assert first["body"] == json.loads(NOTICE)
    assert first["subscription"] == "on-call"
    assert before_ns <= first["received_at_ns"] <= time.time_ns()
    assert 0 < first["received_mono_ns"] < second["received_mono_ns"]
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    until(lambda: heard.output.read_text().count("\n") == 1, "one human line")
    assert heard.output.read_text() == "on-call: RAISED major resource_down resource/web-n1 f-1\n"
    assert heard.file.stat().st_mode & 0o777 == 0o600


def test_what_is_not_signed_by_us_is_refused_and_not_believed(heard: Heard) -> None:
    now = int(time.time())
    refused = [
        "",
        "nonsense",
        signature("another secret 00", "lab-1", now, NOTICE),
        signature(KEYS["lab-1"], "lab-9", now, NOTICE),
        signature(KEYS["lab-1"], "lab-1", now - TOLERANCE_S - 5, NOTICE),
        signature(KEYS["lab-1"], "lab-1", now, NOTICE + b" "),
    ]
    for sign in refused:
        assert heard.post(NOTICE, sign=sign)[0] == 401, sign
    assert heard.post(b"[1]")[0] == 400
    assert heard.post(NOTICE, key="")[0] == 400
    assert [line["status"] for line in heard.lines()] == [401] * 6 + [400] * 2
    assert not any("body" in line for line in heard.lines())
    assert heard.post(NOTICE) == (200, {"heard": "on-call:f-1:raised", "duplicate": False})


def test_duplicates_are_known_after_kill_9(tmp_path: Path) -> None:
    consumer = Heard(tmp_path)
    with running(consumer.argv, consumer.output):
        until(lambda: accepts(consumer.port), "consumer")
        assert not consumer.post(NOTICE)[1]["duplicate"]
    with running(consumer.argv, consumer.output) as process:
        until(lambda: accepts(consumer.port), "consumer again")
        assert consumer.post(NOTICE)[1]["duplicate"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    assert "Traceback" not in consumer.output.read_text()


def test_a_line_cut_short_by_a_crash_is_dropped_but_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    whole = b'{"status":200,"key":"k1"}\n'
    path.write_bytes(whole + b'{"status":200,"ke')
    assert ReceivedNotices(path).is_known("k1")
    assert path.read_bytes() == whole
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(CorruptState, match="line 1"):
        ReceivedNotices(path)
    assert path.read_bytes() == b"nonsense\n" + whole


@given(st.binary(max_size=200), st.integers(0, 10**12))
def test_a_signature_is_accepted_within_the_tolerance_only(body: bytes, at_s: int) -> None:
    header = signature(KEYS["lab-1"], "lab-1", at_s, body)
    verify_signature(header, body, KEYS, at_s + TOLERANCE_S)
    verify_signature(header, body, KEYS, at_s - TOLERANCE_S)
    for now_s in (at_s + TOLERANCE_S + 1, at_s - TOLERANCE_S - 1):
        with pytest.raises(NotAllowed):
            verify_signature(header, body, KEYS, now_s)


@given(st.text(max_size=120))
def test_no_header_breaks_the_check(header: str) -> None:
    with pytest.raises(NotAllowed):
        verify_signature(header, b"", KEYS, 0)


def test_a_notice_in_words() -> None:
    cleared = {**FAULT, "reason": "process is gone", "cleared_reason": "restarted", "outage_ms": 1234.5}
    assert describe_notice("on-call", {"transition": "cleared", "fault": cleared}) == (
        "on-call: CLEARED major resource_down resource/web-n1 f-1 after at most 1.234 s (restarted)"
    )
    assert describe_notice("blue", {"transition": "raised", "fault": {**FAULT, "reason": "gone"}}).endswith(
        "(gone)"
    )
    assert describe_notice("blue", {}) == "blue: NOTICE"
