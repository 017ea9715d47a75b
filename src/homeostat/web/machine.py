"""A host as the overview shows it: its words, and what runs there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.fleet.api import ShownAgent
from homeostat.fleet.hosts_api import HostState, HostView
from homeostat.resources.api import ResourceView


@dataclass(frozen=True, slots=True)
class Machine:
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
        words += [word for word, said in (("fenced", view.fenced), ("held", view.held)) if said]
        # Of a host that is down nobody expects an agent.
        if view.agent is not ShownAgent.PRESENT and view.state is not HostState.DOWN:
            words.append(f"agent {view.agent.value}")
        return words
