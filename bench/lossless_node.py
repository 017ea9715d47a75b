"""Hosts whose resources break by a schedule, for `bench/lossless.py`: the product's own node side, without agents.

Run as a process of its own: `python lossless_node.py SCHEDULE FOLDER NATS_URL LOG`. Each host has the product's
observation store and link; what an agent would report comes from the schedule instead. What it breaks is in its
log before it is reported. `ready` and `done` are lines in the log too: all resources are known to the server,
and the server has acknowledged everything.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TextIO

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Report
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.terminal import configure_logging
from homeostat.node.link import LinkSettings, NodeLink
from homeostat.node.observations import ObservationStore

CLOCK = SystemClock()


class Host:
    """One host: a store, a link, and the resources that it reports."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self.name = name
        self.store = ObservationStore(folder / f"{name}.db")
        self.bus = Bus(BusSettings(url, name, f"{name}-secret", f"node {name}", 2.0, f"to.{name}.inbox"))
        self.link = NodeLink(LinkSettings(HostId(name)), self.bus, self.store)

    async def report(self, resource: str, state: ResourceState) -> None:
        """As a role does: on disk first, then the link."""
        said = Report(
            1, ResourceId(resource), ResourceKind.GUEST, Owner("platform"), "ocf:homeostat:process", state,
            "as the schedule says", CLOCK.wall_ns(), CLOCK.mono_ns(),
        )  # fmt: skip
        self.link.recorded(await asyncio.to_thread(self.store.record, said))


async def acknowledged(hosts: list[Host]) -> None:
    """Until the server has committed everything that was reported."""
    while any(host.store.pending(1) for host in hosts):
        await asyncio.sleep(0.05)


async def follow(hosts: dict[str, Host], schedule: Path, log: TextIO) -> None:
    """Everything is up; then the schedule."""
    plan = json.loads(schedule.read_text())
    for resource, host in plan["resources"].items():
        await hosts[host].report(resource, ResourceState.UP)
    await acknowledged(list(hosts.values()))
    print('"ready"', file=log, flush=True)
    start = schedule.with_name("start")
    while not start.exists():
        await asyncio.sleep(0.01)
    start_s = float(start.read_text())
    for at_s, resource, transition in plan["changes"]:
        await asyncio.sleep(max(0.0, start_s + at_s - time.monotonic()))
        print(json.dumps({"resource": resource, "transition": transition}), file=log, flush=True)
        state = ResourceState.DOWN if transition == "raised" else ResourceState.UP
        await hosts[plan["resources"][resource]].report(resource, state)
    await acknowledged(list(hosts.values()))
    print('"done"', file=log, flush=True)


async def main(schedule: Path, folder: Path, url: str, log: TextIO) -> None:
    """Run until somebody ends us."""
    names = sorted(set(json.loads(schedule.read_text())["resources"].values()))
    hosts = {name: Host(name, folder, url) for name in names}
    async with asyncio.TaskGroup() as group:
        for host in hosts.values():
            await host.link.listen()
            group.create_task(host.bus.run())
            for task in host.link.tasks():
                group.create_task(task.run())
        group.create_task(follow(hosts, schedule, log))


if __name__ == "__main__":
    configure_logging("error")
    with Path(sys.argv[4]).open("w") as file:
        asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], file))
