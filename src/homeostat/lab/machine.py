"""Stands for a host itself: listens where the sshd of a real machine would, and says nothing.

`python -m homeostat.lab.machine --host n1 --port 8791`. What the server's outside probes connect to. It
lives as long as its host is on, whatever the host's node process does.
"""

from __future__ import annotations

import argparse
import asyncio


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def run(port: int) -> None:
    """Listen until the process is ended."""
    server = await asyncio.start_server(_hang_up, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """The command line of one machine."""
    parser = argparse.ArgumentParser(prog="homeostat.lab.machine", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    told = parser.parse_args()
    try:
        asyncio.run(run(told.port))
    except OSError as error:
        raise SystemExit(f"machine {told.host}: port {told.port}: {error.strerror}") from error


if __name__ == "__main__":
    main()
