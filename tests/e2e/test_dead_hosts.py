"""A whole host dies: what-if said so, everybody hears once, it is fenced, and it comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_lab import Lab, eventually, running

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import Conflict
from homeostat.kernel.processes import is_alive
from homeostat.lab.plan import StateDirectory
from homeostat.lab.power import switch_off

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of this file's own, each guest still at home: hosts that die elsewhere send guests away."""
    with running(Path(tmp_path_factory.mktemp("lab")) / "state") as started:
        yield started


def carried(lab: Lab, name: str = "n2") -> dict[str, list[str]]:
    """What runs on a host now, by who would hear of its death: guests may have moved in an earlier test."""
    rows = sorted((row["id"], row["owner"]) for row in lab.read("/resources")["items"] if row["host"] == name)
    found = {"on-call": [each for each, _ in rows]}
    for each, owner in rows:
        found.setdefault(owner, []).append(each)
    return found


def command(lab: Lab, *words: str) -> Any:
    """One command of the CLI; its JSON answer."""
    done = subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(lab.directory), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOMEOSTAT")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def host(lab: Lab, name: str = "n2") -> dict[str, Any]:
    answer = lab.get("/hosts")
    rows = [] if not answer else [row for row in answer["items"] if row["host"] == name]
    return rows[0] if rows else {}


def ended(lab: Lab, fault: str) -> set[str]:
    """Who heard that it is over, or that all that was its own runs elsewhere."""
    return {name for end in ("cleared", "recovered") for name in host_notices(lab, end, fault)}


def host_notices(lab: Lab, transition: str, fault: str) -> dict[str, list[str]]:
    """Who heard of one host fault, and which resources each was told of."""
    heard = {}
    for name in ("on-call", "platform", "blue", "green"):
        for body in lab.heard(name):
            if body["fault"]["id"] == fault and body["transition"] == transition:
                assert name not in heard, "one notice a consumer, fault and transition"
                hurt = body["fault"]["affected"]
                assert body["fault"]["affected_count"] == len(hurt)
                heard[name] = sorted(each["subject"].removeprefix("resource/") for each in hurt)
    return heard


def foretold(answer: dict[str, Any], transition: str) -> dict[str, list[str]]:
    return {
        row["subscription"]: sorted(row["affected"])
        for row in answer["notices"]
        if row["transition"] == transition
    }


def the_fault(lab: Lab, kind: str) -> dict[str, Any] | None:
    found = [row for row in (lab.get("/faults") or {"items": []})["items"] if row["kind"] == kind]
    return found[0] if found else None


@pytest.mark.seed("order lab kill-host does what what-if said: same guests, same consumers")
def test_a_dead_host_does_exactly_what_what_if_said(lab: Lab) -> None:
    eventually(lab.all_up, 30, "everything is up")
    eventually(lambda: host(lab).get("probe") == "answers", 10, "the host is probed")
    hit, before = carried(lab), the_fault(lab, "host_down")
    said = command(lab, "what-if", "host", "n2")
    assert sorted(row["id"] for row in said["resources"]) == hit["on-call"]
    assert foretold(said, "raised") == foretold(said, "cleared") == hit
    assert said["acts"] == [
        {"act": act, "driver": driver, "allowed": True, "reason": ""}
        for act, driver in (
            ("mark_down", "local"),
            ("set_error", "local"),
            ("fence", "command"),
            ("start_elsewhere", ""),
        )
    ]
    assert the_fault(lab, "host_down") == before, "asking changes nothing"
    living = [lab.service(name) for name in hit["on-call"]]
    try:
        command(lab, "lab", "kill-host", "n2")
        assert not any(identity is not None and is_alive(identity) for identity in living)
        eventually(lambda: host(lab).get("fenced"), 15, "the host is fenced")
        fault = the_fault(lab, "host_down")
        assert fault is not None
        assert (fault["about"], fault["state"]) == ("node/n2", "open")
        eventually(lambda: len(host_notices(lab, "raised", fault["id"])) == len(hit), 10, "all were told")
        assert host_notices(lab, "raised", fault["id"]) == hit
        eventually(lambda: carried(lab) == {"on-call": ["web-n2"], "platform": ["web-n2"]}, 10, "guests left")
        dead = {row["id"]: row["state"] for row in lab.read("/resources")["items"] if row["host"] == "n2"}
        assert dead == {"web-n2": "error"}
        assert host(lab)["marked_at"] and host(lab)["error_at"]
        states = {row["id"]: row["state"] for row in lab.read("/resources")["items"]}
        assert "error" not in {states[each] for each in hit["on-call"] if each != "web-n2"}, "they left it"
        kinds = [row["kind"] for row in lab.read("/faults", state="open")["items"]]
        assert kinds == ["host_down"], "neither agent_lost nor the guests are told beside it"
        story = [row["kind"] for row in lab.read(f"/explain/{fault['id']}")["items"]]
        order = ["HostDown", "FaultRaised", "HostFenced"]
        assert [kind for kind in story if kind in order] == order
        assert story.index("FaultRaised") < story.index("ActionIntended") < story.index("HostMarked")
        assert (story.count("ActionIntended"), story.count("HostMarked")) == (3, 2)
        assert not is_started(lab), "a fenced host stays off"
    finally:
        command(lab, "lab", "start-host", "n2")
    eventually(lab.all_up, 60, "the host is back")
    stayed = {name: carried_ for name, carried_ in hit.items() if "web-n2" in carried_}
    eventually(lambda: len(host_notices(lab, "cleared", fault["id"])) == len(stayed), 20, "they were told")
    assert host_notices(lab, "cleared", fault["id"]) == stayed
    left = {name: carried_ for name, carried_ in hit.items() if name not in stayed}
    assert host_notices(lab, "recovered", fault["id"]) == left, "whose guests ran elsewhere knew that"
    assert (host(lab)["state"], host(lab)["fenced"]) == ("up", "")
    assert (host(lab)["marked_at"], host(lab)["error_at"]) == (None, None)
    others = [row for row in lab.read("/faults")["items"] if row["raised_at"] >= fault["raised_at"]]
    assert [row["id"] for row in others] == [fault["id"]], "one fault told it all"


def is_started(lab: Lab) -> bool:
    return "node-n2" in json.loads((lab.directory / "children.json").read_text())["children"]


@pytest.mark.seed("order a dead agent is not a dead host")
def test_a_frozen_agent_on_a_living_host_is_only_agent_lost(lab: Lab) -> None:
    eventually(lab.all_up, 30, "everything is up")
    agent = lab.child("node-n3")
    before = the_fault(lab, "host_down")
    lab.kill(agent, signal.SIGSTOP)
    try:
        eventually(lambda: (the_fault(lab, "agent_lost") or {}).get("about") == "node/n3", 15, "agent_lost")
        assert the_fault(lab, "host_down") == before
        assert host(lab, "n3")["state"] == "up"
        with pytest.raises(Conflict, match="not down"):
            lab.client.call("POST", "/hosts/n3/fenced", {"receipt": "no"})
    finally:
        lab.kill(agent, signal.SIGCONT)
    eventually(lambda: (the_fault(lab, "agent_lost") or {}).get("state") == "cleared", 15, "cleared")


@pytest.mark.seed("order observe mode decides, writes down and does not act")
def test_an_unarmed_room_writes_down_what_it_would_do_and_a_person_gives_the_receipt(lab: Lab) -> None:
    eventually(lab.all_up, 30, "everything is up")
    command(lab, "arm", "recovery", "--off")
    try:
        command(lab, "lab", "kill-host", "n1")
        eventually(lambda: host(lab, "n1").get("state") == "down", 15, "it is down")
        fault = the_fault(lab, "host_down")
        assert fault is not None

        def story() -> list[str]:
            return [row["kind"] for row in lab.read(f"/explain/{fault['id']}")["items"]]

        eventually(lambda: "ActRefused" in story(), 10, "the refusal is written down")
        command(lab, "host", "fenced", "n1", "--receipt", "I pulled the plug")
        assert host(lab, "n1")["fenced"] == "I pulled the plug"
        eventually(lambda: story().count("ActRefused") in (2, 3), 10, "once an act")
        states = {row["state"] for row in lab.read("/resources")["items"] if row["host"] == "n1"}
        assert (states, host(lab, "n1")["marked_at"]) == ({"unknown"}, None), "nobody shows it in error"
        assert "ActionIntended" not in story()
    finally:
        command(lab, "arm", "recovery")
        command(lab, "lab", "start-host", "n1")
    eventually(lab.all_up, 60, "the host is back")
    eventually(lambda: (the_fault(lab, "host_down") or {}).get("state") == "cleared", 20, "cleared")


@pytest.mark.seed("order a dead host is told once though the server dies")
def test_the_server_dies_while_a_host_is_down_and_nobody_hears_twice(lab: Lab) -> None:
    eventually(lab.all_up, 30, "everything is up")
    hit = carried(lab)
    try:
        command(lab, "lab", "kill-host", "n2")
        eventually(lambda: host(lab).get("state") == "down", 15, "it is down")
        fault = the_fault(lab, "host_down")
        assert fault is not None
        lab.kill_child("server")
        eventually(lambda: host(lab).get("fenced"), 30, "it is fenced, by this server or the next")
        again = the_fault(lab, "host_down")
        assert again is not None
        assert (again["id"], again["state"]) == (fault["id"], "open")
        eventually(lambda: len(host_notices(lab, "raised", fault["id"])) == len(hit), 20, "all were told")
    finally:
        command(lab, "lab", "start-host", "n2")
    eventually(lambda: ended(lab, fault["id"]) == set(hit), 60, "all were told so")
    assert host_notices(lab, "raised", fault["id"]) == hit
    rows = lab.read("/status")["items"]
    assert next(row["value"] for row in rows if row["promise"] == "acts past their deadline") == 0


@pytest.mark.seed("order more than half at once: unknown, no harm, one notice to a person")
def test_two_of_three_hosts_at_once_are_not_believed(lab: Lab) -> None:
    eventually(lab.all_up, 30, "everything is up")
    eventually(
        lambda: (the_fault(lab, "host_down") or {}).get("state") in (None, "cleared"), 40, "none is down"
    )
    before = the_fault(lab, "host_down")
    state = StateDirectory(lab.directory)
    try:
        for name in ("n2", "n3"):
            switch_off(state, HostId(name))
        eventually(lambda: the_fault(lab, "evidence_lost"), 20, "a person is told")
        fault = the_fault(lab, "evidence_lost")
        assert fault is not None
        assert "2 of 3" in fault["reason"]
        eventually(lambda: lab.told("on-call", "fleet") == ["raised"], 10, "once")
        assert {row["state"] for row in lab.read("/hosts")["items"]} == {"unknown"}
        assert not any(row["fenced"] for row in lab.read("/hosts")["items"])
        assert {row["agent"] for row in lab.read("/hosts")["items"]} == {"unknown"}
        assert {row["state"] for row in lab.read("/resources")["items"]} == {"unknown"}, (
            "of nothing is it known"
        )
    finally:
        for name in ("n2", "n3"):
            command(lab, "lab", "start-host", name)
    eventually(lab.all_up, 60, "everything is back")
    eventually(lambda: lab.told("on-call", "fleet") == ["raised", "cleared"], 20, "taken back")
    assert the_fault(lab, "host_down") == before
    assert not lab.told("blue", "fleet")


def test_a_host_that_is_not_there_is_one_line(lab: Lab, tmp_path: Path) -> None:
    for words in (["lab", "kill-host", "n9"], ["what-if", "host", "n9"]):
        done = subprocess.run(
            [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(lab.directory)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 4
        assert done.stderr.count("\n") == 1
