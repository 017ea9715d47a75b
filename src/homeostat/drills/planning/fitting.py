"""What of a drill is left at a site: monitors that are optional and cannot be had there go, and say so. Pure.

What is not optional stays, and is refused later by the field that the site does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from homeostat.drills.language.rules import drill_rules
from homeostat.drills.model import Check, Drill, Monitor, ProcessRecovery, ServiceOutage, Weight
from homeostat.drills.records.facts import LeftOut
from homeostat.drills.site import Site
from homeostat.kernel.errors import BadInput


def fitted(site: Site, drill: Drill, *, client_there: bool = True) -> tuple[Drill, tuple[LeftOut, ...]]:
    """The drill without what the site cannot have, and why; checks leave it out, too.

    BadInput when nothing is left of a check that decides: what a drill must show is not optional.
    """
    wanting = ((each.id, _wanting(site, each, client_there)) for each in drill.monitors if each.optional)
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


def _wanting(site: Site, monitor: Monitor, client_there: bool) -> str | None:
    """What this monitor would need and cannot have."""
    if monitor.target.service not in site.services:
        return f"site {site.site} has no service {monitor.target.service}"
    if site.cloud is None:
        return f"site {site.site} names no cloud" if monitor.token or monitor.kind == "cli" else None
    if monitor.kind == "cli" and not client_there:
        return f"there is no client {site.cloud.client} here"
    return None


def _deciding(check: Check) -> bool:
    """By monitors, always or when its step is asked for."""
    return isinstance(check, ServiceOutage | ProcessRecovery) and check.weight is not Weight.INFORMATIVE


def _monitors(check: Check) -> set[str]:
    match check:
        case ServiceOutage():
            return set(check.monitors)
        case ProcessRecovery():
            return {check.monitor}
        case _:
            return set()


def _decided(drill: Drill, monitor: str) -> tuple[str, ...]:
    checks = (each for each in drill.checks if _deciding(each) and monitor in _monitors(each))
    return tuple(dict.fromkeys(each.requirement for each in checks))


def _checks(drill: Drill, gone: set[str]) -> Iterator[Check]:
    for check in drill.checks:
        match check:
            case ServiceOutage():
                monitors = tuple(each for each in check.monitors if each not in gone)
                if monitors:
                    yield replace(check, monitors=monitors)
            case ProcessRecovery():
                if check.monitor not in gone:
                    yield check
            case _:
                yield check
