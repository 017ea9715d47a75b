"""Foreign formats: the body that Doctor's consumers take, and Alertmanager's webhook beside the real one."""

from __future__ import annotations

import ast
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import needs
from homeostat.contracts.nouns import FaultKind, Owner, Severity
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.model import Affected, FaultPicture, NoticeFormat, NoticeTransition
from notices_parts import SECRET, picture
from real_parts import free_port

LIMIT = 4 * 1024 * 1024
SHOP = RenderContext("pager/2", "pager", Owner("shop"), LIMIT, "https://homeostat.example")
RAISED, CLEARED = NoticeTransition.RAISED, NoticeTransition.CLEARED
GUESTS = (
    Affected("resource/g1", Owner("shop"), "guest"),
    Affected("resource/g2", Owner("shop"), "guest"),
    Affected("resource/foreign", Owner("bank"), "guest"),
)
OVER = {"cleared_ns": 1_700_000_001_000_000_000, "cleared_reason": "it answers", "outage_ms": 876.5}
DEAD_HOST = picture(
    "f-9",
    "infrastructure",
    kind=FaultKind.HOST_DOWN,
    severity=Severity.CRITICAL,
    about="node/n2",
    reason="silent and refusing",
    affected=GUESTS,
)


def body(
    shape: NoticeFormat, fault: FaultPicture, transition: NoticeTransition, frame: RenderContext = SHOP
) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(render(shape, frame, fault, transition))
    return found


def traits_of(told: dict[str, Any]) -> dict[str, Any]:
    """As OpenStack's consumers take the list apart."""
    return {name: value for name, kind, value in told["reason_data"]["event"]["traits"] if kind in (1, 2)}


@pytest.mark.seed("002 consumer POST /failure takes the body of an Aodh event alarm")
def test_a_dead_host_as_doctors_consumers_take_it() -> None:
    told = body(NoticeFormat.DOCTOR, DEAD_HOST, RAISED)
    assert told == {
        "severity": "critical",
        "alarm_name": "pager",
        "alarm_id": told["alarm_id"],
        "previous": "ok",
        "current": "alarm",
        "reason": "silent and refusing",
        "reason_data": {
            "type": "event",
            "event": {
                "message_id": told["reason_data"]["event"]["message_id"],
                "event_type": "compute.instance.update",
                "generated": "2023-11-14T22:13:20.123456",
                "traits": [
                    ["state", 1, "error"],
                    ["instance_id", 1, "g1"],
                    ["instance_ids", 1, '["g1","g2"]'],
                    ["host", 1, "n2"],
                    ["instance_count", 2, 2],
                    ["project_id", 1, "shop"],
                    ["fault_id", 1, "f-9"],
                    ["fault_kind", 1, "host_down"],
                    ["notice", 1, "pager/2:f-9:raised"],
                ],
            },
        },
    }
    assert ast.literal_eval(traits_of(told)["instance_ids"]) == ["g1", "g2"]


def test_the_end_and_what_has_no_guests() -> None:
    told = body(NoticeFormat.DOCTOR, replace(DEAD_HOST, **OVER), CLEARED)
    assert (told["previous"], told["current"], told["reason"]) == ("alarm", "ok", "it answers")
    assert traits_of(told)["state"] == "active"
    assert told["reason_data"]["event"]["generated"] == "2023-11-14T22:13:21.000000"
    one = body(NoticeFormat.DOCTOR, picture(), RAISED)
    assert traits_of(one)["instance_id"] == "web-f-1"
    assert (one["severity"], one["alarm_id"]) == ("moderate", told["alarm_id"])
    empty = body(NoticeFormat.DOCTOR, replace(DEAD_HOST, affected=()), RAISED)
    assert empty["reason_data"]["event"]["event_type"] == "compute.host.down"
    assert "instance_id" not in traits_of(empty)
    lost = body(NoticeFormat.DOCTOR, replace(DEAD_HOST, affected=(), kind=FaultKind.AGENT_LOST), RAISED)
    assert lost["reason_data"]["event"]["event_type"] == "homeostat.agent_lost"


def test_a_dead_host_for_who_understands_alertmanager() -> None:
    told = body(NoticeFormat.ALERTMANAGER, DEAD_HOST, RAISED)
    assert {**told, "alerts": len(told["alerts"])} == {
        "receiver": "pager",
        "status": "firing",
        "alerts": 3,
        "groupLabels": {"fault": "f-9"},
        "commonLabels": {"alertname": "host_down", "fault": "f-9", "severity": "critical"},
        "commonAnnotations": {"summary": "silent and refusing"},
        "externalURL": "https://homeostat.example",
        "version": "4",
        "groupKey": '{}:{fault="f-9"}',
        "truncatedAlerts": 0,
    }
    assert [(each["labels"]["about"], each["labels"]["project"]) for each in told["alerts"]] == [
        ("node/n2", "infrastructure"),
        ("resource/g1", "shop"),
        ("resource/g2", "shop"),
    ]
    over = body(NoticeFormat.ALERTMANAGER, replace(DEAD_HOST, **OVER), CLEARED)
    assert (over["status"], over["alerts"][1]["endsAt"]) == ("resolved", "2023-11-14T22:13:21.000000Z")
    prints = [each["fingerprint"] for each in told["alerts"]]
    assert [each["fingerprint"] for each in over["alerts"]] == prints, "an alert keeps its fingerprint"
    assert len(set(prints)) == 3


@given(
    shape=st.sampled_from(NoticeFormat),
    guests=st.integers(0, 400),
    text=st.text(max_size=3000),
    over=st.booleans(),
)
def test_every_body_is_the_same_bytes_again_fits_and_says_nothing_foreign(
    shape: NoticeFormat, guests: int, text: str, over: bool
) -> None:
    affected = tuple(
        Affected(f"resource/g{number}", Owner("shop" if number % 2 else "bank"), "guest")
        for number in range(guests)
    )
    fault = replace(DEAD_HOST, reason=text, affected=affected)
    frame = replace(SHOP, limit_bytes=8192)
    raised = render(shape, frame, fault, RAISED)
    ended = replace(fault, **{**OVER, "cleared_reason": text})
    assert render(shape, frame, ended, RAISED) == raised, "what is told of the beginning never changes"
    told = render(shape, frame, ended, CLEARED) if over else raised
    assert len(told) <= 8192
    assert b'resource/g2"' not in told and b'"g2"' not in told, "of bank"
    assert SECRET.encode() not in told


class _Hook(http.server.BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.bodies.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def alertmanager(folder: Path, hook: str) -> Iterator[str]:
    """Debian's, grouping by fault and telling at once."""
    binary = shutil.which("prometheus-alertmanager")
    assert binary, "mark the test with needs('alertmanager')"
    config = {
        "route": {"receiver": "pager", "group_by": ["fault"], "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "pager", "webhook_configs": [{"url": hook, "send_resolved": True}]}],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    place, log = f"127.0.0.1:{free_port()}", folder / "alertmanager.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address={place}",
                "--cluster.listen-address=",
            ],
            stdout=out,
            stderr=out,
            cwd=folder,
        )
    try:
        yield f"http://{place}"
    finally:
        process.kill()
        process.wait()


def post(url: str, alerts: list[dict[str, Any]], deadline_s: float) -> None:
    """Hand alerts to Alertmanager; again while it starts."""
    data = json.dumps(alerts).encode()
    while True:
        request = urllib.request.Request(f"{url}/api/v2/alerts", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline_s, "Alertmanager does not take alerts"
            time.sleep(0.05)


def form(value: Any) -> Any:
    """Keys and types, all elements of a list as one."""
    if isinstance(value, dict):
        return {name: form(each) for name, each in value.items()}
    if isinstance(value, list):
        forms = {json.dumps(form(each), sort_keys=True) for each in value}
        return [json.loads(each) for each in sorted(forms)]
    return type(value).__name__


@needs("alertmanager")
@pytest.mark.seed("order Alertmanager webhook v4")
def test_our_body_has_the_form_of_the_real_alertmanagers(tmp_path: Path) -> None:
    """The same alerts go through Debian's Alertmanager; what its webhook says is the golden form."""
    hook = type("Hook", (_Hook,), {"bodies": []})
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), hook)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    ours = {
        RAISED: body(NoticeFormat.ALERTMANAGER, DEAD_HOST, RAISED),
        CLEARED: body(NoticeFormat.ALERTMANAGER, replace(DEAD_HOST, **OVER), CLEARED),
    }
    deadline_s = time.monotonic() + 30
    try:
        with alertmanager(tmp_path, f"http://127.0.0.1:{listener.server_port}/") as url:
            for transition, told in ours.items():
                alerts = [
                    {name: each[name] for name in ("labels", "annotations", "generatorURL")}
                    | ({"endsAt": "2026-01-01T00:00:00Z"} if transition is CLEARED else {})
                    for each in told["alerts"]
                ]
                post(url, alerts, deadline_s)
                while not [each for each in hook.bodies if each["status"] == told["status"]]:
                    assert time.monotonic() < deadline_s, (tmp_path / "alertmanager.log").read_text()
                    time.sleep(0.02)
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
    for told in ours.values():
        real = next(each for each in hook.bodies if each["status"] == told["status"])
        assert form(told) == form(real)
        for name in ("receiver", "status", "version", "truncatedAlerts", "groupLabels", "groupKey"):
            assert told[name] == real[name], name
        for name in ("commonLabels", "commonAnnotations"):
            assert told[name] == real[name], name
        assert sorted(told["alerts"][0]) == sorted(real["alerts"][0])
        labels = [json.dumps(each["labels"], sort_keys=True) for each in told["alerts"]]
        assert sorted(labels) == sorted(json.dumps(each["labels"], sort_keys=True) for each in real["alerts"])
    assert ours[RAISED]["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
