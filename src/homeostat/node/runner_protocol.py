"""The lines between a node and its runner: recalls, records and answers reports, says what is assigned.

It knows no process: it gets two streams and talks until they end. Invariant: a report is answered only when
the store has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from homeostat.contracts.roles import Assigned, Looked, Recalled, Recorded, Report, parse_runner_line
from homeostat.contracts.wire import ResourceTransition, encode
from homeostat.kernel.errors import BadInput, RetryLater
from homeostat.node.link import NodeLink, batches
from homeostat.node.observations import ObservationStore
from homeostat.node.roles import LINE_BYTES_MAX, RoleProtocolError

ANSWER_S = 5.0
"""A role that does not read its answers for so long hangs."""
STORE_RETRY_S = 1.0
SILENT_S = 5.0
"""A role that has said nothing for so long looks at nothing: five of its words are missing. Larger: what dies
meanwhile is shown as it was. Smaller: a busy machine makes a doubt of every role."""

_log = structlog.get_logger("roles")


class RunnerProtocol:
    """The node's side of the lines, for one role, whichever process that is at the moment."""

    def __init__(
        self,
        store: ObservationStore,
        recorded: Callable[[ResourceTransition], None],
        looked: Callable[[bool, int], None] = lambda *_: None,
        silent_s: float = SILENT_S,
    ) -> None:
        """`recorded` is called with every transition once it is on disk, `looked` with whether the runner has
        looked at everything since it began, and still does: not when it is gone, or silent for `silent_s`.
        With it goes the moment at which all that was up was seen."""
        self._store, self._recorded, self._looked = store, recorded, looked
        self._silent_s, self._heard_s = silent_s, 0.0
        self._assigned = asyncio.Event()

    @classmethod
    def on_link(cls, store: ObservationStore, link: NodeLink) -> RunnerProtocol:
        """Reports are sent to the server; what the server assigns is said to the role."""
        link.looked(False, 0)  # what the store remembers is of before, until its runner has looked
        protocol = cls(store, link.recorded, link.looked)
        link.on_assigned(protocol.assigned)
        return protocol

    def assigned(self) -> None:
        """The store has another assignment: the role is to hear it."""
        self._assigned.set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Recall, then record and answer report after report, until the role closes its output."""
        self._looked(False, 0)
        for line in _recalled(self._store):
            await self._say(writer, line)
        beside = (
            asyncio.create_task(self._tell_assignments(writer), name="role.assignments"),
            asyncio.create_task(self._heed_silence(), name="role.silence"),
        )
        try:
            await self._answer_reports(reader, writer)
        finally:
            for each in beside:
                each.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._looked(False, 0)  # nobody looks before the next one has

    async def _tell_assignments(self, writer: asyncio.StreamWriter) -> None:
        """What is to run here, at once and whenever it changes."""
        while True:
            self._assigned.clear()
            told = self._store.assigned()
            if told is not None:
                await self._say(writer, told)
            await self._assigned.wait()

    async def _heed_silence(self) -> None:
        """Believe a role that is frozen no more than one that is gone, or whose reports no disk takes."""
        loop = asyncio.get_running_loop()
        self._heard_s, silent = loop.time(), False
        while True:
            await asyncio.sleep(self._silent_s / 5)
            was, silent = silent, loop.time() - self._heard_s > self._silent_s
            if silent:
                self._looked(False, 0)
            if silent and not was:
                _log.error(
                    "nothing is heard of the role; what it last saw may be over", wait_s=self._silent_s
                )

    async def _answer_reports(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self._heard_s = asyncio.get_running_loop().time()
            try:
                line = await reader.readline()
            except ValueError:
                raise RoleProtocolError(f"a line of more than {LINE_BYTES_MAX} bytes") from None
            if not line:
                return
            if not line.endswith(b"\n"):
                raise RoleProtocolError("its last line has no end and is dropped")
            try:
                report = parse_runner_line(line)
            except BadInput as error:
                raise RoleProtocolError(str(error)) from None
            if isinstance(report, Looked):
                self._looked(report.looked, report.seen_mono_ns)
                continue
            transition = await self._record(report)
            self._recorded(transition)
            await self._say(writer, Recorded(report.number))

    async def _record(self, report: Report) -> ResourceTransition:
        """Put it into the store, however long that takes: without that the role must not act."""
        told = False
        while True:
            try:
                return await asyncio.to_thread(self._store.record, report)
            except RetryLater as error:
                if not told:
                    told = True
                    _log.error("a report cannot be recorded; the child process waits", reason=str(error))
                await asyncio.sleep(STORE_RETRY_S)

    async def _say(self, writer: asyncio.StreamWriter, message: Recalled | Recorded | Assigned) -> None:
        writer.write(encode(message) + b"\n")
        try:
            async with asyncio.timeout(ANSWER_S):
                await writer.drain()
        except TimeoutError:
            raise RoleProtocolError(f"it has not read its answers for {ANSWER_S:g} s") from None


def _recalled(store: ObservationStore) -> Iterator[Recalled]:
    """All that the store remembers, in lines that a role reads."""
    for levels in batches(store.levels()):
        yield Recalled(levels, {}, more=True)
    for intents in batches(store.open_intents().items()):
        yield Recalled((), dict(intents), more=True)
    yield Recalled((), {}, hears_looked=True)
