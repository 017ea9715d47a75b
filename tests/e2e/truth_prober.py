"""Asks the lab's nine services over and over, and writes down what is true: the oracle's own eyes.

Run beside a lab: `python truth_prober.py STATE_DIR LOG`. One JSON line a change: which resource, whether it
works now, and four times of the wall clock: when the last look at the old state began and ended, when the
first look at the new one did. A line with `gap_ns` says that the prober itself was late: what lies in it was
seen by nobody. It knows the ports of lab.json and nothing else of Homeostat.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

INTERVAL_S = 0.05
TIMEOUT_S = 0.4
"""Longer than a busy machine makes a living service wait; a frozen one is seen after that."""
LATE_S = 0.6
RESOURCES = [
    f"{name}-{host}{tail}"
    for host in ("n1", "n2", "n3")
    for name, tail in (("web", ""), ("guest", "-a"), ("guest", "-b"))
]


async def works(port: int) -> bool:
    """Whether something answers GET / there with 200."""
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def watch(resource: str, port: int, write: Any) -> None:
    """Look at one service for ever."""
    state: bool | None = None
    old_begun_ns = old_ended_ns = time.time_ns()
    while True:
        due_s = time.monotonic() + INTERVAL_S
        begun_ns = time.time_ns()
        now = await works(port)
        ended_ns = time.time_ns()
        if begun_ns - old_ended_ns > LATE_S * 1e9 or ended_ns - begun_ns > (TIMEOUT_S + LATE_S) * 1e9:
            write({"resource": resource, "gap_ns": [old_ended_ns, ended_ns]})
        if now is not state:
            times = {"old_ns": [old_begun_ns, old_ended_ns], "new_ns": [begun_ns, ended_ns]}
            write({"resource": resource, "works": now, **times})
            state = now
        old_begun_ns, old_ended_ns = begun_ns, ended_ns
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def main(state: Path, log: Path) -> None:
    ports = json.loads((state / "lab.json").read_text())["ports"]
    with log.open("a", buffering=1) as file:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")

        async with asyncio.TaskGroup() as group:
            for name in RESOURCES:
                group.create_task(watch(name, ports[name], write))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
