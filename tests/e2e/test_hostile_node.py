"""Somebody has the password of one node: the guests of healthy hosts stay where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from nats_voice import Voice
from running_lab import Lab, eventually

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import ResourceStatus, Snapshot, Subjects, encode

pytestmark = pytest.mark.e2e

N3, BAIT = HostId("n3"), ResourceId("bait")


def said(name: str, kind: ResourceKind, owner: str, generation: int) -> ResourceStatus:
    return ResourceStatus(
        ResourceId(name),
        kind,
        Owner(owner),
        "ocf:homeostat:process",
        ResourceState.UP,
        "it runs here",
        time.time_ns(),
        0,
        None,
        generation,
    )


def row_of(lab: Lab, guest: str) -> dict[str, Any]:
    (row,) = (each for each in lab.get("/resources")["items"] if each["id"] == guest)
    return dict(row)


def checked(lab: Lab) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeostat.cli", "check", "--dir", str(lab.directory)],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOMEOSTAT")},
    )


@pytest.mark.seed("order only the server gives generations: a node's claim takes no guest of a healthy host")
def test_a_password_of_a_node_takes_no_guest_and_invents_nothing(lab: Lab) -> None:
    lab.all_up()
    rows = lab.get("/resources")["items"]
    guest = next(each["id"] for each in rows if each["kind"] == "guest" and each["host"] != N3)
    before, process = row_of(lab, guest), lab.service(guest)
    assert process is not None
    (node,) = (each for each in lab.get("/nodes")["items"] if each["host"] == N3)
    seq = node["observations"]

    def claim(level: ResourceStatus) -> None:
        message = Snapshot(N3, node["boot"], node["incarnation"], seq, (level,), seq + 1, (), 1, 2)
        with Voice(lab.port("nats"), N3, lab.secrets["nats"][N3]) as voice:
            voice.publish(Subjects(N3).levels, encode(message))
            assert voice.flush() == []

    claim(said(guest, ResourceKind.GUEST, before["owner"], before["generation"] + 1))

    def told(transition: str) -> list[dict[str, Any]]:
        return [
            body["fault"]
            for body in lab.heard()
            if body["fault"]["kind"] == "claim_refused" and body["transition"] == transition
        ]

    (fault,) = eventually(lambda: told("raised"), 10, "the refusal is a fault for administrators")
    assert "n3 claims" in fault["reason"]
    assert not lab.told("blue", "assignment/n3") and not lab.told("green", "assignment/n3")
    eventually(lambda: told("cleared"), 20, "n3 itself does not say so: the fault ends")
    assert len(told("raised")) == 1
    after = row_of(lab, guest)
    assert (after["host"], after["state"]) == (before["host"], "up")
    assert lab.service(guest) == process, "it runs where it ran, and was not touched"
    assert BAIT not in {each["id"] for each in lab.get("/resources")["items"]}
    claim(said(BAIT, ResourceKind.SERVICE, "red", 0))
    eventually(lambda: len(told("raised")) == 2, 10, "nor has it another project")
    assert "of project red" in json.dumps(lab.read(f"/explain/{told('raised')[1]['id']}"))
    eventually(lambda: len(told("cleared")) == 2, 20, "n3 itself does not say that either")
    assert BAIT not in {each["id"] for each in lab.read("/resources")["items"]}
    done = checked(lab)
    assert done.returncode == 0, done.stdout + done.stderr
