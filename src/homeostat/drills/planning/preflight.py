"""Before a run: what is observed on its site, and the configuration of each monitor process.

Observed, read-only, are address holders, serving back ends, free space and open faults; `blast_radius` and
the verdicts decide what follows from them. The configurations are pure. A token is in that of a sampler and
nowhere else: not in the plan, not in a fact.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from homeostat.drills import model
from homeostat.drills.actions import DiskFault, Phase
from homeostat.drills.clouds.connection import TOKEN_HEADER, CloudToken
from homeostat.drills.planning import preparation
from homeostat.drills.planning.blast_radius import ServingHost, enough_serve
from homeostat.drills.planning.service_client import SYSTEM_TRUST, ServiceClient, TlsTrust
from homeostat.drills.records.facts import HolderSeen, MonitorPlan, PreconditionSeen
from homeostat.drills.records.history import SAMPLES
from homeostat.drills.site import Presence, Site, SiteCloud, SiteService
from homeostat.drills.transports.connections import Transports
from homeostat.kernel.client import Client
from homeostat.kernel.errors import BadInput, HomeostatError
from homeostat.monitors.node.command_sampler import CommandConfig
from homeostat.monitors.node.sampler import SamplerConfig
from homeostat.monitors.shipped.process_watch import WatchConfig

_GIB = 1 << 30
_OPEN_SHOWN = 5
HOLDERS_WITHIN_S = 90.0
"""For who holds an address, before the fault and after it: longer than a host takes to be reached at all."""
HOLDERS_HELD_S = 5.0
"""The same while the fault stands: what is not said by then is silence, and no fault stands longer for it."""


class Preflight:
    """Asks hosts and services of a site."""

    def __init__(self, site: Site, transports: Transports, asker: ServiceClient) -> None:
        self._site, self._transports, self._asker = site, transports, asker

    async def holders(self, drill: model.Drill) -> tuple[str, ...]:
        """The hosts that hold the target's address; none when the drill does not ask for it."""
        target = drill.fault.target
        if not preparation.asks_for_holder(target):
            return ()
        service = preparation.service_of(self._site, str(target.service), "fault.target.service")
        hosts = sorted(service.hosts)
        return tuple(compress(hosts, await asyncio.gather(*(self._holds(service, host) for host in hosts))))

    async def holder(self, name: str, when: Phase, without: Collection[str] = ()) -> HolderSeen:
        """Who says now that it holds the address of a service. `without`: hosts that are off for certain.

        One that has not said it in time is silent; that time is short while the fault stands.
        """
        within_s = HOLDERS_HELD_S if when == "during" else HOLDERS_WITHIN_S
        service = self._site.services[name]
        hosts = [host for host in sorted(service.hosts) if host not in without]
        asked = (asyncio.wait_for(self._holds(service, host), within_s) for host in hosts)
        found = dict(zip(hosts, await asyncio.gather(*asked, return_exceptions=True), strict=True))
        for each in found.values():
            if isinstance(each, BaseException) and not isinstance(each, HomeostatError | TimeoutError):
                raise each
        silent = tuple(host for host, each in found.items() if isinstance(each, BaseException))
        return HolderSeen(name, when, tuple(host for host, each in found.items() if each is True), silent)

    async def _holds(self, service: SiteService, host: str) -> bool:
        if service.endpoint is None:
            raise BadInput("services.endpoint", None, "the address that somebody holds")
        profile = service.hosts[host].profile
        return await self._transports[host].holds(profile, service.holder, service.endpoint)

    async def serving(self, service: str) -> list[ServingHost]:
        """Every host's part of a service: asked where it answers, else whether its processes are there."""
        on = sorted(self._site.services[service].hosts.items())
        return list(await asyncio.gather(*(self._serves(host, each) for host, each in on)))

    async def _serves(self, host: str, presence: Presence) -> ServingHost:
        if presence.url is not None:
            asked = await self._asker.serves(presence.url)
            return ServingHost(host, asked.ok, asked.seen)
        try:
            found = await self.matched(host, presence.profile, f"look-{host}-{presence.profile}")
        except HomeostatError as error:
            return ServingHost(host, False, str(error))
        return ServingHost(host, bool(found), f"{len(found)} processes")

    async def matched(self, host: str, profile: str, name: str) -> list[dict[str, Any]]:
        """The processes of a profile on a host, as a kill would plan it. NotFound when there are none."""
        target = {"profile": profile, "allow_collateral": True, "only_look": True}
        record = {"fault": name[:63], "injector": "node_kill", "target": target}
        answered = await self._transports[host].verb("plan", record)
        found: list[dict[str, Any]] = answered["plan"]["matched"]
        return found

    async def precondition(self, number: int, drill: model.Drill, victim: str) -> PreconditionSeen:
        """One of the drill's list."""
        asked = drill.preconditions[number]
        match asked:
            case model.Redundancy():
                return PreconditionSeen(number, *enough_serve(asked, await self.serving(asked.service)))
            case model.FreeSpace():
                return PreconditionSeen(number, *await self._room(asked, drill, victim))
            case model.NoOpenFaults():
                return PreconditionSeen(number, *await self._open_faults())

    async def _room(self, asked: model.FreeSpace, drill: model.Drill, victim: str) -> tuple[bool, str]:
        record = {"fault": f"look-{victim}-room"[:63], "injector": "node_disk", "target": {}}
        if isinstance(drill.fault, DiskFault):  # the disk that will be hit
            record = preparation.injector_order(self._site, drill.fault, victim, str(record["fault"]), 30.0)
        try:
            section = (await self._transports[victim].verb("probe", record))["probe"]
        except HomeostatError as error:
            return False, str(error)
        if "free_bytes" not in section:
            return False, "; ".join(section["missing"])
        free_gib = section["free_bytes"] / _GIB
        return free_gib >= asked.at_least_gib, f"{free_gib:.1f} GiB free on {victim}"

    async def _open_faults(self) -> tuple[bool, str]:
        """Nothing that a drill left, on any host; and nothing open at our own fault manager."""
        hosts = sorted(self._site.hosts)
        found = await asyncio.gather(*(self._left_on(host) for host in hosts))
        left = [each for several in found for each in several]
        left += await asyncio.to_thread(self._open_at_the_server)
        shown = ", ".join(left[:_OPEN_SHOWN]) + (" ..." if len(left) > _OPEN_SHOWN else "")
        return not left, f"open: {shown}" if left else f"none on {len(hosts)} hosts"

    async def _left_on(self, host: str) -> Sequence[str]:
        try:
            status = await self._transports[host].status()
        except HomeostatError as error:
            return [f"{host} cannot be asked ({error})"]
        return [f"{fault} on {host}" for fault in status["open"]]

    async def fenced_late(self, host: str) -> str | None:
        """Why our own server may still have a host switched off that is on again; None when it will not."""
        if self._site.server is None:
            return None
        try:
            answer = await asyncio.to_thread(self._at_the_server, "/hosts")
        except HomeostatError as error:
            return f"our own server cannot be asked ({error})"
        for each in answer["items"]:
            if each["host"] == host and (each["acting"] or each["state"] != "up"):
                return f"our own server: {host} is {', '.join(each['acting']) or each['state']}"
        return None

    def _open_at_the_server(self) -> list[str]:
        if self._site.server is None:
            return []
        try:
            answer = self._at_the_server("/faults", state="open")
        except HomeostatError as error:
            return [f"our own server cannot be asked ({error})"]
        return [f"{each['kind']} {each['id']}" for each in answer["items"]]

    def _at_the_server(self, path: str, **query: str) -> Any:
        server = self._site.server
        assert server is not None
        return Client.with_token_of(server.url, server.token_file).call("GET", path, **query)


Record = dict[str, Any]
PERIOD_MIN_MS = 5.0
"""Denser than this, the prober would be the load."""
COMMAND_SHOWN = 200
"""So much of a command line is in a match list."""
_HIDDEN = re.escape("(hidden)")


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run takes place: the site, the host that is hit, the folder of the run, whom it believes."""

    site: Site
    victim: str
    folder: Path
    trust: TlsTrust = SYSTEM_TRUST


def monitor_plans(drill: model.Drill, denser: int) -> tuple[MonitorPlan, ...]:
    """Every monitor with its file and its period: half of the drill's for each denser run."""
    return tuple(
        MonitorPlan(each.id, f"{SAMPLES}/{each.id}.jsonl", period_ms(each, denser)) for each in drill.monitors
    )


def period_ms(monitor: model.Monitor, denser: int) -> float:
    """The period of a monitor in the nth denser run; a closed loop is as dense as its calls are short."""
    if monitor.kind == "cli":
        return monitor.period_ms
    return max(min(PERIOD_MIN_MS, monitor.period_ms), monitor.period_ms / float(2**denser))


def can_be_denser(drill: model.Drill, denser: int) -> bool:
    """Whether one more halving changes anything."""
    return any(period_ms(each, denser + 1) < period_ms(each, denser) for each in drill.monitors)


def sampler_configs(
    places: RunPlace, drill: model.Drill, plans: Mapping[str, MonitorPlan], issued: CloudToken | None
) -> list[SamplerConfig]:
    """The configuration of every monitor that asks. Shifted against each other by a part of the period."""
    asking = [each for each in drill.monitors if each.kind in ("http", "tcp")]
    found = []
    for number, monitor in enumerate(asking):
        plan = plans[monitor.id]
        url = preparation.url_of(places.site, monitor.target, places.victim, f"monitors.{monitor.id}.target")
        path, headers = _with_token(monitor, issued)
        verified = places.trust.of(url)
        found.append(
            SamplerConfig(
                name=monitor.id,
                url=preparation.probe_url(url, monitor.kind, path),
                samples_file=f"{places.folder}/{plan.file}",
                period_ms=plan.period_ms,
                phase_ms=number * plan.period_ms / len(asking),
                deadline_ms=monitor.deadline_ms,
                baseline_samples=model.baseline_samples(drill, monitor),
                headers=headers,
                cacert=None if verified.cacert is None else str(verified.cacert),
                server_name=verified.server_name,
                verify=verified.verify,
            )
        )
    return found


def _with_token(monitor: model.Monitor, issued: CloudToken | None) -> tuple[str, dict[str, str]]:
    """Its path and headers. The token is nowhere else."""
    if not monitor.token:
        return monitor.path, {}
    if issued is None:
        raise BadInput(f"monitors.{monitor.id}.token", True, "a token of the site's cloud")
    return monitor.path.replace(model.PROJECT, issued.project_id), {TOKEN_HEADER: issued.token}


def client_configs(
    places: RunPlace, drill: model.Drill, plans: Mapping[str, MonitorPlan]
) -> list[CommandConfig]:
    """The configuration of every monitor that calls the cloud's own client.

    One after the other: a call costs a second of a CPU, and all at once would measure themselves.
    """
    found = []
    calling = [each for each in drill.monitors if each.kind == "cli"]
    for number, monitor in enumerate(calling):
        cloud, plan = preparation.cloud_of(places.site, f"monitor {monitor.id}"), plans[monitor.id]
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
                baseline_samples=model.baseline_samples(drill, monitor),
            )
        )
    return found


def _files_of(cloud: SiteCloud) -> dict[str, str]:
    """As OpenStack's own client is told of the files that the driver reads."""
    files = {"OS_CLIENT_CONFIG_FILE": cloud.clouds_file, "OS_CLIENT_SECURE_FILE": cloud.secure_file}
    return {name: str(file) for name, file in files.items() if file is not None}


def watch_config(
    monitor: model.Monitor, plan: MonitorPlan, folder: str, matched: Sequence[Record]
) -> WatchConfig:
    """The watch of exactly these command lines, since a restarted process has the same one."""
    return WatchConfig(
        name=monitor.id,
        cmdline=command_pattern([str(each["command_line"]) for each in matched]),
        sightings_file=f"{folder}/{plan.file}",
        period_ms=min(1000.0, max(1.0, plan.period_ms)),
        at_least=len(matched),
    )


def command_pattern(command_lines: Sequence[str]) -> str:
    """A regular expression for exactly these; what a match list leaves out of them may be anything."""
    words = {
        re.escape(line).replace(_HIDDEN, ".*") + ("" if len(line) >= COMMAND_SHOWN else r"\Z")
        for line in command_lines
    }
    return rf"\A(?:{'|'.join(sorted(words))})"
