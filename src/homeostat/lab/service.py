"""The small real service that the lab keeps up: HTTP on loopback, standard library only, up in 100 ms.

`python -m homeostat.lab.service --name web-n1 --host n1 --port 8801 --ready-file F`. F appears when it
listens, holding the pid, and goes when it stops; a stale one is removed first. A start is one line on
stdout.

Without a ready file it is no service but the stand-in for a host's own address: it listens where the sshd of
a real machine would, and closes every connection. The server's outside probes connect to it, and it lives as
long as its host is on, whatever the host's node process does.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_HEAD_BYTES_MAX = 8 * 1024
_IDLE_S = 30.0
_DRAIN_S = 0.2
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def _say(line: str) -> None:
    """Print it, unless the disk that the output goes to is full: that is no reason not to serve."""
    with suppress(OSError):
        print(line, flush=True)


class LabService:
    """Answers GET /, /pid and /healthz, over kept-alive connections."""

    def __init__(self, name: str, host: str) -> None:
        self.who = {"name": name, "host": host, "pid": os.getpid()}
        self._idle: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._all_closed = asyncio.Event()
        self._stopping = False

    def answer(self, line: str) -> tuple[int, bytes]:
        words = line.split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return 400, b"not HTTP/1\n"
        if words[0] not in ("GET", "HEAD"):
            return 405, b"only GET\n"
        match words[1].partition("?")[0]:
            case "/":
                return 200, json.dumps(self.who).encode() + b"\n"
            case "/pid":
                return 200, f"{self.who['pid']}\n".encode()
            case "/healthz":
                return 200, b"ok\n"
            case _:
                return 404, b"no such page\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side has enough."""
        self._open.add(writer)
        try:
            while not self._stopping and await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # only at the very end, and Python 3.11 logs a cancelled connection as an error
        finally:
            self._open.discard(writer)
            if not self._open:
                self._all_closed.set()
            self._idle.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self._idle.add(writer)
        async with asyncio.timeout(_IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        self._idle.discard(writer)
        line, _, fields = head.decode("latin-1").partition("\r\n")
        status, body = self.answer(line)
        lowered = fields.lower()
        keep = status in (200, 404) and line.endswith("HTTP/1.1") and "connection: close" not in lowered
        keep = keep and not self._stopping
        reply = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: "
            f"{'application/json' if body[:1] == b'{' else 'text/plain'}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        writer.write(reply.encode() + (b"" if line.startswith("HEAD") else body))
        async with asyncio.timeout(_IDLE_S):
            await writer.drain()
        return keep

    async def stop(self) -> None:
        """Let requests under way finish, for 0.2 s at most."""
        self._stopping = True
        for writer in tuple(self._idle):
            writer.close()
        self._all_closed.clear()
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._all_closed.wait()


async def run(service: LabService, port: int, ready_file: Path) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    ready_file.unlink(missing_ok=True)
    server = await asyncio.start_server(service.serve, "127.0.0.1", port, limit=_HEAD_BYTES_MAX)
    _create_ready_file(ready_file)
    _say(json.dumps({**service.who, "started_ns": time.time_ns()}))
    await stopped.wait()
    server.close()
    await service.stop()
    ready_file.unlink(missing_ok=True)


def _create_ready_file(path: Path) -> None:
    """Say that we listen, with our pid; on a full disk without it: an empty file needs no room."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(f"{os.getpid()}\n")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    fresh.replace(path)


async def run_address(port: int) -> None:
    """Accept and close connections until the process is ended."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="homeostat.lab.service", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready-file", type=Path)
    given = parser.parse_args()
    service = LabService(given.name, given.host)
    try:
        if given.ready_file is None:
            asyncio.run(run_address(given.port))
        else:
            asyncio.run(run(service, given.port, given.ready_file))
    except OSError as error:
        raise SystemExit(f"{given.name}: port {given.port}: {error.strerror}") from error


if __name__ == "__main__":
    main()
