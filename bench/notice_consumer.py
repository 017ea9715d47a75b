"""The consumer of `bench/notice.py`, a lean process of its own: raw asyncio, stamps when a whole body is read.

Prints the ports that it listens on as its first line. Then one line a request:

    <port> <CLOCK_REALTIME ns> <CLOCK_BOOTTIME ns> <bytes of the body> <alerts in it> <Idempotency-Key or ->

The stamps are taken before anything else happens; then it answers 200, then it writes the line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Connection(asyncio.Protocol):
    """Reads one request after the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._head = b""
        self._need = -1

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the way back."""
        self._transport = transport
        self._port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        """Gather until the head, then until the body is there."""
        self._parts.append(data)
        self._have += len(data)
        while self._step():
            pass

    def _step(self) -> bool:
        if self._need < 0:
            whole = b"".join(self._parts)
            end = whole.find(b"\r\n\r\n")
            if end < 0:
                self._parts = [whole]
                return False
            self._head = whole[: end + 2]
            self._need = int(_header(self._head, b"content-length") or b"0")
            self._parts, self._have = [whole[end + 4 :]], len(whole) - end - 4
        if self._have < self._need:
            return False
        wall_ns, boot_ns = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._transport.write(ANSWER)
        whole = b"".join(self._parts)
        body, rest = whole[: self._need], whole[self._need :]
        key = (_header(self._head, b"idempotency-key") or b"-").decode()
        alerts = body.count(b'"startsAt"')
        line = f"{self._port} {wall_ns} {boot_ns} {len(body)} {alerts} {key}\n"
        os.write(1, line.encode())
        self._parts, self._have, self._need = ([rest] if rest else []), len(rest), -1
        return bool(rest)


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


async def main(count: int) -> None:
    """Listen for ever."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Connection, "127.0.0.1", 0) for _ in range(count)]
    os.write(1, (" ".join(str(each.sockets[0].getsockname()[1]) for each in servers) + "\n").encode())
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
