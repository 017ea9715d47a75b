"""Role processes: started, listened to, started again when they die, stopped in order.

A role is a child that must not outlive the node process (PDEATHSIG); what it manages is not our child and is
left alone. Invariants: a report is answered only when it is on disk; a role that does not speak the protocol
is ended and started again; nothing is signalled but exactly the process that we started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from homeostat.contracts.roles import Assigned, Recalled, Recorded, Report
from homeostat.contracts.wire import Transition, decode, encode
from homeostat.fleet.node_batches import batches
from homeostat.fleet.node_observations import ObservationStore
from homeostat.kernel.errors import BadInput, RetryLater
from homeostat.kernel.loops import HEALTHY_AFTER_S, Backoff
from homeostat.kernel.processes import Identity, die_with_parent, identify, send_signal

LINE_BYTES_MAX = 64 * 1024
"""A longer line is not a report. About a hundred times a usual one."""
ANSWER_S = 5.0
"""A role that does not read its answers for so long hangs."""
LAST_WORDS_S = 0.5
STORE_RETRY_S = 1.0

_log = structlog.get_logger("roles")


@dataclass(frozen=True, slots=True)
class RoleCommand:
    """What to start. `stop_s` is the time between SIGTERM and SIGKILL."""

    name: str
    argv: tuple[str, ...]
    stop_s: float = 30.0


class BadLine(Exception):
    """A role wrote something that is not a report, or does not read its answers."""


class Role:
    """One role process of this node, whichever process that is at the moment."""

    def __init__(
        self, command: RoleCommand, store: ObservationStore, recorded: Callable[[Transition], None]
    ) -> None:
        """`recorded` is called with every transition once it is on disk."""
        self.name = command.name
        self._command, self._store, self._recorded = command, store, recorded
        self._log = _log.bind(role=command.name)
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._identity: Identity | None = None
        self._assigned = asyncio.Event()

    @property
    def identity(self) -> Identity | None:
        """The process that runs now, None between two."""
        return self._identity

    def assigned(self) -> None:
        """The store has another assignment: tell the role."""
        self._assigned.set()

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
        """SIGTERM, record what the role still reports, SIGKILL after `stop_s`; return when it is gone."""
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
            process = _start(self._command.argv)
        except OSError as error:
            self._log.error("the role cannot be started", argv=self._command.argv, reason=str(error))
            return
        exited = asyncio.create_task(_exited(process.pid), name=f"role.{self.name}.exited")
        self._identity = identify(process.pid)
        self._log.info("the role runs", pid=process.pid)
        try:
            await self._attend(process, exited)
        finally:
            await self._reap(process, exited)

    async def _attend(self, process: subprocess.Popen[bytes], exited: asyncio.Task[None]) -> None:
        """Talk until the role closes its output or dies."""
        reader, writer, output = await _lines(process)
        talking = asyncio.create_task(self._talk(reader, writer), name=f"role.{self.name}.talk")
        try:
            await asyncio.wait({talking, exited}, return_when=asyncio.FIRST_COMPLETED)
            # Dead: what it wrote before is still to be read. Silent: it may be about to end by itself.
            await asyncio.wait({talking, exited}, timeout=LAST_WORDS_S)
        finally:
            talking.cancel()
            (outcome,) = await asyncio.gather(talking, return_exceptions=True)
            writer.close()
            output.close()  # an inheritor of the role's output may keep the other end open
        match outcome:
            case BadLine():
                self._log.error("the role does not keep to the protocol", reason=str(outcome))
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
        say("the role ended", pid=process.pid, exit_code=code)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Recall, then record and answer report after report, until the role closes its output."""
        for line in _recalled(self._store):
            await self._say(writer, line)
        telling = asyncio.create_task(self._tell_assignments(writer), name=f"role.{self.name}.assignments")
        try:
            await self._answer_reports(reader, writer)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell_assignments(self, writer: asyncio.StreamWriter) -> None:
        """What is to run here, at once and whenever it changes."""
        while True:
            self._assigned.clear()
            told = self._store.assigned()
            if told is not None:
                await self._say(writer, told)
            await self._assigned.wait()

    async def _answer_reports(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                raise BadLine(f"a line of more than {LINE_BYTES_MAX} bytes") from None
            if not line:
                return
            if not line.endswith(b"\n"):
                raise BadLine("its last line has no end and is dropped")
            try:
                report = decode(Report, line)
            except BadInput as error:
                raise BadLine(str(error)) from None
            transition = await self._record(report)
            self._recorded(transition)
            await self._say(writer, Recorded(report.number))

    async def _record(self, report: Report) -> Transition:
        """Put it on disk, however long the disk takes: without that the role must not act."""
        told = False
        while True:
            try:
                return await asyncio.to_thread(self._store.record, report)
            except RetryLater as error:
                if not told:
                    told = True
                    self._log.error("a report cannot be recorded; the role waits", reason=str(error))
                await asyncio.sleep(STORE_RETRY_S)

    async def _say(self, writer: asyncio.StreamWriter, message: Recalled | Recorded | Assigned) -> None:
        writer.write(encode(message) + b"\n")
        try:
            async with asyncio.timeout(ANSWER_S):
                await writer.drain()
        except TimeoutError:
            raise BadLine(f"it has not read its answers for {ANSWER_S:g} s") from None


def _recalled(store: ObservationStore) -> Iterator[Recalled]:
    """All that the store remembers, in lines that a role reads."""
    for levels in batches(store.levels()):
        yield Recalled(levels, {}, more=True)
    for intents in batches(store.open_intents().items()):
        yield Recalled((), dict(intents), more=True)
    yield Recalled((), {})


def _start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Fork in this thread and execute. OSError when there is no such program."""
    # asyncio's own subprocesses are not used: for it a process has not ended before everyone who inherited
    # its pipes has, and a service may be one of those.
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
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
