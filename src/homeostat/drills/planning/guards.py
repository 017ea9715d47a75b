"""What must not be broken, decided before anything is. Pure: what was seen in, reasons to refuse out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from homeostat.drills.model import Drill, Redundancy
from homeostat.drills.site import Site

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Serving:
    """One host's part of a service, as it was seen just now."""

    host: str
    serves: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Watched:
    """Something that a drill does not mean to hurt: it is asked all the time, and ends the drill."""

    name: str
    url: str
    at_most_ms: float


def held(precondition: Redundancy, serving: Sequence[Serving]) -> tuple[bool, str]:
    """Whether so many back ends serve, and the words for it."""
    good = [each.host for each in serving if each.serves]
    bad = "; ".join(f"{each.host}: {each.seen}" for each in serving if not each.serves)
    seen = f"{len(good)} of {len(serving)} back ends serve" + (f" ({bad})" if bad else "")
    return len(good) >= precondition.at_least, seen


def last_ones(
    site: Site, victim: str, serving: Mapping[str, Sequence[Serving]], hit: Iterable[str]
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


def collateral(site: Site, drill: Drill, victim: str) -> tuple[Watched, ...]:
    """What is not meant: other hosts' parts of every service, and endpoints that are not measured."""
    hit = hit_services(site, drill, victim)
    measured = {each.target.service for each in drill.monitors if each.target.on == "endpoint"}
    found = []
    for name, service in sorted(site.services.items()):
        if service.endpoint is not None and name not in measured and name not in hit:
            found.append(Watched(name, service.endpoint, service.down_at_most_ms))
        for host, each in sorted(service.hosts.items()):
            if host != victim and each.url is not None:
                found.append(Watched(f"{name} on {host}", each.url, service.down_at_most_ms))
    return tuple(found)


def down_too_long(down_since_ns: int | None, at_ns: int, at_most_ms: float) -> bool:
    """Whether something that was seen to be down since then has been so for longer than it may."""
    return down_since_ns is not None and at_ns - down_since_ns > at_most_ms * _NS_PER_MS
