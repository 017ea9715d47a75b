"""From the monitors of a drill to what each of their processes is given. Pure: nothing is asked or started.

A token is in the configuration of a sampler and nowhere else: not in the plan, not in a fact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homeostat.drills.clouds.token import TOKEN_HEADER, Issued
from homeostat.drills.model import PROJECT, Drill, Monitor, baseline_samples
from homeostat.drills.planning.preparation import asked_at, cloud_of, url_of
from homeostat.drills.planning.trusting import SYSTEM, Trust
from homeostat.drills.records.facts import MonitorPlan
from homeostat.drills.records.history import SAMPLES
from homeostat.drills.site import Site, SiteCloud
from homeostat.kernel.errors import BadInput
from homeostat.monitors.node_command_sampler import CommandConfig
from homeostat.monitors.node_process_watch import WatchConfig
from homeostat.monitors.node_sampler import SamplerConfig

Record = dict[str, Any]
PERIOD_MIN_MS = 5.0
"""Denser than this, the prober would be the load."""
COMMAND_SHOWN = 200
"""So much of a command line is in a match list."""
_HIDDEN = re.escape("(hidden)")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run takes place: the site, the host that is hit, the folder of the run, whom it believes."""

    site: Site
    victim: str
    folder: Path
    trust: Trust = SYSTEM


def monitor_plans(drill: Drill, denser: int) -> tuple[MonitorPlan, ...]:
    """Every monitor with its file and its period: half of the drill's for each denser run."""
    return tuple(
        MonitorPlan(each.id, f"{SAMPLES}/{each.id}.jsonl", period_ms(each, denser)) for each in drill.monitors
    )


def period_ms(monitor: Monitor, denser: int) -> float:
    """The period of a monitor in the nth denser run; a closed loop is as dense as its calls are short."""
    if monitor.kind == "cli":
        return monitor.period_ms
    return max(min(PERIOD_MIN_MS, monitor.period_ms), monitor.period_ms / float(2**denser))


def can_be_denser(drill: Drill, denser: int) -> bool:
    """Whether one more halving changes anything."""
    return any(period_ms(each, denser + 1) < period_ms(each, denser) for each in drill.monitors)


def samplers(
    places: Places, drill: Drill, plans: Mapping[str, MonitorPlan], issued: Issued | None
) -> list[SamplerConfig]:
    """The configuration of every monitor that asks. Shifted against each other by a part of the period."""
    asking = [each for each in drill.monitors if each.kind in ("http", "tcp")]
    found = []
    for number, monitor in enumerate(asking):
        plan = plans[monitor.id]
        url = url_of(places.site, monitor.target, places.victim, f"monitors.{monitor.id}.target")
        path, headers = _with_token(monitor, issued)
        verified = places.trust.of(url)
        found.append(
            SamplerConfig(
                name=monitor.id,
                url=asked_at(url, monitor.kind, path),
                samples_file=f"{places.folder}/{plan.file}",
                period_ms=plan.period_ms,
                phase_ms=number * plan.period_ms / len(asking),
                deadline_ms=monitor.deadline_ms,
                baseline_samples=baseline_samples(drill, monitor),
                headers=headers,
                cacert=None if verified.cacert is None else str(verified.cacert),
                server_name=verified.server_name,
                verify=verified.verify,
            )
        )
    return found


def _with_token(monitor: Monitor, issued: Issued | None) -> tuple[str, dict[str, str]]:
    """Its path and headers. The token is nowhere else."""
    if not monitor.token:
        return monitor.path, {}
    if issued is None:
        raise BadInput(f"monitors.{monitor.id}.token", True, "a token of the site's cloud")
    return monitor.path.replace(PROJECT, issued.project_id), {TOKEN_HEADER: issued.token}


def clients(places: Places, drill: Drill, plans: Mapping[str, MonitorPlan]) -> list[CommandConfig]:
    """The configuration of every monitor that calls the cloud's own client.

    One after the other: a call costs a second of a CPU, and all at once would measure themselves.
    """
    found = []
    calling = [each for each in drill.monitors if each.kind == "cli"]
    for number, monitor in enumerate(calling):
        cloud, plan = cloud_of(places.site, f"monitor {monitor.id}"), plans[monitor.id]
        words = str(monitor.command).split()
        found.append(
            CommandConfig(
                name=monitor.id,
                argv=(cloud.client, "--os-cloud", cloud.name, *words, "-f", "json"),
                samples_file=f"{places.folder}/{plan.file}",
                environment=_files_of(cloud),
                period_ms=plan.period_ms,
                phase_ms=number * plan.period_ms / len(calling),
                deadline_ms=monitor.deadline_ms,
                baseline_samples=baseline_samples(drill, monitor),
            )
        )
    return found


def _files_of(cloud: SiteCloud) -> dict[str, str]:
    """As OpenStack's own client is told of the files that the driver reads."""
    files = {"OS_CLIENT_CONFIG_FILE": cloud.clouds_file, "OS_CLIENT_SECURE_FILE": cloud.secure_file}
    return {name: str(file) for name, file in files.items() if file is not None}


def watch_of(monitor: Monitor, plan: MonitorPlan, folder: str, matched: Sequence[Record]) -> WatchConfig:
    """The watch of exactly these command lines, since a restarted process has the same one."""
    return WatchConfig(
        name=monitor.id,
        cmdline=pattern_of([str(each["command_line"]) for each in matched]),
        sightings_file=f"{folder}/{plan.file}",
        period_ms=min(1000.0, max(1.0, plan.period_ms)),
        at_least=len(matched),
    )


def pattern_of(command_lines: Sequence[str]) -> str:
    """A regular expression for exactly these; what a match list leaves out of them may be anything."""
    words = {
        re.escape(line).replace(_HIDDEN, ".*") + ("" if len(line) >= COMMAND_SHOWN else r"\Z")
        for line in command_lines
    }
    return rf"\A(?:{'|'.join(sorted(words))})"
