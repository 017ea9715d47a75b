"""The driver of the local cloud: our own nodes, whose state towards tenants is one row of ours for each
host.

That a guest is in error is derived: it is, while it is on a host whose row says so. Ten thousand guests
cost one row, and a guest that was started elsewhere is in error no more, since its row names another host.
The acts of this driver are the writes of that row: without them nothing is shown. What is not here: whether
an act is due, and its intent and outcome in the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from homeostat.contracts.nouns import HostId, Mark, ResourceState
from homeostat.fleet.model import Topology
from homeostat.kernel.errors import RetryLater
from homeostat.ports import ActFailed, ActUnknown, CloudView, MarkResult, MarkSucceeded

Write = Callable[[HostId, Mark], Awaitable[object]]
"""Commits the row of a host."""


class LocalCloud:
    """`topology` is what is committed, `write` commits."""

    name = "local"

    def __init__(self, topology: Callable[[], Topology], write: Write) -> None:
        self._topology, self._write = topology, write

    async def mark_down(self, host: str) -> MarkResult:
        return await self._mark(host, Mark.MARK_DOWN, 0)

    async def set_error(self, host: str) -> MarkResult:
        """See `Cloud`. Services too: they are what runs there."""
        return await self._mark(host, Mark.SET_ERROR, len(self._running(host)))

    async def mark_up(self, host: str) -> MarkResult:
        return await self._mark(host, Mark.MARK_UP, 0)

    async def clear_error(self, host: str, seen: Collection[str]) -> MarkResult:
        """See `Cloud`. The host's row changes; of each guest its own row says what its node sees."""
        return await self._mark(host, Mark.CLEAR_ERROR, len(self._running(host) & set(seen)))

    async def look(self, host: str) -> CloudView | ActUnknown:
        topology, name = self._topology(), HostId(host)
        node = topology.nodes.get(name)
        if node is None:
            return CloudView(down=False, in_error=frozenset())
        in_error = self._running(host) if topology.in_error(name) else frozenset()
        return CloudView(down=node.marked_ns is not None, in_error=in_error)

    def _running(self, host: str) -> frozenset[str]:
        rows = self._topology().on_host(HostId(host))
        return frozenset(row.id for row in rows if row.state is not ResourceState.STOPPED)

    async def _mark(self, host: str, mark: Mark, count: int) -> MarkResult:
        name = HostId(host)
        if name not in self._topology().nodes:
            return ActFailed(f"there is no host {host!r}")
        try:
            await self._write(name, mark)
        except RetryLater as error:
            return ActUnknown(f"the row of the host: {error}")
        return MarkSucceeded(count, _SAID[mark].format(host=host, count=count))


_SAID = {
    Mark.MARK_DOWN: "{host} is shown as down",
    Mark.SET_ERROR: "{count} on {host} are shown in error",
    Mark.MARK_UP: "{host} is shown as it is",
    Mark.CLEAR_ERROR: "{count} on {host} are shown as they are seen",
}
