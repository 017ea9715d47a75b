"""Reports what this machine has (processors, memory, disk, architecture) to the server.

Level-triggered: a report is sent at the start, when something has changed, when the server asks for
everything and every `REPEAT_S`, and again until the server says that it is committed. Heartbeats carry
nothing of it. A server of an earlier version does not hear it and says nothing; it is sent once a minute
then.

The figures are those of the machine, whatever limits a container or a lab puts on this process.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import HostFacts, HostId
from homeostat.fleet.rpc import Heeds
from homeostat.kernel.bus import Messages
from homeostat.kernel.errors import BadInput, BusUnavailable, StoreFull, StoreUnavailable
from homeostat.kernel.loops import Backoff, Task

LOOK_S = 60.0
"""Between two looks at the machine: a disk that grew is known within so long."""
REPEAT_S = 600.0
"""So long after the last acknowledgement it is said again: a server whose database is an older one, or that
forgot this host, does not ask for it."""
RESEND_FIRST_S, RESEND_MAX_S = 0.5, LOOK_S

_log = structlog.get_logger("facts")


def read_host_facts(folder: Path) -> HostFacts:
    """What the machine has; `folder` is on the file system that counts as its disk. OSError."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostFacts(
        cpus=os.cpu_count() or 1,
        memory_mb=memory // 2**20,
        disk_gb=shutil.disk_usage(folder).total // 2**30,
        architecture=platform.machine() or "unknown",
    )


class HostFactsReporter:
    """Used from one event loop. `read` looks at the machine (OSError), `heeded` as `fleet.rpc.Heeds`."""

    def __init__(
        self,
        host: HostId,
        incarnation: str,
        bus: Messages,
        heeded: Heeds,
        read: Callable[[], Awaitable[HostFacts]],
    ) -> None:
        self._host, self._incarnation = host, incarnation
        self._bus, self._heeded, self._read = bus, heeded, read
        self._subjects = wire.Subjects(host)
        self._said: HostFacts | None = None
        self._number = 0
        self._acknowledged_s: float | None = None
        self._due = asyncio.Event()
        self._backoff = Backoff(RESEND_FIRST_S, RESEND_MAX_S)
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(16)  # when full, what comes on top is said again
        bus.on_reconnect(self.say_again)

    def tasks(self) -> tuple[Task, ...]:
        return (
            Task("facts.report", self.run, forever=True),
            Task("facts.hear", self.hear, forever=True),
        )

    async def listen(self) -> None:
        """Subscribe to acknowledgements. To be called once."""
        try:
            await self._bus.subscribe(self._subjects.facts_acknowledged, self._on_message)
        except BusUnavailable as error:
            _log.warning("not subscribed to NATS; tried again after the next reconnect", reason=str(error))

    def say_again(self) -> None:
        """The server may not know it any more."""
        self._acknowledged_s = None
        self._backoff.reset()
        self._due.set()

    async def run(self) -> None:
        """Look, and say what is new or not acknowledged, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._due.clear()
            facts = self._said
            try:
                facts = await self._read()
            except OSError as error:
                _log.warning("the machine cannot be looked at; tried again later", reason=str(error))
            if facts is not None:
                if facts != self._said:
                    self._said, self._acknowledged_s = facts, None
                    self._number += 1
                    self._backoff.reset()
                since_s = self._acknowledged_s
                if since_s is None or loop.time() - since_s >= REPEAT_S:
                    self._acknowledged_s = None
                    await self._send(facts)
            await self._wait(LOOK_S if self._acknowledged_s is not None else self._backoff.next_s())

    async def hear(self) -> None:
        """Take what the server acknowledges."""
        while True:
            body = await self._heard.get()
            try:
                taken = wire.decode(wire.HostFactsAcknowledged, body)
                is_ours = taken.incarnation == self._incarnation and await self._heeded(taken.epoch)
            except (BadInput, StoreFull, StoreUnavailable) as error:
                _log.warning("a message of the server was dropped", reason=str(error))
                continue
            if is_ours and taken.number == self._number:
                self._acknowledged_s = asyncio.get_running_loop().time()
                self._backoff.reset()
                self._due.set()
            elif is_ours:
                self.say_again()  # an older report came late, and took the place of the newest

    async def _send(self, facts: HostFacts) -> None:
        message = wire.HostFactsReport(
            self._host,
            self._incarnation,
            self._number,
            facts.cpus,
            facts.memory_mb,
            facts.disk_gb,
            facts.architecture,
        )
        await self._bus.publish(self._subjects.facts, wire.encode(message))

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._due.wait()
        except TimeoutError:
            pass

    def _on_message(self, _subject: str, body: bytes) -> None:
        if not self._heard.full():
            self._heard.put_nowait(body)
