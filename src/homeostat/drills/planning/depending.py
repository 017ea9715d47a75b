"""What a service uses, where that has its data on a host, and what of it a verdict is about. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from homeostat.drills.model import Drill, HolderMoved, ServiceOutage, Weight
from homeostat.drills.records.facts import DependantsSeen
from homeostat.drills.site import Site


def used_by(site: Site, services: Iterable[str]) -> tuple[str, ...]:
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
    first = used_by(site, [service] if service is not None else [])
    names = [*first, *(name for name in sorted(site.services) if name not in first)]
    found = {name: site.services[name].hosts.get(host) for name in names}
    return {
        name: str(each.data) for name, each in found.items() if each is not None and each.data is not None
    }


def depended_on(site: Site, drill: Drill) -> tuple[str, ...]:
    """What the deciding monitors ask, and everything that it uses: whose data the verdict is about."""
    deciding = {
        name
        for check in drill.checks
        if isinstance(check, ServiceOutage) and check.weight is Weight.BINDING
        for name in check.monitors
    }
    asked = [each.target.service for each in drill.monitors if each.id in deciding]
    return used_by(site, [each for each in asked if each is not None])


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
