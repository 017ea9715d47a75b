"""Resources in a server: the panel of the front page with all hosts and what runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.contracts.component import OverviewPanel, PanelPlace, ServedComponent, ServerParts
from homeostat.contracts.nouns import ResourceState
from homeostat.fleet.api import HostsApi, HostState, HostView, ShownAgent, list_hosts
from homeostat.fleet.placements import StrandedGuests
from homeostat.kernel.access import Caller
from homeostat.resources.api import ResourceView, ShownState, list_resources


async def assemble(parts: ServerParts) -> ServedComponent:
    """Nothing runs here: what nodes say goes through the write path."""
    return ServedComponent(panels=(HostsPanel(parts),))


@dataclass(frozen=True, slots=True)
class HostSummary:
    """`view` is None for whoever may not read hosts: of those only the name is shown."""

    name: str
    view: HostView | None
    rows: Sequence[ResourceView]

    @property
    def words(self) -> list[str]:
        """What there is to say of it, the most important first."""
        view = self.view
        if view is None:
            return []
        back = view.state is HostState.UP and (view.marked_at or view.error_at)
        words = ["back" if back else view.state.value]
        said = (("fenced", view.fenced), ("held", view.held), ("store full", view.store))
        words += [word for word, reason in said if reason]
        # Of a host that is down nobody expects an agent.
        if view.agent is not ShownAgent.PRESENT and view.state is not HostState.DOWN:
            words.append(f"agent {view.agent.value}")
        return words


@dataclass(frozen=True, slots=True)
class HostsPanel:
    """Makes the panel. The hosts' API is asked for at that moment: it is made after the components."""

    parts: ServerParts

    async def __call__(self, caller: Caller) -> OverviewPanel:
        """Hosts that the caller may read, and those that something of the caller's runs on."""
        hosts = self.parts.find(HostsApi)
        stranded = self.parts.find_or(StrandedGuests, dict)
        rows = (await list_resources(caller, hosts.topology(), hosts.health(), stranded)).items
        nodes = {node.host: node for node in (await list_hosts(caller, hosts)).items}
        names = sorted({row.host for row in rows} | nodes.keys())
        up = sum(row.state.value == ResourceState.UP.value for row in rows)
        unknown = sum(row.state is ShownState.UNKNOWN for row in rows)
        running = {name: [row for row in rows if row.host == name] for name in names}
        return OverviewPanel(
            "panel_hosts.html",
            PanelPlace.BESIDE,
            {"hosts": [HostSummary(name, nodes.get(name), running[name]) for name in names]},
            headline=f"{up} of {len(rows)} services and guests are up"
            + (f", {unknown} unknown" if unknown else ""),
            is_unsure=bool(unknown),
        )
