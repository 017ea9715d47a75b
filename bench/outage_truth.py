"""The ground truth of `bench/outage.py`: a server that is out for exactly as long as it is told, and logs it.

One thread, one loop: what it stamps is what it does. Orders come as lines of JSON on standard input, `{"mode",
"out_ns", "back_ns"}` on CLOCK_BOOTTIME, ahead of time; after each outage one line says what really happened.
Modes: `refuse` closes the listener and resets every connection, `503` answers so, `hang` reads and answers when
it is back. It gets real-time priority where permitted: the truth must not be late.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nout"
RESET = struct.pack("ii", 1, 0)


def now_ns() -> int:
    """CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class TruthServer:
    """Serves, or does not."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.connections: set[socket.socket] = set()
        self.held: list[socket.socket] = []
        self.order: dict[str, int | str] | None = None
        self.out = False
        self.out_ns = self.back_ns = self.last_good_ns = 0
        self.wants_first_good = False
        self.listener = self.listen()

    def listen(self) -> socket.socket:
        """A listener on our port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(1024)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, "listener")
        return listener

    def run(self) -> None:
        """Until standard input ends."""
        self.selector.register(sys.stdin, selectors.EVENT_READ, "orders")
        while True:
            for key, _ in self.selector.select(self.wait_s()):
                self.turn()  # a moment that came meanwhile comes first
                if key.data == "orders":
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self.order = json.loads(line)
                elif key.data == "listener":
                    self.accept()
                else:
                    self.read(key.fileobj)
            self.turn()

    def wait_s(self) -> float | None:
        """Until the next moment of the order."""
        if self.order is None:
            return None
        at_ns = int(self.order["back_ns" if self.out else "out_ns"])
        return max(0.0, (at_ns - now_ns()) / 1e9)

    def turn(self) -> None:
        """Go out or come back when it is time."""
        if self.order is None:
            return
        if not self.out and now_ns() >= int(self.order["out_ns"]):
            self.out, self.out_ns = True, now_ns()
            if self.order["mode"] == "refuse":
                self.selector.unregister(self.listener)
                self.listener.close()
                for connection in list(self.connections):
                    self.close(connection)
        elif self.out and now_ns() >= int(self.order["back_ns"]):
            if self.order["mode"] == "refuse":
                self.listener = self.listen()
            self.out, self.wants_first_good = False, True
            self.back_ns = now_ns()
            held, self.held, self.order = self.held, [], None
            for connection in held:
                self.good(connection)

    def accept(self) -> None:
        """Whoever waits."""
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.add(connection)
                self.selector.register(connection, selectors.EVENT_READ, "connection")

    def read(self, connection: socket.socket) -> None:
        """One request; they are small and nobody pipelines."""
        if connection not in self.connections:
            return
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.close(connection)
        elif not self.out:
            self.good(connection)
        elif self.order is not None and self.order["mode"] == "503":
            with contextlib.suppress(OSError):
                connection.send(BAD)
        else:
            self.held.append(connection)

    def good(self, connection: socket.socket) -> None:
        """Answer, and stamp it."""
        try:
            connection.send(GOOD)
        except OSError:
            return
        at_ns = now_ns()
        if self.wants_first_good:
            self.wants_first_good = False
            said = {"out_ns": self.out_ns, "back_ns": self.back_ns,
                    "last_good_ns": self.last_good_ns, "first_good_ns": at_ns}  # fmt: skip
            print(json.dumps(said), flush=True)
        self.last_good_ns = at_ns

    def close(self, connection: socket.socket) -> None:
        """And forget."""
        if connection in self.connections:
            self.connections.discard(connection)
            with contextlib.suppress(ValueError):
                self.held.remove(connection)
            self.selector.unregister(connection)
            connection.close()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {int(sys.argv[2])})
    TruthServer(int(sys.argv[1])).run()
