"""Role processes of a node: started, started again when they die, stopped in order.

A role is a child that must not outlive the node process (PDEATHSIG); what it manages is not our child and
is left alone. What a role and the node say to each other is a protocol's, if it has one; it is not known
here. Invariants: a role that does not keep to its protocol is ended and started again; nothing is signalled
but exactly the process that we started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Protocol

import structlog

from homeostat.kernel.loops import HEALTHY_AFTER_S, Backoff
from homeostat.kernel.processes import Identity, die_with_parent, identify, send_signal

LINE_BYTES_MAX = 64 * 1024
"""Of what a role writes. About a hundred times a usual line."""
FINAL_WORDS_S = 0.5
_STDERR = 2

_log = structlog.get_logger("roles")


@dataclass(frozen=True, slots=True)
class RoleCommand:
    """What to start. `stop_s` is the time between SIGTERM and SIGKILL."""

    name: str
    argv: tuple[str, ...]
    stop_s: float = 30.0


class RoleProtocolError(Exception):
    """A role wrote something that is not of its protocol, or does not read its answers."""


class RoleProtocol(Protocol):
    """What the node says to a role on its stdin and reads from its stdout."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to a process that has just started, until it closes its output; cancelled when it is gone.

        RoleProtocolError, ConnectionError. A line of more than LINE_BYTES_MAX is the reader's ValueError.
        """


class RoleProcess:
    """One role of this node, whichever process that is at the moment."""

    def __init__(self, command: RoleCommand, protocol: RoleProtocol | None = None) -> None:
        """Without a protocol the role gets no input, and what it writes goes where the node's log goes."""
        self.name = command.name
        self._command, self._protocol = command, protocol
        self._log = _log.bind(role=command.name)
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._identity: Identity | None = None

    @property
    def identity(self) -> Identity | None:
        """The process that runs now, None between two."""
        return self._identity

    async def run(self) -> None:
        """Keep the role running until `stop`; cancelled, it kills the role. To be awaited in the main
        thread: PDEATHSIG fires when the *thread* that forked ends."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                started_s = loop.time()
                await self._live()
                if self._stopping.is_set():
                    return
                if loop.time() - started_s >= HEALTHY_AFTER_S:
                    backoff.reset()
                wait_s = backoff.next_s()
                self._log.warning("the role is started again", wait_s=wait_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stopping.wait()
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """SIGTERM, hear what the role still says, SIGKILL after `stop_s`; return when it is gone."""
        self._stopping.set()
        if self._identity is not None:
            send_signal(self._identity, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._command.stop_s):
                await self._ended.wait()
        except TimeoutError:
            self._log.error("the role did not stop in time and is killed", stop_s=self._command.stop_s)
            if self._identity is not None:
                send_signal(self._identity, signal.SIGKILL)
            await self._ended.wait()

    async def _live(self) -> None:
        """One process from its start to its end, however that comes about."""
        try:
            process = _start(self._command.argv, piped=self._protocol is not None)
        except OSError as error:
            self._log.error("child process cannot be started", argv=self._command.argv, reason=str(error))
            return
        exited = asyncio.create_task(_exited(process.pid), name=f"role.{self.name}.exited")
        self._identity = identify(process.pid)
        self._log.info("the role runs", pid=process.pid)
        try:
            if self._protocol is None:
                await asyncio.shield(exited)
            else:
                await self._attend(process, exited, self._protocol)
        finally:
            await self._reap(process, exited)

    async def _attend(
        self, process: subprocess.Popen[bytes], exited: asyncio.Task[None], protocol: RoleProtocol
    ) -> None:
        """Talk until the role closes its output or dies."""
        reader, writer, output = await _lines(process)
        talking = asyncio.create_task(protocol.talk(reader, writer), name=f"role.{self.name}.talk")
        try:
            await asyncio.wait({talking, exited}, return_when=asyncio.FIRST_COMPLETED)
            # Dead: what it wrote before is still to be read. Silent: it may be about to end by itself.
            await asyncio.wait({talking, exited}, timeout=FINAL_WORDS_S)
        finally:
            talking.cancel()
            (outcome,) = await asyncio.gather(talking, return_exceptions=True)
            writer.close()
            output.close()  # an inheritor of the role's output may keep the other end open
        match outcome:
            case RoleProtocolError():
                self._log.error("child process sent an invalid message", reason=str(outcome))
            case None | asyncio.CancelledError() | ConnectionError():
                pass  # how the process ended says more
            case _:
                raise outcome

    async def _reap(self, process: subprocess.Popen[bytes], exited: asyncio.Task[None]) -> None:
        if self._identity is not None and not exited.done():
            send_signal(self._identity, signal.SIGKILL)
        await asyncio.shield(exited)
        self._identity = None
        code = process.wait()
        say = self._log.info if code == 0 or self._stopping.is_set() else self._log.warning
        say("child process ended", pid=process.pid, exit_code=code)


def _start(argv: tuple[str, ...], *, piped: bool) -> subprocess.Popen[bytes]:
    """Fork in this thread and execute. OSError when there is no such program."""
    # asyncio's own subprocesses are not used: for it a process has not ended before everyone who inherited
    # its pipes has, and a service may be one of those.
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else _STDERR,
        preexec_fn=die_with_parent(),
        start_new_session=True,  # a Ctrl-C at the terminal is for the node; it stops its roles in order
    )


async def _lines(
    process: subprocess.Popen[bytes],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.ReadTransport]:
    """Our ends of the role's pipes, and what closes the one that is read."""
    # Two pipes and not one socket: a role's asyncio takes whatever can be read at its stdout for a hang-up.
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    output, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
    return reader, asyncio.StreamWriter(transport, protocol, None, loop), output


async def _exited(pid: int) -> None:
    """Return when our child `pid` has ended; it stays a zombie until it is waited for."""
    loop = asyncio.get_running_loop()
    handle = os.pidfd_open(pid)
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
