"""A process watch on a host that is reached by SSH, as a monitor process of this machine.

    python -m homeostat.drills.transports.ssh_watch --config FILE

What the watch says there is said here, stamps and all; what it saw goes into the sightings file here. SIGTERM
ends it there, which is its last word; when we die, or the connection, it ends there too. One that does not
get there ends with one line and is lost, as any monitor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import asyncssh

from homeostat.drills.transports.meaning import error_of
from homeostat.drills.transports.ssh_link import first_line, open_link
from homeostat.drills.transports.ssh_settings import SshAccess
from homeostat.kernel.config import checked
from homeostat.kernel.errors import GiveUp
from homeostat.kernel.terminal import errors_in_one_line

_SIGHTING, _ERROR = b"[", b'{"error"'


async def follow(given: dict[str, Any], file: BinaryIO, voice: BinaryIO) -> None:
    """Until the watch there has ended. Kernel errors when it cannot be there, or ended without a word."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    link = await open_link(given["host"], checked(SshAccess, given["ssh"]))
    try:
        process = await link.run("watch")
        process.stdin.write(json.dumps(given["watch"]).encode() + b"\n")
        letting_go = asyncio.create_task(_let_go(process, stopping), name="let go of the watch")
        try:
            while line := await first_line(process):
                if line.startswith(_SIGHTING):
                    file.write(line)
                elif line.startswith(_ERROR):
                    raise error_of(json.loads(line)["error"])
                else:
                    os.fsync(file.fileno())
                    voice.write(line)
                    voice.flush()
        finally:
            letting_go.cancel()
    except (asyncssh.Error, OSError) as error:
        raise GiveUp(f"{given['host']}: the watch is over: {error}") from error
    finally:
        await link.close()


async def _let_go(process: asyncssh.SSHClientProcess[bytes], stopping: asyncio.Event) -> None:
    await stopping.wait()
    process.stdin.write_eof()


def main() -> None:
    """The command: 0 after the last word."""
    parser = argparse.ArgumentParser(prog="homeostat.drills.transports.ssh_watch", description="one watch")
    parser.add_argument("--config", type=Path, required=True, help="host, ssh and watch as JSON")
    given = json.loads(parser.parse_args().config.read_text())
    with errors_in_one_line(), Path(given["watch"]["sightings_file"]).open("ab", buffering=0) as file:
        asyncio.run(follow(given, file, sys.stdout.buffer))


if __name__ == "__main__":
    main()
