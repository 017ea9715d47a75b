"""The line between a node and its runner carries everything that the node remembers, however much it is."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Intent, ResourceStatus, encode
from homeostat.node.observations import ObservationStore
from homeostat.node.roles import RoleCommand, RoleProcess
from homeostat.node.runner_protocol import RunnerProtocol
from real_parts import eventually

ROLE = """
import asyncio, pathlib, sys
from homeostat.resources.node.pipe import NodePipe

async def main():
    line = await NodePipe.on_stdio()
    recalled = await line.recalled()
    acts = recalled.open_intents
    said = f"{len(recalled.levels)} {len(acts)} {acts['guest-07777'].action}"
    pathlib.Path(sys.argv[1]).write_text(said)
    await line.listen()

asyncio.run(main())
"""
COUNT = 10_000


def level(number: int) -> ResourceStatus:
    name = ResourceId(f"guest-{number:05}")
    guest, up = ResourceKind.GUEST, ResourceState.UP
    return ResourceStatus(name, guest, Owner("blue"), "ocf:x:y", up, "r" * 100, 1, number + 1)


async def test_a_runner_of_ten_thousand_resources_is_told_all_of_them(tmp_path: Path) -> None:
    path, heard = tmp_path / "observations.db", tmp_path / "heard"
    ObservationStore(path).close()
    rows = [level(number) for number in range(COUNT)]
    acts = [(row.resource, Intent(f"{row.resource}-1", "restart", 5.0, "it died")) for row in rows]
    with sqlite3.connect(path) as database:
        database.executemany(
            "INSERT INTO levels VALUES (?, ?)", [(row.resource, encode(row)) for row in rows]
        )
        database.executemany("INSERT INTO intents VALUES (?, ?)", [(name, encode(act)) for name, act in acts])
    database.close()
    store = ObservationStore(path)
    role = RoleProcess(
        RoleCommand("runner", (sys.executable, "-c", ROLE, str(heard)), 5.0),
        RunnerProtocol(store, lambda _: None),
    )
    task = asyncio.create_task(role.run())
    try:
        await eventually(lambda: heard.exists() and heard.read_text(), 20, "everything is recalled")
        assert heard.read_text() == f"{COUNT} {COUNT} guest-07777-1"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()
