"""From a drill and a site to what will exactly be done. Pure: no clock, no chance, nothing is asked.

A drill that does not fit its site is refused here, by the field of the drill or of the site.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, assert_never
from urllib.parse import urlsplit

from homeostat.drills.cloud_operation import CloudOperation
from homeostat.drills.clouds.image import MADE_UP
from homeostat.drills.fault import Choice, Cpu, Disk, Fault, Freeze, HostOff, Kill, Network, Victim
from homeostat.drills.model import Drill, Operation, Redundancy, ServiceOutage, Target, Weight
from homeostat.drills.planning.depending import data_on, holders_checked
from homeostat.drills.site import Presence, Site, SiteCloud, SiteService, address_of
from homeostat.kernel.errors import BadInput, NotFound
from homeostat.monitors.outage import may_decide, resolution_ms

Record = dict[str, Any]
_MIB_PER_GIB = 1024


def service_of(site: Site, name: str, field: str) -> SiteService:
    """By name; BadInput says where it was asked for."""
    if name not in site.services:
        raise BadInput(field, name, f"services of site {site.site}: {', '.join(site.services) or 'none'}")
    return site.services[name]


def presence_of(site: Site, service: str, host: str, field: str) -> Presence:
    """What of a service is on a host."""
    on = service_of(site, service, field).hosts
    if host not in on:
        raise BadInput(field, service, f"a service on host {host}; it is on {', '.join(on)}")
    return on[host]


def candidates(site: Site, target: Victim) -> tuple[str, ...]:
    """Every host that a target may mean, by name."""
    if target.service is not None:
        return tuple(sorted(service_of(site, target.service, "fault.target.service").hosts))
    host = str(target.host)
    if host not in site.hosts:
        raise BadInput("fault.target.host", host, f"hosts of site {site.site}: {', '.join(site.hosts)}")
    return (host,)


def asks_for_holder(target: Victim) -> bool:
    """Whether somebody must look who holds the address."""
    return target.service is not None and target.choose in (Choice.HOLDER, Choice.NON_HOLDER)


def victims(hosts: Sequence[str], choose: Choice, seed: int, holders: Sequence[str] = ()) -> tuple[str, ...]:
    """The hosts that are hit, one run each; the same seed, the same hosts. NotFound when there is none."""
    named = sorted(hosts)
    match choose:
        case Choice.FIRST:
            return tuple(named[:1])
        case Choice.EACH:
            return tuple(named)
        case Choice.SEEDED:
            return (random.Random(seed).choice(named),)
        case Choice.HOLDER:
            if len(holders) != 1:
                found = ", ".join(holders) or "nobody"
                raise NotFound(f"fault.target.choose: holder of the address; it is held by {found}")
            return tuple(holders)
        case Choice.NON_HOLDER:
            others = [host for host in named if host not in holders]
            if not holders or not others:
                found = ", ".join(holders) or "nobody"
                raise NotFound(
                    f"fault.target.choose: a host that does not hold the address; {found} holds it"
                )
            return (random.Random(seed).choice(others),)
        case _:
            assert_never(choose)


def acting_host(site: Site, fault: Fault, victim: str) -> str:
    """Where the injector runs: on the host that is hit, but for its own power."""
    if not isinstance(fault, HostOff):
        return victim
    power = site.hosts[victim].power
    if power is None:
        raise BadInput(f"hosts.{victim}.power", None, "where it is switched off and on, for host_off")
    return power.host


def order_of(site: Site, fault: Fault, victim: str, fault_id: str, deadline_s: float) -> Record:
    """What the injector program is given."""
    kind, target = _injector(site, fault, victim)
    return {"fault": fault_id, "injector": kind, "deadline_s": deadline_s, "target": target}


def _injector(site: Site, fault: Fault, victim: str) -> tuple[str, Record]:
    match fault:
        case Kill():
            target = {"profile": _profile(site, fault.target, victim), "signal": fault.signal}
            return "node_kill", target | ({"allow_collateral": True} if fault.collateral else {})
        case Freeze():
            return "node_freeze", {"profile": _profile(site, fault.target, victim)}
        case Cpu():
            return "node_cpu", {}
        case Disk():
            where: Record = {"folder": fault.folder} if fault.folder is not None else {}
            if data := data_on(site, fault.target.service, victim):
                where["data"] = data
            floor = {"floor_mib": round(fault.free_gib_floor * _MIB_PER_GIB)}
            return "node_disk", {**where, "size_mib": fault.file_mib_max, **floor}
        case Network():
            target = {"does": fault.effect}
            if fault.device is not None:
                target["device"] = fault.device
            if fault.effect == "latency":
                return "node_network", target | {"delay_ms": round(fault.latency_ms)}
            return "node_network", target | {"ports": list(fault.ports)}
        case HostOff():
            return "node_power", {"host": victim}
        case _:
            assert_never(fault)


def _profile(site: Site, target: Victim, victim: str) -> str:
    if target.service is None:
        raise BadInput("fault.target.host", target.host, "a service: kill and freeze hit its processes")
    return presence_of(site, target.service, victim, "fault.target.service").profile


def resources_of(site: Site, fault: Fault, victim: str) -> tuple[str, ...]:
    """What our own fault manager may notice: of a kill or freeze the service itself, else all on the host."""
    narrow = isinstance(fault, Kill | Freeze)
    return tuple(
        each.resource
        for name, service in sorted(site.services.items())
        for host, each in service.hosts.items()
        if host == victim and each.resource is not None and (not narrow or name == fault.target.service)
    )


def cloud_of(site: Site, asking: str) -> SiteCloud:
    """The OpenStack of the site, which this monitor or operation needs."""
    if site.cloud is None:
        raise BadInput("cloud", None, f"the site's OpenStack and its clouds.yaml, for {asking}")
    return site.cloud


def deviations_of(site: Site, drill: Drill) -> tuple[str, ...]:
    """In what site and run are not what a document asks for."""
    images = any(isinstance(each, CloudOperation) and each.what == "image" for each in drill.operations.all)
    made_up = images and site.cloud is not None and site.cloud.image_file is None
    return (*site.deviations, *((MADE_UP,) if made_up else ()))


def url_of(site: Site, target: Target, victim: str, field: str) -> str:
    """Where something answers: the endpoint of a service, or what of it runs on the host that is hit."""
    if target.url is not None:
        return target.url
    if target.host is not None:
        host = site.hosts.get(target.host)
        if host is None:
            raise BadInput(f"{field}.host", target.host, f"hosts of the site: {', '.join(site.hosts)}")
        if host.probe is not None:
            return host.probe
        if host.ssh is None:
            raise BadInput(f"hosts.{target.host}.probe", None, "what answers there while it is up")
        return f"tcp://{host.ssh.address}:{host.ssh.port}"
    name = str(target.service)
    service = service_of(site, name, f"{field}.service")
    if target.on == "victim":
        url = presence_of(site, name, victim, f"{field}.service").url
        return _there(url, f"services.{name}.hosts.{victim}.url")
    return _there(service.endpoint, f"services.{name}.endpoint")


def _there(url: str | None, field: str) -> str:
    if url is None:
        raise BadInput(field, None, "the drill asks it, so the site must say where it answers")
    return url


def asked_at(url: str, kind: str, path: str) -> str:
    """The whole URL of a probe or an operation. BadInput when it cannot be asked in that way."""
    if kind == "tcp":
        try:
            host, port = address_of(url)
        except ValueError as error:
            raise BadInput("url", url, str(error)) from None
        return f"tcp://{f'[{host}]' if ':' in host else host}:{port}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadInput("url", url, "http:// or https://: it is asked by HTTP")
    return url.rstrip("/") + path if path != "/" or not urlsplit(url).path else url


def operation_url(site: Site, operation: Operation, victim: str) -> str:
    """Where an operation goes."""
    url = url_of(site, operation.target, victim, f"operations.{operation.id}.target")
    return asked_at(url, operation.kind, operation.path)


def undecidable(drill: Drill, resolutions: Mapping[str, float]) -> list[str]:
    """Each binding limit that a monitor cannot decide, given how far apart its bounds would be, in ms."""
    return [
        f"{name}: its bounds would be {resolutions[name]:.0f} ms apart, more than "
        f"{check.resolution:.0%} of the limit of {check.limit_ms:.0f} ms"
        for check in drill.checks
        if isinstance(check, ServiceOutage) and check.weight is Weight.BINDING
        for name in check.monitors
        if name in resolutions and not may_decide(check.limit_ms, resolutions[name], check.resolution)
    ]


def resolution_of(period_ms_: float, lateness_ms: float, rho_ms: float) -> float:
    """How far apart the bounds of this monitor would be, in ms."""
    return resolution_ms(period_ms_, lateness_ms, rho_ms)


def check_fit(site: Site, drill: Drill, victim: str) -> None:
    """BadInput for the first thing that the drill asks for and the site does not have."""
    order_of(site, drill.fault, victim, "check", 30.0)
    acting_host(site, drill.fault, victim)
    for monitor in drill.monitors:
        field = f"monitors.{monitor.id}.target"
        if monitor.kind == "process":
            presence_of(site, str(monitor.target.service), victim, f"{field}.service")
        elif monitor.kind == "cli":
            service_of(site, str(monitor.target.service), f"{field}.service")
        else:
            asked_at(url_of(site, monitor.target, victim, field), monitor.kind, monitor.path)
        if monitor.token or monitor.kind == "cli":
            cloud_of(site, f"monitor {monitor.id}")
    for operation in drill.operations.all:
        if isinstance(operation, Operation):
            operation_url(site, operation, victim)
        else:
            cloud_of(site, f"operation {operation.id}")
    for number, precondition in enumerate(drill.preconditions):
        if isinstance(precondition, Redundancy):
            service_of(site, precondition.service, f"preconditions.{number}.service")
    for name in holders_checked(drill):
        _there(service_of(site, name, "checks.service").endpoint, f"services.{name}.endpoint")
    for number, step in enumerate(drill.cleanup):
        if step.service is not None:
            service_of(site, step.service, f"cleanup.{number}.service")
