"""A session with the unmodified client: a lease is made, its host dies, the flags say so; recorded.

With BLAZAR_SESSION=FILE the session is written there: commands, their output, and what `--debug` shows of
each request and answer. `tests/leases/blazar_session.json` is such a file; it is played again there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blazar_client import BlazarClient, BlazarLab, ClientProcess, admin_token, blazar_lab
from running_lab import eventually

pytestmark = pytest.mark.e2e

REQUEST = re.compile(r"REQ: curl -g -i -X (?P<method>[A-Z]+) http://[^/ ]+(?P<path>/\S+)(?P<rest>.*)$")
BODY = re.compile(r" -d '(?P<body>.*)'$")
STATUS = re.compile(r"RESP: \[(?P<status>\d+)\]")
ANSWER = re.compile(r"RESP BODY: (?P<answer>.*)$")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlazarLab]:
    """A lab of its own: one of its hosts dies."""
    with blazar_lab(tmp_path_factory.mktemp("session") / "state") as started:
        yield started


def exchanges(debug: str) -> list[dict[str, Any]]:
    """What `--debug` shows: each request with its answer."""
    found: list[dict[str, Any]] = []
    for line in debug.splitlines():
        if asked := REQUEST.search(line):
            sent = BODY.search(asked["rest"])
            body = json.loads(sent["body"]) if sent else None
            found.append({"method": asked["method"], "path": asked["path"], "body": body, "answer": None})
        elif status := STATUS.search(line):
            found[-1]["status"] = int(status["status"])
        elif (answer := ANSWER.search(line)) and not answer["answer"].startswith("Omitted"):
            found[-1]["answer"] = json.loads(answer["answer"])
    return found


@dataclass(slots=True)
class Session:
    """What was typed, by whom, and what was said."""

    lab: BlazarLab
    callers: dict[str, BlazarClient]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def says(self, caller: str, *words: str) -> str:
        """A command of the client, which must succeed; its output."""
        at_ns = time.time_ns()
        found = self.callers[caller].blazar("--debug", *words)
        assert found.code == 0, found.err
        step = {"at_ns": at_ns, "caller": caller, "argv": list(words), "out": found.out}
        self.steps.append({**step, "exchanges": exchanges(found.err)})
        return found.out

    def answer(self, caller: str, *words: str) -> Any:
        """The same; the last answer that the command got."""
        self.says(caller, *words)
        return self.steps[-1]["exchanges"][-1]["answer"]

    def lab_does(self, *words: str) -> None:
        """A command of ours, noted."""
        argv = [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(self.lab.lab.directory)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        self.steps.append({"at_ns": time.time_ns(), "homeostat": list(words)})

    def write(self, file: Path) -> None:
        text = json.dumps({"client": "python-blazarclient 4.6.0", "steps": self.steps}, indent=1)
        file.write_text(
            text.replace(f"127.0.0.1:{self.lab.url.split(':')[-1].split('/')[0]}", "127.0.0.1:1234")
        )


def wait_for_flags(client: BlazarClient, lease: str, wanted: dict[str, object]) -> None:
    """Until the lease shows them."""

    def shown() -> bool:
        found = client.shown("lease-show", lease)
        return all(found[name] == value for name, value in wanted.items())

    eventually(shown, 60, f"lease {lease} shows {wanted}")


@pytest.mark.seed("003 flags lease")
def test_a_host_dies_and_the_owner_sees_it_by_the_flags(lab: BlazarLab) -> None:
    process = ClientProcess()
    blue = admin_token(lab.url, lab.token("anna", "operator", "blue"), process)
    session = Session(lab, {"root": admin_token(lab.url, lab.admin, process), "anna": blue})
    try:
        play(session, blue)
    finally:
        process.close()
    commands = {step["argv"][0] for step in session.steps if "argv" in step}
    assert len(commands) == 16, sorted(commands)
    assert all(step["exchanges"] for step in session.steps if "argv" in step)
    if "BLAZAR_SESSION" in os.environ:
        session.write(Path(os.environ["BLAZAR_SESSION"]))


def play(session: Session, blue: BlazarClient) -> None:
    """All sixteen commands; in the middle the host of a running lease dies."""
    says, answer = session.says, session.answer
    for name, rack in (("n1", "r1"), ("n2", "r1"), ("n3", "r2")):
        says("root", "host-create", name, "--extra", f"rack={rack}")
    says("root", "host-list")
    says("root", "host-update", "n3", "--extra", "ssd=yes")
    says("root", "host-unset", "n3", "--extra", "ssd")
    says("anna", "host-property-list", "--detail")
    says("root", "host-property-set", "rack", "--public")
    says("anna", "host-property-show", "rack")
    wanted = 'min=1,max=1,resource_properties=["=", "$rack", "r1"]'
    made = answer(
        *("anna", "lease-create", "training", "--start-date", "now", "--end-date", "2030-01-01 12:00"),
        *("--physical-reservation", wanted),
    )
    identifier = made["lease"]["id"]
    wait_for_flags(blue, identifier, {"status": "ACTIVE"})
    says("anna", "lease-list")
    found = answer("anna", "lease-show", "training")["lease"]
    assert (found["status"], found["degraded"]) == ("ACTIVE", False)
    (before,) = reserved(answer("root", "allocation-list", "host"), identifier)

    session.lab_does("lab", "kill-host", before)
    wait_for_flags(blue, identifier, {"degraded": True})
    (reservation,) = answer("anna", "lease-show", "training")["lease"]["reservations"]
    assert (reservation["resources_changed"], reservation["missing_resources"]) == (True, False)
    (after,) = reserved(answer("root", "allocation-list", "host", "--lease-id", identifier), identifier)
    assert {before, after} == {"n1", "n2"}
    dead = answer("root", "host-show", before)["host"]
    assert dead["reservable"] is False and dead["health"]["reason"]
    says("root", "allocation-show", "host", after)

    session.lab_does("lab", "start-host", before)
    eventually(
        lambda: session.callers["root"].shown("host-show", before)["reservable"], 90, f"{before} is back"
    )
    assert answer("root", "host-show", before)["host"]["health"] == {"reason": ""}
    says("anna", "lease-update", "training", "--prolong-for", "1h")
    says("anna", "lease-delete", "training")
    says("root", "host-delete", "n3")


def reserved(answer: dict[str, Any], lease: str) -> list[str]:
    """The names of the hosts that this lease has."""
    rows = {row["resource_id"]: row["reservations"] for row in answer["allocations"]}
    return [f"n{number}" for number, found in rows.items() if lease in [row["lease_id"] for row in found]]
