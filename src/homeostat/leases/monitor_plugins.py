"""Finds the monitoring plug-ins of other packages by their entry points, and makes them.

A name in the settings that no installed package has is refused. A plug-in that cannot be loaded or made does
not stop the server: it is a monitor that says nothing, with the reason as its state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from importlib.metadata import EntryPoint, entry_points

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import BadInput
from homeostat.leases.monitor_loop import HostMonitor
from homeostat.leases.monitoring import ENTRY_POINTS, HostReport, MonitorOptions, PollingMonitor, PushMonitor
from homeostat.leases.settings import LeasesSettings, MonitorSettings

_CONTRACT = {
    "PushMonitor": ("topics", "event_types", "healing_interval_s", "on_notification"),
    "PollingMonitor": ("polling_interval_s", "lists_all", "healing_interval_s", "poll"),
}


def load_monitors(settings: LeasesSettings) -> Iterator[HostMonitor]:
    """The plug-ins that the settings name. BadInput: no installed package has one of that name."""
    installed = {each.name: each for each in entry_points(group=ENTRY_POINTS)}
    for name, section in settings.monitors.items():
        if name not in installed:
            known = ", ".join(sorted(installed)) or "no package that is installed has one"
            raise BadInput("leases.monitors", name, f"a monitoring plug-in; known here: {known}")
        yield _made(name, installed[name], section.monitor_options(name, section.options), section)


def _made(name: str, entry: EntryPoint, options: MonitorOptions, section: MonitorSettings) -> HostMonitor:
    try:
        make: Callable[[MonitorOptions], object] = entry.load()
        plugin = make(options)
        if not isinstance(plugin, PushMonitor | PollingMonitor):
            raise TypeError(f"{entry.value} made a {type(plugin).__name__}, which {_lacking(plugin)}")
        return HostMonitor(name, plugin, section)
    except Exception as error:
        reason = f"it cannot be made: {type(error).__name__}: {error}"
        return HostMonitor(name, BrokenMonitor(reason), section)


def _lacking(plugin: object) -> str:
    missing = {
        kind: [each for each in names if not hasattr(plugin, each)] for kind, names in _CONTRACT.items()
    }
    return " and ".join(f"lacks {', '.join(names)} of a {kind}" for kind, names in missing.items())


class BrokenMonitor:
    """Stands for a plug-in that could not be made: whatever is asked, it says why."""

    polling_interval_s = 3600.0
    lists_all = False
    healing_interval_s = None

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def poll(self, _hosts: Collection[HostId]) -> list[HostReport]:
        raise RuntimeError(self._reason)
