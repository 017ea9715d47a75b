"""The blast radius of a fault: services hit, their last back ends, their dependants, and collateral. Pure.

The guards turn observations into reasons to refuse a run before anything is broken, or to end it when
something that is not meant is down too long. A service depends on everything that it uses, whatever stands
between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeostat.drills.model import Drill, HolderMoved, Redundancy, deciding_monitors
from homeostat.drills.records.facts import DependantsSeen
from homeostat.drills.site import Site

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ServingHost:
    """One host's part of a service, as it was seen just now."""

    host: str
    serves: bool
    seen: str


@dataclass(frozen=True, slots=True)
class CollateralEndpoint:
    """Something that a drill does not mean to hurt: it is asked all the time, and ends the drill."""

    name: str
    url: str
    at_most_ms: float


def enough_serve(precondition: Redundancy, serving: Sequence[ServingHost]) -> tuple[bool, str]:
    """Whether so many back ends serve, and the words for it."""
    good = [each.host for each in serving if each.serves]
    bad = "; ".join(f"{each.host}: {each.seen}" for each in serving if not each.serves)
    seen = f"{len(good)} of {len(serving)} back ends serve" + (f" ({bad})" if bad else "")
    return len(good) >= precondition.at_least, seen


def last_back_ends(
    site: Site, victim: str, serving: Mapping[str, Sequence[ServingHost]], hit: Iterable[str]
) -> list[str]:
    """Of each service that is hit there: whether enough hosts serve without this one. Reasons to refuse."""
    refusals = []
    for name in hit:
        others = [each for each in serving[name] if each.host != victim and each.serves]
        quorum = site.services[name].quorum
        if len(others) < quorum:
            left = ", ".join(each.host for each in others) or "no host"
            refusals.append(
                f"{name}: without {victim}, {left} would serve, and {quorum} must; "
                "let the others come back, or add a host"
            )
    return refusals


def hit_services(site: Site, drill: Drill, victim: str) -> tuple[str, ...]:
    """The services whose part on the host may be gone: the target, or all that is there."""
    service = drill.fault.target.service
    if service is not None and drill.fault.injector in ("kill", "freeze"):
        return (service,)
    # A busy or slow host takes services away from their users like a dead one does.
    # A host that is off takes also what nobody asks by a URL.
    off = drill.fault.injector == "host_off"
    return tuple(
        name
        for name, each in sorted(site.services.items())
        if victim in each.hosts and (off or name == service or each.hosts[victim].url is not None)
    )


def collateral(site: Site, drill: Drill, victim: str) -> tuple[CollateralEndpoint, ...]:
    """What is not meant: other hosts' parts of every service, and endpoints that are not measured."""
    hit = hit_services(site, drill, victim)
    measured = {each.target.service for each in drill.monitors if each.target.on == "endpoint"}
    found = []
    for name, service in sorted(site.services.items()):
        if service.endpoint is not None and name not in measured and name not in hit:
            found.append(CollateralEndpoint(name, service.endpoint, service.down_at_most_ms))
        for host, each in sorted(service.hosts.items()):
            if host != victim and each.url is not None:
                found.append(CollateralEndpoint(f"{name} on {host}", each.url, service.down_at_most_ms))
    return tuple(found)


def down_too_long(down_since_ns: int | None, at_ns: int, at_most_ms: float) -> bool:
    """Whether something that was seen to be down since then has been so for longer than it may."""
    return down_since_ns is not None and at_ns - down_since_ns > at_most_ms * _NS_PER_MS


def services_used_by(site: Site, services: Iterable[str]) -> tuple[str, ...]:
    """These services and everything that they use, whatever stands between; each once."""
    found: list[str] = []
    waiting = list(services)
    while waiting:
        name = waiting.pop(0)
        if name in site.services and name not in found:
            found.append(name)
            waiting += site.services[name].uses
    return tuple(found)


def data_on(site: Site, service: str | None, host: str) -> dict[str, str]:
    """Where services have their data on a host: first those of the target and what it uses."""
    first = services_used_by(site, [service] if service is not None else [])
    names = [*first, *(name for name in sorted(site.services) if name not in first)]
    found = {name: site.services[name].hosts.get(host) for name in names}
    return {
        name: str(each.data) for name, each in found.items() if each is not None and each.data is not None
    }


def verdict_services(site: Site, drill: Drill) -> tuple[str, ...]:
    """What the deciding monitors ask, and everything that it uses: whose data the verdict is about."""
    deciding = deciding_monitors(drill)
    asked = [each.target.service for each in drill.monitors if each.id in deciding]
    return services_used_by(site, [each for each in asked if each is not None])


def holders_checked(drill: Drill) -> tuple[str, ...]:
    """The services of whose address the drill asks who holds it."""
    return tuple(dict.fromkeys(each.service for each in drill.checks if isinstance(each, HolderMoved)))


def dependants_in(plan: Mapping[str, Any], about: Collection[str]) -> DependantsSeen:
    """What the host said of the disk and of the data there, of the services that count."""
    words: dict[bool, list[str]] = {True: [], False: []}
    for each in plan["data"]:
        if each["service"] in about:
            words[bool(each["on_it"])].append(f"{each['service']} in {each['path']}")
    return DependantsSeen(str(plan["disk"]), tuple(words[True]), tuple(words[False]))
