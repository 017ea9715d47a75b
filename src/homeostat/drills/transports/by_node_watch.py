"""A process watch on a host that is reached by its node process, as a monitor process of this machine.

    python -m homeostat.drills.transports.by_node_watch --config FILE

What the watch says there is read through the server and said here, stamps and all; what it saw goes into the
sightings file here. SIGTERM ends it there, which is its last word. When we die nobody reads it any more, and
it ends there after its lease. One that does not get there ends with one line and is lost, as any monitor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from homeostat.drills.site import SiteServer
from homeostat.drills.transports.by_node import NodeAsking, watching
from homeostat.drills.transports.meaning import error_of
from homeostat.drills.transports.questions import AskSeen, AskUnwatch
from homeostat.kernel.client import Client
from homeostat.kernel.config import checked
from homeostat.kernel.terminal import errors_in_one_line
from homeostat.monitors.node_process_watch import WatchConfig

READ_S = 0.2
"""Between two readings. A watch says something every half second, and is lost after two."""
_SIGHTING, _ERROR = "[", '{"error"'


async def follow(given: dict[str, Any], file: BinaryIO, voice: BinaryIO) -> None:
    """Until the watch there has ended and all of it was read. Kernel errors."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = checked(SiteServer, given["server"])
    asking = NodeAsking(given["host"], Client.with_token_of(server.url, server.token_file))
    watch, read, let_go, over = uuid.uuid4().hex, 0, False, False
    await asking.ask(watching(WatchConfig(**given["watch"]), watch))
    while not over:
        told = await asking.ask(AskSeen(watch=watch, after=read))
        for line in told["lines"]:
            _take(line, file, voice)
        read, over = read + len(told["lines"]), told["over"]
        if stopping.is_set() and not let_go and not over:
            let_go = True
            await asking.ask(AskUnwatch(watch=watch))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0 if over else READ_S):
                await (asyncio.sleep(READ_S) if let_go else stopping.wait())


def _take(line: str, file: BinaryIO, voice: BinaryIO) -> None:
    if line.startswith(_SIGHTING):
        file.write(line.encode())
    elif line.startswith(_ERROR):
        raise error_of(json.loads(line)["error"])
    else:
        os.fsync(file.fileno())
        voice.write(line.encode())
        voice.flush()


def main() -> None:
    """The command: 0 after the last word."""
    parser = argparse.ArgumentParser(
        prog="homeostat.drills.transports.by_node_watch", description="one watch"
    )
    parser.add_argument("--config", type=Path, required=True, help="host, server and watch as JSON")
    given = json.loads(parser.parse_args().config.read_text())
    with errors_in_one_line(), Path(given["watch"]["sightings_file"]).open("ab", buffering=0) as file:
        asyncio.run(follow(given, file, sys.stdout.buffer))


if __name__ == "__main__":
    main()
