"""The runner's end of the line to its node process: reports out on stdout, `Recorded` in on stdin.

`tell` returns when the node has the report on disk; nothing may be done about it earlier. The line ends when
the node closes it or dies, and then so must the runner.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Assigned, Recalled, Recorded, Report, from_node
from homeostat.contracts.wire import MESSAGE_BYTES_MAX, Finish, Intent, ResourceLevel, decode, encode
from homeostat.kernel.errors import BadInput
from homeostat.resources.settings import ResourceSettings


@dataclass(frozen=True, slots=True)
class About:
    """The resource a report is about."""

    resource: ResourceId
    kind: ResourceKind
    owner: Owner
    agent: str
    generation: int = 0

    @classmethod
    def of(cls, source: ResourceSettings | ResourceLevel, generation: int = 0) -> About:
        """`generation` is that of a guest's assignment; a level has its own."""
        if isinstance(source, ResourceSettings):
            return cls(ResourceId(source.id), source.kind, Owner(source.owner), source.agent, generation)
        return cls(source.resource, source.kind, source.owner, source.agent, source.generation)


@dataclass(frozen=True, slots=True)
class News:
    """What changed, when it was seen (wall clock and CLOCK_BOOTTIME), and the acts it begins or ends."""

    state: ResourceState
    reason: str
    at_ns: int
    mono_ns: int
    intended: Intent | None = None
    finished: Finish | None = None
    pid: int | None = None


class NodeLine:
    """Reports in order, each waiting for its `Recorded`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbered = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.assigned = Assigned({}, confirmed=False)
        self._reassigned = asyncio.Event()

    @classmethod
    async def on_stdio(cls) -> NodeLine:
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
        levels: list[ResourceLevel] = []
        open_intents: dict[ResourceId, Intent] = {}
        while line := await self._line():
            said = decode(Recalled, line)
            levels += said.levels
            open_intents |= said.open_intents
            if not said.more:
                return Recalled(tuple(levels), open_intents)
        return None

    async def tell(self, about: About, news: News) -> None:
        """Report and return once it is on the node's disk."""
        self._numbered += 1
        number = self._numbered
        recorded = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode(_report(number, about, news)) + b"\n")
            await self._writer.drain()
            await recorded
        finally:
            del self._waiting[number]

    async def listen(self) -> None:
        """Take in answers until the node closes the line."""
        while line := await self._line():
            match from_node(line):
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


def _report(number: int, about: About, news: News) -> Report:
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
    )
