"""A host is silenced before it dies: nobody hears, the journal says why, its end tells it once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_lab import Lab, eventually, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of this file's own, each guest still at home: hosts that die elsewhere send guests away."""
    with running(Path(tmp_path_factory.mktemp("lab")) / "state") as started:
        yield started


LISTENERS = {"on-call", "platform", "blue", "green"}
STILL_WRONG = {"on-call", "platform"}
"""Who runs a service on n2, or all of it. The guests of blue and green start elsewhere within the silence."""


def command(lab: Lab, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(lab.directory)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def host_fault(lab: Lab) -> dict[str, Any] | None:
    rows = lab.get("/faults") or {"items": []}
    found = [row for row in rows["items"] if row["kind"] == "host_down" and row["state"] != "cleared"]
    return found[0] if found else None


def told(lab: Lab, name: str, fault: str) -> list[str]:
    return [body["transition"] for body in lab.heard(name) if body["fault"]["id"] == fault]


def heard(lab: Lab, transition: str, fault: str) -> set[str]:
    return {name for name in LISTENERS if transition in told(lab, name, fault)}


def faults_of(lab: Lab, resource: str) -> dict[str, str]:
    """Every fault of a resource by its id, and its state."""
    rows = lab.get("/faults")["items"]
    return {row["id"]: row["state"] for row in rows if row["about"] == f"resource/{resource}"}


def story(lab: Lab, fault: str) -> list[str]:
    return [row["kind"] for row in lab.read(f"/explain/{fault}")["items"]]


@pytest.mark.seed("order a silence on n2: a killed host is told to nobody until the silence is removed")
def test_a_silenced_host_dies_unheard_and_is_told_once_when_the_silence_ends(lab: Lab) -> None:
    silence = json.loads(
        command(lab, "silence", "create", "--host", "n2", "--for", "1h", "--reason", "new memory", "--json")
    )
    foreseen = lab.read("/what-if/host/n2")["notices"]
    assert {row["subscription"] for row in foreseen} == LISTENERS
    assert {row["silence"] for row in foreseen} == {silence["id"]}
    assert {row["silence"] for row in lab.read("/what-if/host/n1")["notices"]} == {None}
    try:
        command(lab, "lab", "kill-host", "n2")
        fault = eventually(lambda: host_fault(lab), 20, "the host is down")
        eventually(lambda: story(lab, fault["id"]).count("NoticeSilenced") == 4, 10, "the journal says why")
        # Fenced long after all would have been told: nothing was, of the host or of what ran there.
        eventually(lambda: "HostFenced" in story(lab, fault["id"]), 20, "it is fenced")
        assert heard(lab, "raised", fault["id"]) == set()
        rows = [row for row in lab.read("/notices", state="silenced")["items"] if row["fault"] == fault["id"]]
        assert {row["reason"] for row in rows} == {f"{silence['id']}: new memory"}
        assert lab.read(f"/silences/{silence['id']}")["kept_back"] == len(rows)
        lab.kill_child("server")  # who was spared is in the tables
        eventually(lambda: lab.get("/status"), 30, "the server is back")
        assert heard(lab, "raised", fault["id"]) == set()
        eventually(lambda: story(lab, fault["id"]).count("GuestRecovered") == 2, 20, "its guests run again")
        command(lab, "silence", "rm", silence["id"])
        eventually(lambda: heard(lab, "raised", fault["id"]) == STILL_WRONG, 20, "those it still is news for")
        assert "NoticeUnsilenced" in story(lab, fault["id"])
    finally:
        command(lab, "lab", "start-host", "n2")
    eventually(lab.all_up, 60, "the host is back")
    eventually(lambda: heard(lab, "cleared", fault["id"]) == STILL_WRONG, 30, "and that it is over")
    for name in LISTENERS:
        assert told(lab, name, fault["id"]) == (["raised", "cleared"] if name in STILL_WRONG else [])
    lines = [json.loads(line) for line in (Path(lab.directory) / "heard.jsonl").read_text().splitlines()]
    keys = [line["key"] for line in lines if line["status"] == 200 and fault["id"] in line["key"]]
    assert sorted(keys) == sorted(
        f"{n}:{fault['id']}:{t}" for n in STILL_WRONG for t in ("raised", "cleared")
    )


def test_what_is_over_within_a_silence_is_never_told(lab: Lab) -> None:
    eventually(lab.all_up, 60, "everything is up")
    silence = json.loads(
        command(lab, "silence", "create", "--resource", "web-n1", "--for", "10m", "--reason", "x", "--json")
    )
    known, said = faults_of(lab, "web-n1"), lab.told("platform", "resource/web-n1")
    before = eventually(lambda: lab.service("web-n1"), 10, "it runs")
    lab.kill(before)
    eventually(lambda: lab.restarted("web-n1", before), 20, "it runs again")

    def cleared() -> bool:
        fresh = faults_of(lab, "web-n1").items() - known.items()
        return [state for _, state in fresh] == ["cleared"]

    eventually(cleared, 20, "its fault is over")
    command(lab, "silence", "rm", silence["id"])
    others = lab.told("platform", "resource/web-n3")
    before = eventually(lambda: lab.service("web-n3"), 10, "it runs")
    lab.kill(before)
    wanted = [*others, "raised", "cleared"]
    eventually(lambda: lab.told("platform", "resource/web-n3") == wanted, 30, "others are told")
    assert lab.told("platform", "resource/web-n1") == said
