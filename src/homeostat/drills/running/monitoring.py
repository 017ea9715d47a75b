"""The monitors of one run as commands: tokens are got, processes are looked up, nothing is started here."""

from __future__ import annotations

import shutil
import time

from homeostat.drills.clouds.token import Issued, issued_by
from homeostat.drills.model import Drill
from homeostat.drills.planning.preparation import cloud_of
from homeostat.drills.planning.sampling import Places, clients, samplers, watch_of
from homeostat.drills.records.facts import MonitorPlan
from homeostat.drills.running.ordered import Parts
from homeostat.drills.site import Site
from homeostat.kernel.errors import BadInput
from homeostat.monitors.supervision import MonitorCommand, command_sampler, sampler

ORDERS = "orders"
"""Below the folder of runs: what hosts and monitors are given, while it is needed."""


def client_there(site: Site) -> bool:
    """Whether the command-line client of the site's cloud is on this machine."""
    return site.cloud is not None and shutil.which(site.cloud.client) is not None


async def monitor_commands(
    parts: Parts, drill: Drill, places: Places, plans: dict[str, MonitorPlan]
) -> list[MonitorCommand]:
    """Every monitor; a watch of processes looks for what is there now. BadInput, GiveUp."""
    scratch = parts.runs / ORDERS
    issued = await _issued(parts, drill)
    commands = [sampler(each, scratch) for each in samplers(places, drill, plans, issued)]
    for config in clients(places, drill, plans):
        if not client_there(parts.site):
            remedy = "OpenStack's command-line client (python-openstackclient) by this name or path"
            raise BadInput("cloud.client", config.argv[0], f"{remedy}, for the monitor {config.name}")
        commands.append(command_sampler(config, scratch))
    for monitor in drill.monitors:
        if monitor.kind == "process":
            presence = parts.site.services[str(monitor.target.service)].hosts[places.victim]
            name = f"look-{places.folder.name}-{monitor.id}"
            matched = await parts.looking.matched(places.victim, presence.profile, name)
            config_ = watch_of(monitor, plans[monitor.id], str(places.folder), matched)
            commands.append(parts.transports[places.victim].watch(config_, scratch))
    return commands


async def _issued(parts: Parts, drill: Drill) -> Issued | None:
    """One token for the whole run, when a monitor asks with it."""
    asking = next((each.id for each in drill.monitors if each.token), None)
    if asking is None:
        return None
    cloud = cloud_of(parts.site, asking)
    parts.progress.say(f"getting a token of cloud {cloud.name}")
    issued = await issued_by(cloud)
    issued.outlasts(cloud, parts.site.drills.ready_within_s + drill.window.longest_ms / 1000, time.time())
    return issued
