"""When the cloud is up, and when it is not: which service on which node, and why.

Up means: every API of both controllers is in the balancer's rotation, and every program that works behind
them has reported to its API. The pure parts read what haproxy and the APIs say.
"""

from __future__ import annotations

import csv
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from homeostat.kernel.errors import RetryLater
from testbed import fabric
from testbed.balancing import STATS_PORT
from testbed.cloud import Cloud, Unanswered
from testbed.failures import TestbedFailed
from testbed.machines import Machine
from testbed.plan import CONTROLLERS, Plan, node_named
from testbed.services import APIS
from testbed.supervision import restless

Say = Callable[[str], None]
_EVERY_S = 1.0
_RESTLESS_DEATHS = 12
_STATS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Backend:
    """One API on one controller, as a balancer sees it."""

    service: str
    node: str
    up: bool
    said: str


def read_stats(text: str) -> list[Backend]:
    """haproxy's own table of back ends; front ends and sums are left out."""
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    names = {each.name for each in CONTROLLERS}
    return [
        Backend(row["pxname"], row["svname"], _has_answered(row), _check(row))
        for row in rows
        if row["svname"] in names
    ]


def _has_answered(row: dict[str, str]) -> bool:
    """haproxy calls a back end UP before it has asked it once; a star says that it is asking just now."""
    return row["status"].startswith("UP") and (row["check_status"] or "").removeprefix("* ") == "L7OK"


def _check(row: dict[str, str]) -> str:
    return " ".join(word for word in (row["status"], row.get("check_status"), row.get("check_code")) if word)


def backends(plan: Plan) -> list[Backend]:
    """What the first balancer that answers says; empty when none does."""
    for node in CONTROLLERS:
        try:
            url = f"http://{plan.address(node)}:{STATS_PORT}/;csv"
            with urllib.request.urlopen(url, timeout=_STATS_TIMEOUT_S) as answer:
                return read_stats(answer.read().decode())
        except OSError:
            continue
    return []


def missing_apis(seen: Sequence[Backend]) -> list[str]:
    """`service@node` of everything that should be in rotation and is not."""
    there = {f"{each.service}@{each.node}" for each in seen if each.up}
    return sorted({f"{api.name}@{node.name}" for api in APIS for node in CONTROLLERS} - there)


def wait_for_apis(plan: Plan, machines: Sequence[Machine], deadline_s: float, say: Say) -> None:
    """Until every API is in rotation. TestbedFailed says which are not and quotes their logs."""
    until = time.monotonic() + deadline_s
    told: set[str] = set()
    while missing := missing_apis(seen := backends(plan)):
        for each in seen:
            name = f"{each.service}@{each.node}"
            if each.up and name not in told:
                told.add(name)
                say(f"{name} is up ({len(told)} of {len(APIS) * len(CONTROLLERS)})")
        _refuse_restless(machines)
        if time.monotonic() > until:
            raise TestbedFailed(_why(missing, seen, machines, deadline_s))
        time.sleep(_EVERY_S)


def _refuse_restless(machines: Sequence[Machine]) -> None:
    for machine in machines:
        log = "\n".join(machine.log_of("supervisord", 400))
        for name, how in restless(log, deaths=_RESTLESS_DEATHS).items():
            raise TestbedFailed(
                f"{name}@{machine.node.name}: dies again and again ({how}){_quoted(machine, name)}"
            )


def _why(missing: list[str], seen: list[Backend], machines: Sequence[Machine], deadline_s: float) -> str:
    by_name = {machine.node.name: machine for machine in machines}
    checks = {f"{each.service}@{each.node}": each.said for each in seen}
    lines = [f"not up within {deadline_s:.0f} s:"]
    for name in missing:
        service, _, node = name.partition("@")
        said = checks.get(name, "no balancer answers")
        log = _quoted(by_name[node], service) if node in by_name else "; the node does not run"
        lines.append(f"  {name}: {said}{log}")
    return "\n".join(lines)


def _quoted(machine: Machine, program: str) -> str:
    lines = machine.log_of(program)
    return "; its last lines:" + "".join(f"\n    {line}" for line in lines or ["(it wrote nothing)"])


WORKERS = {
    "nova": ("nova-conductor@ctl1", "nova-conductor@ctl2", "nova-scheduler@ctl1", "nova-scheduler@ctl2"),
    "compute": ("nova-compute@cmp1",),
    "neutron": ("l2-agent@cmp1",),
    "cinder": ("cinder-scheduler@ctl1", "cinder-scheduler@ctl2", "cinder-volume@infra"),
    "heat": ("heat-engine@ctl1", "heat-engine@ctl2"),
}
"""What must have reported, by who is asked."""


def reported(cloud: Cloud) -> set[str]:
    """Every program behind an API that its API says is alive. Unanswered when an API does not answer."""
    found = set()
    for each in cloud.call("GET", 8774, "/v2.1/os-services")["services"]:
        found |= _alive(each, each["state"] == "up")
    for each in cloud.call("GET", 8776, f"/v3/{cloud.project_id}/os-services")["services"]:
        found |= _alive({**each, "host": each["host"].partition("@")[0]}, each["state"] == "up")
    for each in cloud.call("GET", 8004, f"/v1/{cloud.project_id}/services")["services"]:
        found |= _alive({**each, "host": each["hostname"]}, each["status"] == "up")
    for each in cloud.call("GET", 9696, "/v2.0/agents")["agents"]:
        found |= _alive({**each, "binary": "l2-agent"}, each["alive"])
    return found


def _alive(row: dict[str, Any], alive: bool) -> set[str]:
    return {f"{row['binary']}@{row['host']}"} if alive else set()


def wait_for_workers(cloud: Cloud, machines: Sequence[Machine], deadline_s: float) -> None:
    """Until every worker has reported. TestbedFailed says which have not and quotes their logs."""
    wanted = {name for names in WORKERS.values() for name in names}
    by_name = {machine.node.name: machine for machine in machines}
    until = time.monotonic() + deadline_s
    missing, said = wanted, ""
    while missing:
        try:
            cloud.login()
            missing, said = wanted - reported(cloud), ""
        except Unanswered as error:
            said = f"\n  {error}"
        if missing and time.monotonic() > until:
            quoted = "".join(
                f"\n  {name}{_quoted(by_name[name.partition('@')[2]], name.partition('@')[0])}"
                for name in sorted(missing)
            )
            raise TestbedFailed(f"has not reported within {deadline_s:.0f} s:{said}{quoted}")
        _refuse_restless(machines)
        if missing:
            time.sleep(_EVERY_S)


def until_answered(act: Callable[[], None], deadline_s: float) -> None:
    """Repeat an act that may be repeated until it goes through. Its own error after the deadline."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            return act()
        except RetryLater:
            if time.monotonic() > until:
                raise
            time.sleep(_EVERY_S)


def wait_for_keystone(plan: Plan, machines: Sequence[Machine], deadline_s: float) -> None:
    """Until a login goes through. TestbedFailed quotes keystone's logs."""
    try:
        until_answered(Cloud(plan).login, deadline_s)
    except Unanswered as error:
        logs = "".join(
            f"\n  keystone@{each.node.name}{_quoted(each, 'keystone')}"
            for each in machines
            if each.node in CONTROLLERS
        )
        raise TestbedFailed(f"keystone has not answered within {deadline_s:.0f} s: {error}{logs}") from error


def wait_until_whole(plan: Plan, deadline_s: float, say: Say) -> None:
    """Until a running cloud is as after its start: in rotation, reported, the address at its first place.

    TestbedFailed says what is missing.
    """
    until, told, cloud = time.monotonic() + deadline_s, "", Cloud(plan)
    while missing := not_whole(plan, cloud):
        words = ", ".join(missing)
        if words != told:
            say(f"waiting for {words}")
            told = words
        if time.monotonic() > until:
            raise TestbedFailed(f"the cloud is not whole within {deadline_s:.0f} s: {words}")
        time.sleep(_EVERY_S)


def not_whole(plan: Plan, cloud: Cloud) -> list[str]:
    """What of the cloud is not as it was after its start, in words."""
    if missing := missing_apis(backends(plan)):
        return missing
    if not fabric.holds(node_named(plan.vip_on), plan.vip):
        return [f"the address on {plan.vip_on}"]
    try:
        cloud.login()
        return sorted({name for names in WORKERS.values() for name in names} - reported(cloud))
    except Unanswered as error:
        return [str(error)]
