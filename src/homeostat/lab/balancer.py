"""A small TCP balancer before the lab's web services: round robin, and nobody waits for a dead one.

`python -m homeostat.lab.balancer --port 8080 web-n1=127.0.0.1:8801 ...`. A refused connection goes to the
next back end at once; a check every 200 ms takes dead ones out and brings them back. It does not repeat
requests: what a back end had accepted when it died is lost, as with any TCP balancer.

Several with the same `--lock` share the one address: who has the lock listens, the others check the back
ends and wait, and one of them listens as soon as the kernel gives the dead holder's lock away. A holder that
is frozen keeps the address.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import fcntl
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CHECK_S = 0.2
_CONNECT_S = 0.5
_CONNECTIONS_MAX = 512
_CHUNK = 64 * 1024
_BIND_S, _BIND_RETRY_S = 5.0, 0.002
"""The kernel may give a dead holder's lock away before it has closed its socket."""


def _say(line: str) -> None:
    """Print it, unless the disk that the output goes to is full: that is no reason not to serve."""
    with suppress(OSError):
        print(line, flush=True)


@dataclass(frozen=True, slots=True)
class Backend:
    """One service behind the balancer."""

    name: str
    host: str
    port: int


class Rotation:
    """Whose turn it is. Back ends that are down come last: the check may be behind the truth."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)
        self._down: set[Backend] = set()
        self._turn = 0

    def candidates(self) -> list[Backend]:
        """In the order in which to try them for one connection."""
        at = self._turn % len(self._backends)
        self._turn += 1
        turned = self._backends[at:] + self._backends[:at]
        return sorted(turned, key=lambda each: each in self._down)

    def mark(self, backend: Backend, *, up: bool) -> bool:
        """Note what was seen; whether that is news."""
        if (backend not in self._down) == up:
            return False
        (self._down.discard if up else self._down.add)(backend)
        return True


class Balancer:
    """Accepts, picks, copies both ways."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)
        self._rotation = Rotation(backends)
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        # asyncio forgets the task once the client has gone, and an unfinished one would be collected.
        self._open.add(mine)
        try:
            if len(self._open) <= _CONNECTIONS_MAX and (behind := await self._connect()) is not None:
                await _join(reader, writer, *behind)
        except (OSError, asyncio.CancelledError):
            pass  # cancelled only at the very end, and Python 3.11 logs a cancelled connection as an error
        finally:
            self._open.discard(mine)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for backend in self._rotation.candidates():
            try:
                async with asyncio.timeout(_CONNECT_S):
                    behind = await asyncio.open_connection(backend.host, backend.port)
            except OSError as error:
                self._note(backend, up=False, why=_words(error))
                continue
            self._note(backend, up=True, why="accepts connections")
            return behind
        return None

    async def check(self, backend: Backend) -> None:
        """Look at one back end every 200 ms, for ever."""
        while True:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    _, writer = await asyncio.open_connection(backend.host, backend.port)
                writer.close()
                self._note(backend, up=True, why="accepts connections")
            except OSError as error:
                self._note(backend, up=False, why=_words(error))
            await asyncio.sleep(_CHECK_S)

    def _note(self, backend: Backend, *, up: bool, why: str) -> None:
        if self._rotation.mark(backend, up=up):
            state = "up" if up else "down"
            _say(f"back end {backend.name} ({backend.host}:{backend.port}) {state}: {why}")


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    behind_reader: asyncio.StreamReader,
    behind_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways; when the back end has said all, the connection is over."""
    there = asyncio.create_task(_copy(reader, behind_writer), name="to back end")
    back = asyncio.create_task(_copy(behind_reader, writer), name="to client")
    try:
        await back
    finally:
        there.cancel()
        with suppress(asyncio.CancelledError):
            await there
        behind_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def run(port: int, lock: Path | None, ready_file: Path | None, backends: Sequence[Backend]) -> None:
    """Balance until SIGTERM or SIGINT; connections still open then are cut.

    `lock` gives the right to the port; the file says that we are there.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    balancer = Balancer(backends)
    tasks = [asyncio.create_task(balancer.check(each), name=f"check {each.name}") for each in backends]
    tasks.append(asyncio.create_task(_hold(port, lock, ready_file, balancer), name="hold"))
    end = asyncio.create_task(stopped.wait(), name="end")
    done, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _hold(port: int, lock: Path | None, ready_file: Path | None, balancer: Balancer) -> None:
    """Wait for the right to the address, then listen for ever."""
    patience_s = 0.0
    if lock is not None:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)  # kept open as long as we live
        if not _locked_at_once(handle):
            _say(f"stands by for port {port}")
            _say_ready(ready_file)
            await _locked(handle)
        _say(f"holds port {port}")
        patience_s = _BIND_S
    listening = await _listen(port, balancer, patience_s)
    _say_ready(ready_file)
    await asyncio.Event().wait()
    del listening  # asyncio closes a server that nobody knows


def _locked_at_once(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _locked(handle: int) -> None:
    """Until the kernel gives us the lock: within a millisecond of the end of who has it."""
    loop, ours = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(ours.set)

    threading.Thread(target=wait, name="standby", daemon=True).start()
    await ours.wait()


async def _listen(port: int, balancer: Balancer, patience_s: float) -> asyncio.Server:
    until_s = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await asyncio.start_server(balancer.serve, "127.0.0.1", port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() >= until_s:
                raise
        await asyncio.sleep(_BIND_RETRY_S)


def _say_ready(file: Path | None) -> None:
    if file is not None:
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(f"{os.getpid()}\n")
        fresh.replace(file)


def parse_backend(text: str) -> Backend:
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no back end; say name=host:port")
    return Backend(name, host, int(port))


def main() -> None:
    parser = argparse.ArgumentParser(prog="homeostat.lab.balancer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lock", type=Path, help="who has it serves the port; the others stand by")
    parser.add_argument("--ready-file", type=Path, help="holds our pid as soon as we serve or stand by")
    parser.add_argument("backends", nargs="+", type=parse_backend)
    given = parser.parse_args()
    try:
        asyncio.run(run(given.port, given.lock, given.ready_file, given.backends))
    except OSError as error:
        raise SystemExit(f"balancer: port {given.port}: {error.strerror}") from error


if __name__ == "__main__":
    main()
