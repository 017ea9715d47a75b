"""Where the time went, on a running lab: checkpoints against the consumer's log, Doctor's lines, owners."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from running_lab import Lab, eventually

from homeostat.kernel.client import Client
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import NotFound

pytestmark = pytest.mark.e2e


def cli(lab: Lab, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words, "--dir", str(lab.directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def killed(lab: Lab, resource: str) -> str:
    """Kill a service; the id of its fault, once everybody was told of its end."""
    before = lab.service(resource)
    assert before is not None
    told = {name: len(lab.told(name, f"resource/{resource}")) for name in ("on-call", "platform")}
    lab.kill(before)
    for name, count in told.items():
        eventually(
            lambda n=name, c=count: len(lab.told(n, f"resource/{resource}")) == c + 2,  # type: ignore[misc]
            15,
            f"{name} was told",
        )
    return str([body["fault"] for body in lab.heard("platform")][-1]["id"])


def timeline(lab: Lab, fault: str) -> dict[str, Any]:
    """Its timeline, once the journal holds that both consumers have answered."""

    def whole() -> dict[str, Any] | None:
        view = lab.get(f"/faults/{fault}/timeline")
        return view if view and [each["state"] for each in view["told"]] == ["told"] * 2 else None

    return eventually(whole, 10, f"both were told of {fault}") or {}


def heard_ns(lab: Lab, key: str) -> int:
    """When the consumer itself says that the request came in."""
    lines = map(json.loads, (lab.directory / "heard.jsonl").read_text().splitlines())
    return next(int(line["received_at_ns"]) for line in lines if line["key"] == key)


@pytest.mark.seed("002 timestamps split the notification time and are visualized as a timeline")
def test_the_checkpoints_are_in_order_and_agree_with_the_consumers_own_log(lab: Lab) -> None:
    fault = killed(lab, "web-n2")
    view = timeline(lab, fault)
    at = {each["id"]: each["at"] for each in view["checkpoints"]}
    known = [id for id, moment in at.items() if moment is not None]
    assert known == ["1", "2", "5", "6", "7", "8", "9", "10"], at
    assert [at[id] for id in known] == sorted(at[id] for id in known), "all on one machine here"
    assert sum(cost["percent"] for cost in view["costs"]) == pytest.approx(100, abs=0.5)
    came_ns = heard_ns(lab, f"{view['consumer']}:{fault}:raised")
    sent, read = (datetime.fromisoformat(at[id]).timestamp() for id in ("8", "9"))
    assert sent - 1e-5 <= came_ns / 1e9 <= read + 1e-5, "sent, then heard, then read"
    assert 0 < view["first_told_ms"] <= view["last_told_ms"]
    assert view["resolved_ms"] > 0
    drawn = cli(lab, ("timeline", fault))
    assert drawn.returncode == 0, drawn.stderr
    assert "9-received alarm" in drawn.stdout
    assert "0-host down ?" in drawn.stdout
    assert "T04-marked host down ?" in cli(lab, ("timeline", fault, "--poc")).stdout


def host_killed(lab: Lab) -> str:
    """Kill a whole host; the id of its fault, once all were told and its cloud shows it. It is back then."""
    before = {row["id"] for row in lab.read("/faults")["items"]}
    killed = cli(lab, ("lab", "kill-host", "n2", "--json"))
    assert killed.returncode == 0, killed.stderr
    assert json.loads(killed.stdout)["stamped"] is True
    try:

        def fault() -> str:
            rows = (lab.get("/faults") or {"items": []})["items"]
            return next(
                (row["id"] for row in rows if row["kind"] == "host_down" and row["id"] not in before), ""
            )

        found = eventually(fault, 20, "the host is down")

        def whole() -> bool:
            view = lab.get(f"/faults/{found}/timeline")
            known = {each["id"] for each in (view or {"checkpoints": []})["checkpoints"] if each["at"]}
            return len(known) == 11 and {each["state"] for each in view["told"]} == {"told"}

        eventually(whole, 20, f"all eleven are known of {found}")
    finally:
        assert cli(lab, ("lab", "start-host", "n2")).returncode == 0
    eventually(lab.all_up, 60, "the host is back")
    eventually(lambda: lab.read(f"/faults/{found}")["state"] == "cleared", 20, "the fault is over")
    return found


@pytest.mark.seed("002 eleven checkpoints from host down to handled alarm")
@pytest.mark.seed("order the eleven checkpoints from the journal, the cost table sorted, compare")
def test_a_host_that_is_killed_has_all_eleven_checkpoints(lab: Lab, tmp_path: Path) -> None:
    fault = host_killed(lab)
    view = json.loads(cli(lab, ("timeline", fault, "--json")).stdout)
    assert [each["id"] for each in view["checkpoints"]] == [str(number) for number in range(11)]
    at = {each["id"]: each["at"] for each in view["checkpoints"]}
    way = [id for id in at if not next(each for each in view["checkpoints"] if each["id"] == id)["beside"]]
    assert [at[id] for id in way] == sorted(at[id] for id in way), "all on one machine here"
    assert {"0", "1", "2", "5", "6", "7", "8", "9", "10"} <= set(way)
    assert at["3"] <= at["4"], "the host is marked before its guests"
    came_ns = heard_ns(lab, f"{view['consumer']}:{fault}:raised")
    assert at["8"] <= iso(came_ns) <= at["9"]
    costs = [cost["ms"] for cost in view["costs"]]
    assert costs == sorted(costs, reverse=True)
    assert sum(costs) == pytest.approx(view["total_ms"], abs=0.01)
    assert sum(cost["percent"] for cost in view["costs"]) == pytest.approx(100, abs=0.5)
    drawn = cli(lab, ("timeline", fault)).stdout
    assert all(f"{each['id']}-{each['name']}" in drawn for each in view["checkpoints"])
    assert "?" not in drawn.split("|Component")[0]
    owners = {row["owner"] for row in lab.read(f"/faults/{fault}")["affected"]}
    assert {each["subscription"] for each in view["told"]} == {"on-call", *owners}
    other = host_killed(lab)
    saved = tmp_path / "before.json"
    saved.write_text(json.dumps(view))
    found = json.loads(cli(lab, ("timeline", "compare", str(saved), other, "--json")).stdout)
    differences = [abs(row["difference_ms"]) for row in found["items"][:-1]]
    assert differences == sorted(differences, reverse=True)
    assert found["items"][-1]["component"] == "total"


def test_two_can_be_compared_one_of_them_from_a_file(lab: Lab, tmp_path: Path) -> None:
    first, second = killed(lab, "web-n3"), killed(lab, "web-n3")
    views = [timeline(lab, fault) for fault in (first, second)]
    saved = tmp_path / "before.json"
    saved.write_text(cli(lab, ("timeline", first, "--json")).stdout)
    found = cli(lab, ("timeline", "compare", str(saved), second, "--json"))
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert (answer["a"], answer["b"]) == (first, second)
    total = answer["items"][-1]
    assert (total["a_ms"], total["b_ms"]) == (views[0]["total_ms"], views[1]["total_ms"])
    assert "Difference" in cli(lab, ("timeline", "compare", str(saved), second)).stdout
    for words in (("timeline", "compare", first), ("timeline", first, second)):
        refused = cli(lab, words)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1
    assert cli(lab, ("timeline", "f-nothing")).returncode == 4


def test_only_its_owner_sees_it_and_only_his_own_consumers_in_it(lab: Lab) -> None:
    fault = killed(lab, "web-n1")
    timeline(lab, fault)
    tokens = json.loads((lab.directory / "credentials.json").read_text())["projects"]
    url = lab.client.url
    view = Client(url, tokens["platform"]).call("GET", f"/faults/{fault}/timeline")
    assert [each["subscription"] for each in view["told"]] == ["platform"]
    with pytest.raises(NotFound):
        Client(url, tokens["platform"]).call("GET", f"/faults/{fault}/timeline", consumer="on-call")
    with pytest.raises(NotFound):
        Client(url, tokens["blue"]).call("GET", f"/faults/{fault}/timeline")


@pytest.mark.seed(
    "002 the consumer is notified less than a second after the monitor detected, by their log lines"
)
def test_the_scripts_of_doctor_find_the_tenth_word(lab: Lab) -> None:
    fault = killed(lab, "web-n2")
    logs = lab.directory / "logs"
    raised = lab.read(f"/faults/{fault}")["raised_at"]
    stamp = f"{datetime.fromisoformat(raised).timestamp():.6f}"
    eventually(lambda: stamp in (logs / "doctor_monitor.log").read_text(), 10, "the monitor's line")
    script = f"""
        detected=$(grep "doctor monitor detected at" doctor_monitor.log | tail -1 | awk '{{print $10}}')
        notified=$(grep -B1 {fault} doctor_consumer.log | grep "doctor consumer notified at" | tail -1 \\
          | awk '{{print $10}}')
        echo "$notified $detected" \
          | awk '{{ d = $1 - $2; if (d < 1 && d > 0) print d " OK"; else print d " NG" }}'
        echo $detected
    """
    said = subprocess.run(["bash", "-c", script], cwd=logs, capture_output=True, text=True, check=True).stdout
    verdict, detected = said.splitlines()
    assert verdict.endswith(" OK"), verdict
    assert detected == stamp
