"""One NATS user in the protocol's own words: says what no client library would, and hears every refusal."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from types import TracebackType


class Voice:
    """A connection as `user`."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline().startswith(b"INFO ")
        told = {"user": user, "pass": password, "verbose": False, "pedantic": False}
        self._socket.sendall(f"CONNECT {json.dumps(told)}\r\n".encode())

    def publish(self, subject: str, body: bytes) -> None:
        with suppress(ConnectionResetError, BrokenPipeError):  # `flush` says that it was closed
            self._socket.sendall(f"PUB {subject} {len(body)}\r\n".encode() + body + b"\r\n")

    def flush(self) -> list[str]:
        """What NATS said up to the answer to a PING, or up to the end of the connection."""
        said: list[str] = []
        try:
            self._socket.sendall(b"PING\r\n")
            while (line := self._lines.readline()) and line != b"PONG\r\n":
                said.append(line.decode().strip())
        except (ConnectionResetError, BrokenPipeError):
            said.append("(closed)")
        return said

    def __enter__(self) -> Voice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()
