"""Resolves a drill against a site: victims, injector orders, probe URLs. Pure: nothing is asked.

No clock; chance comes only from the seed that is passed in. Optional monitors that the site cannot have are
left out first, with the reason, and so are they in the checks. What is not optional stays: a drill that
does not fit its site is refused here, by the field of the drill or of the site.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never
from urllib.parse import urlsplit

from homeostat.drills import actions, model
from homeostat.drills.clouds.connection import MADE_UP_IMAGE
from homeostat.drills.language.rules import drill_rules
from homeostat.drills.planning.blast_radius import data_on, holders_checked
from homeostat.drills.records.facts import LeftOut
from homeostat.drills.shipped.services import address_of
from homeostat.drills.site import Presence, Site, SiteCloud, SiteService
from homeostat.kernel.errors import BadInput, NotFound
from homeostat.monitors.outage import may_decide

Record = dict[str, Any]
_MIB_PER_GIB = 1024


def service_of(site: Site, name: str, field: str) -> SiteService:
    """By name; BadInput says where it was asked for."""
    if name not in site.services:
        raise BadInput(field, name, f"services of site {site.site}: {', '.join(site.services) or 'none'}")
    return site.services[name]


def presence_of(site: Site, service: str, host: str, field: str) -> Presence:
    on = service_of(site, service, field).hosts
    if host not in on:
        raise BadInput(field, service, f"a service on host {host}; it is on {', '.join(on)}")
    return on[host]


def candidates(site: Site, target: actions.Victim) -> tuple[str, ...]:
    """Every host that a target may mean, by name."""
    if target.service is not None:
        return tuple(sorted(service_of(site, target.service, "fault.target.service").hosts))
    host = str(target.host)
    if host not in site.hosts:
        raise BadInput("fault.target.host", host, f"hosts of site {site.site}: {', '.join(site.hosts)}")
    return (host,)


def asks_for_holder(target: actions.Victim) -> bool:
    return target.service is not None and target.choose in (
        actions.VictimChoice.HOLDER,
        actions.VictimChoice.NON_HOLDER,
    )


def victims(
    hosts: Sequence[str], choose: actions.VictimChoice, seed: int, holders: Sequence[str] = ()
) -> tuple[str, ...]:
    """The hosts that are hit, one run each; the same seed, the same hosts. NotFound when there is none."""
    named = sorted(hosts)
    match choose:
        case actions.VictimChoice.FIRST:
            return tuple(named[:1])
        case actions.VictimChoice.EACH:
            return tuple(named)
        case actions.VictimChoice.SEEDED:
            return (random.Random(seed).choice(named),)
        case actions.VictimChoice.HOLDER:
            if len(holders) != 1:
                found = ", ".join(holders) or "nobody"
                raise NotFound(f"fault.target.choose: holder of the address; it is held by {found}")
            return tuple(holders)
        case actions.VictimChoice.NON_HOLDER:
            others = [host for host in named if host not in holders]
            if not holders or not others:
                found = ", ".join(holders) or "nobody"
                raise NotFound(
                    f"fault.target.choose: a host that does not hold the address; {found} holds it"
                )
            return (random.Random(seed).choice(others),)
        case _:
            assert_never(choose)


def injector_host(site: Site, fault: actions.DrillFault, victim: str) -> str:
    """Where the injector runs: on the host that is hit, but for its own power."""
    if not isinstance(fault, actions.PowerOffFault):
        return victim
    power = site.hosts[victim].power
    if power is None:
        raise BadInput(f"hosts.{victim}.power", None, "where it is switched off and on, for host_off")
    return power.host


def injector_order(
    site: Site, fault: actions.DrillFault, victim: str, fault_id: str, deadline_s: float
) -> Record:
    kind, target = _injector(site, fault, victim)
    return {"fault": fault_id, "injector": kind, "deadline_s": deadline_s, "target": target}


def _injector(site: Site, fault: actions.DrillFault, victim: str) -> tuple[str, Record]:
    match fault:
        case actions.KillFault():
            target = {"profile": _profile(site, fault.target, victim), "signal": fault.signal}
            return "node_kill", target | ({"allow_collateral": True} if fault.collateral else {})
        case actions.FreezeFault():
            return "node_freeze", {"profile": _profile(site, fault.target, victim)}
        case actions.CpuFault():
            return "node_cpu", {}
        case actions.DiskFault():
            where: Record = {"folder": fault.folder} if fault.folder is not None else {}
            if data := data_on(site, fault.target.service, victim):
                where["data"] = data
            floor = {"floor_mib": round(fault.free_gib_floor * _MIB_PER_GIB)}
            return "node_disk", {**where, "size_mib": fault.file_mib_max, **floor}
        case actions.NetworkFault():
            target = {"does": fault.effect}
            if fault.device is not None:
                target["device"] = fault.device
            if fault.effect == "latency":
                return "node_network", target | {"delay_ms": round(fault.latency_ms)}
            return "node_network", target | {"ports": list(fault.ports)}
        case actions.PowerOffFault():
            return "node_power", {"host": victim}
        case _:
            assert_never(fault)


def _profile(site: Site, target: actions.Victim, victim: str) -> str:
    if target.service is None:
        raise BadInput("fault.target.host", target.host, "a service: kill and freeze hit its processes")
    return presence_of(site, target.service, victim, "fault.target.service").profile


def resources_of(site: Site, fault: actions.DrillFault, victim: str) -> tuple[str, ...]:
    """What our own fault manager may notice: of a kill or freeze the service itself, else all on the host."""
    narrow = isinstance(fault, actions.KillFault | actions.FreezeFault)
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


def deviations_of(site: Site, drill: model.Drill) -> tuple[str, ...]:
    """In what site and run are not what a document asks for."""
    images = any(
        isinstance(each, actions.CloudOperation) and each.what == "image" for each in drill.operations.all
    )
    made_up = images and site.cloud is not None and site.cloud.image_file is None
    return (*site.deviations, *((MADE_UP_IMAGE,) if made_up else ()))


def url_of(site: Site, target: model.DrillTarget, victim: str, field: str) -> str:
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


def probe_url(url: str, kind: str, path: str) -> str:
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


def operation_url(site: Site, operation: model.Operation, victim: str) -> str:
    url = url_of(site, operation.target, victim, f"operations.{operation.id}.target")
    return probe_url(url, operation.kind, operation.path)


def undecidable_limits(drill: model.Drill, resolutions: Mapping[str, float]) -> list[str]:
    """Each binding limit that a monitor cannot decide, given how far apart its bounds would be, in ms."""
    return [
        f"{name}: its bounds would be {resolutions[name]:.0f} ms apart, more than "
        f"{check.resolution:.0%} of the limit of {check.limit_ms:.0f} ms"
        for check in drill.checks
        if isinstance(check, model.ServiceOutage) and check.weight is model.Weight.BINDING
        for name in check.monitors
        if name in resolutions and not may_decide(check.limit_ms, resolutions[name], check.resolution)
    ]


def check_fit(site: Site, drill: model.Drill, victim: str) -> None:
    """BadInput for the first thing that the drill asks for and the site does not have."""
    injector_order(site, drill.fault, victim, "check", 30.0)
    injector_host(site, drill.fault, victim)
    for monitor in drill.monitors:
        field = f"monitors.{monitor.id}.target"
        if monitor.kind == "process":
            presence_of(site, str(monitor.target.service), victim, f"{field}.service")
        elif monitor.kind == "cli":
            service_of(site, str(monitor.target.service), f"{field}.service")
        else:
            probe_url(url_of(site, monitor.target, victim, field), monitor.kind, monitor.path)
        if monitor.token or monitor.kind == "cli":
            cloud_of(site, f"monitor {monitor.id}")
    for operation in drill.operations.all:
        if isinstance(operation, model.Operation):
            operation_url(site, operation, victim)
        else:
            cloud_of(site, f"operation {operation.id}")
    for number, precondition in enumerate(drill.preconditions):
        if isinstance(precondition, model.Redundancy):
            service_of(site, precondition.service, f"preconditions.{number}.service")
    for name in holders_checked(drill):
        _there(service_of(site, name, "checks.service").endpoint, f"services.{name}.endpoint")
    for number, step in enumerate(drill.cleanup):
        if step.service is not None:
            service_of(site, step.service, f"cleanup.{number}.service")


def fit_to_site(
    site: Site, drill: model.Drill, *, client_there: bool = True
) -> tuple[model.Drill, tuple[LeftOut, ...]]:
    """The drill without what the site cannot have, and why; checks leave it out, too.

    BadInput when nothing is left of a check that decides: what a drill must show is not optional.
    """
    wanting = (
        (each.id, _missing_at_site(site, each, client_there)) for each in drill.monitors if each.optional
    )
    whys = {name: why for name, why in wanting if why is not None}
    if not whys:
        return drill, ()
    gone = set(whys)
    out = tuple(LeftOut(name, why, _decided(drill, name)) for name, why in whys.items())
    left = replace(
        drill,
        monitors=tuple(each for each in drill.monitors if each.id not in gone),
        checks=tuple(_checks(drill, gone)),
    )
    lost = any(_deciding(each) and not _monitors(each) - gone for each in drill.checks)
    if lost or not left.monitors or drill_rules(left):
        told = "; ".join(f"{each.monitor}: {each.why}" for each in out)
        raise BadInput(
            "monitors", None, f"something for every check that decides beside what is left out here ({told})"
        )
    return left, out


def _missing_at_site(site: Site, monitor: model.Monitor, client_there: bool) -> str | None:
    """What this monitor would need and cannot have."""
    if monitor.target.service not in site.services:
        return f"site {site.site} has no service {monitor.target.service}"
    if site.cloud is None:
        return f"site {site.site} names no cloud" if monitor.token or monitor.kind == "cli" else None
    if monitor.kind == "cli" and not client_there:
        return f"there is no client {site.cloud.client} here"
    return None


def _deciding(check: model.Check) -> bool:
    """By monitors, always or when its step is asked for."""
    return (
        isinstance(check, model.ServiceOutage | model.ProcessRecovery)
        and check.weight is not model.Weight.INFORMATIVE
    )


def _monitors(check: model.Check) -> set[str]:
    match check:
        case model.ServiceOutage():
            return set(check.monitors)
        case model.ProcessRecovery():
            return {check.monitor}
        case _:
            return set()


def _decided(drill: model.Drill, monitor: str) -> tuple[str, ...]:
    checks = (each for each in drill.checks if _deciding(each) and monitor in _monitors(each))
    return tuple(dict.fromkeys(each.requirement for each in checks))


def _checks(drill: model.Drill, gone: set[str]) -> Iterator[model.Check]:
    for check in drill.checks:
        match check:
            case model.ServiceOutage():
                monitors = tuple(each for each in check.monitors if each not in gone)
                if monitors:
                    yield replace(check, monitors=monitors)
            case model.ProcessRecovery():
                if check.monitor not in gone:
                    yield check
            case _:
                yield check
