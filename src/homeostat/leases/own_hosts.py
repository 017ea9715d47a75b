"""The monitoring plug-in of our own hosts. Push: host events of the journal. Polling: the server's own hosts.

A host counts as failed by the same evidence by which its fault is raised: two witnesses, or one that is alone
and patient. So one look is enough, and a silent node process is no failure. A host of which nothing is heard,
or of which nothing can be said because most of the evidence is gone, is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from homeostat.contracts.events.fleet import HostBack, HostDown, HostJoined, HostRemoved
from homeostat.contracts.nouns import HostId
from homeostat.fleet.model import Topology
from homeostat.leases.monitoring import (
    JOURNAL_TOPIC,
    HostOutcome,
    HostReport,
    MonitorOptions,
    Notification,
)

NAME = "own-hosts"


@dataclass(frozen=True, slots=True)
class FleetView:
    """The hosts of this server now. `doubt`: why nothing can be said of any host, empty as a rule."""

    topology: Topology
    doubt: str = ""


class OwnHostsMonitor:
    """Made by the server itself: it needs no entry point."""

    topics = (JOURNAL_TOPIC,)
    event_types = tuple(each.__name__ for each in (HostDown, HostBack, HostJoined, HostRemoved))
    lists_all = True

    def __init__(self, options: MonitorOptions, fleet: Callable[[], FleetView]) -> None:
        self._fleet = fleet
        self.polling_interval_s = options.polling_interval_s or 60.0
        self.healing_interval_s = options.healing_interval_s

    def on_notification(self, notification: Notification) -> Iterator[HostReport]:
        """Its death, its return, and that a person had it removed."""
        told = notification.payload
        host = HostId(told["host"])
        match notification.event_type:
            case HostDown.__name__:
                yield HostReport(host, HostOutcome.FAILED, told["reason"], told["seen_ns"])
            case HostBack.__name__:
                yield HostReport(host, HostOutcome.RECOVERED, told["reason"], told["seen_ns"])
            case HostJoined.__name__:
                yield HostReport(host, HostOutcome.RECOVERED, "it reports")
            case HostRemoved.__name__:
                yield HostReport(host, HostOutcome.FAILED, f"{told['by']} removed the host")

    async def poll(self, hosts: Collection[HostId]) -> Iterator[HostReport]:
        """All of these that this server has ever heard of and that were not removed."""
        view = self._fleet()
        return (_report(view, host) for host in hosts if host in view.topology.nodes)


def _report(view: FleetView, host: HostId) -> HostReport:
    down_ns = view.topology.nodes[host].down_ns
    if down_ns is not None:
        return HostReport(host, HostOutcome.FAILED, "it is down", down_ns)
    if view.doubt:
        return HostReport(host, HostOutcome.UNKNOWN, view.doubt)
    if host in view.topology.unheard:
        return HostReport(host, HostOutcome.UNKNOWN, "nothing is heard of it, and it is not known to be down")
    return HostReport(host, HostOutcome.RECOVERED, "it reports")
