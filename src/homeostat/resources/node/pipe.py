"""The runner's pipe to its node process: reports out on stdout, `Recorded` in on stdin.

`tell` returns when the node has the report on disk; nothing may be done about it earlier. The pipe ends when
the node closes it or dies, and then so must the runner.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import (
    LOOKED_EVERY_S,
    Assigned,
    Looked,
    Recalled,
    Recorded,
    Report,
    parse_node_line,
)
from homeostat.contracts.wire import MESSAGE_BYTES_MAX, Finish, Intent, ResourceStatus, decode, encode
from homeostat.kernel.errors import BadInput
from homeostat.resources.settings import ResourceSettings


@dataclass(frozen=True, slots=True)
class ReportSubject:
    """The resource a report is about."""

    resource: ResourceId
    kind: ResourceKind
    owner: Owner
    agent: str
    generation: int = 0

    @classmethod
    def of(cls, source: ResourceSettings | ResourceStatus, generation: int = 0) -> ReportSubject:
        """`generation` is that of a guest's assignment; a level has its own."""
        if isinstance(source, ResourceSettings):
            return cls(ResourceId(source.id), source.kind, Owner(source.owner), source.agent, generation)
        return cls(source.resource, source.kind, source.owner, source.agent, source.generation)


@dataclass(frozen=True, slots=True)
class StateChange:
    """What changed, when it was seen (wall clock and CLOCK_BOOTTIME), and the acts it begins or ends.

    `before_mono_ns` is when it was last seen to be otherwise, 0 when nobody knows.
    """

    state: ResourceState
    reason: str
    at_ns: int
    mono_ns: int
    intended: Intent | None = None
    finished: Finish | None = None
    pid: int | None = None
    before_mono_ns: int = 0


class NodePipe:
    """Reports in order, each waiting for its `Recorded`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbered = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.assigned = Assigned({}, confirmed=False)
        self._reassigned = asyncio.Event()
        self._unseen: set[ResourceId] | None = None
        self._hears_looked = False
        self.seen_ns: Callable[[], int] = lambda: 0
        """What is said with `Looked`, when something else is known."""

    @classmethod
    async def on_stdio(cls) -> NodePipe:
        """The line on this process's stdin and stdout; afterwards `print` goes to stderr."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MESSAGE_BYTES_MAX + 2)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        sys.stdout = sys.stderr
        return cls(reader, writer)

    async def recalled(self) -> Recalled | None:
        """The first lines, as one; None when the node closed the line instead."""
        levels: list[ResourceStatus] = []
        open_intents: dict[ResourceId, Intent] = {}
        while line := await self._line():
            said = decode(Recalled, line)
            levels += said.levels
            open_intents |= said.open_intents
            if not said.more:
                self._hears_looked = said.hears_looked
                return Recalled(tuple(levels), open_intents)
        return None

    async def tell(self, about: ReportSubject, news: StateChange) -> None:
        """Report and return once it is on the node's disk."""
        self._numbered += 1
        number = self._numbered
        recorded = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode(self._understood(report_of(number, about, news))) + b"\n")
            await self._writer.drain()
            await recorded
        finally:
            del self._waiting[number]

    def _understood(self, report: Report) -> Report | dict[str, object]:
        """The report, for a node of an earlier version (upgraded beneath it) without what that refuses."""
        if self._hears_looked:
            return report
        names = (each.name for each in fields(Report) if each.name != "before_mono_ns")
        return {name: getattr(report, name) for name in names}

    def expect(self, resources: Iterable[ResourceId]) -> None:
        """These have to be looked at before the states of all are those of now."""
        self._unseen = set(resources)
        if not self._unseen:
            self._say_looked()

    def looked(self, resource: ResourceId) -> None:
        """This one was looked at, and what was found is on the node's disk."""
        if self._unseen and resource in self._unseen:
            self._unseen.discard(resource)
            if not self._unseen:
                self._say_looked()

    async def pulse(self) -> None:
        """Say at intervals whether all are looked at: our silence tells the node that we are frozen."""
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            self._say_looked()

    def _say_looked(self) -> None:
        if self._hears_looked:
            looked = self._unseen is not None and not self._unseen
            said = Looked(self._numbered, looked, self.seen_ns() if looked else 0)
            self._writer.write(encode(said) + b"\n")

    async def listen(self) -> None:
        """Take in answers until the node closes the line."""
        while line := await self._line():
            match parse_node_line(line):
                case Recorded(number):
                    waiting = self._waiting.get(number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
                case Assigned() as told:
                    self.assigned = told
                    self._reassigned.set()
                    self._reassigned = asyncio.Event()

    @property
    def reassigned(self) -> asyncio.Event:
        """Set when `assigned` is another one than now."""
        return self._reassigned

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise BadInput("line", "too long", f"at most {MESSAGE_BYTES_MAX} bytes are read") from error
        return line if line.endswith(b"\n") else b""  # a torn line is the end, not a message


def report_of(number: int, about: ReportSubject, news: StateChange) -> Report:
    """What is sent to the node."""
    return Report(
        number=number,
        resource=about.resource,
        kind=about.kind,
        owner=about.owner,
        agent=about.agent,
        state=news.state,
        reason=news.reason,
        at_ns=news.at_ns,
        mono_ns=news.mono_ns,
        intended=news.intended,
        finished=news.finished,
        pid=news.pid,
        generation=about.generation,
        before_mono_ns=news.before_mono_ns,
    )
