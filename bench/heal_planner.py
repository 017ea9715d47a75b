"""A site as the planner's own request, its plan as places, and the survey: the part of ours that decides, without a store."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from heal_judge import Places, unlawful
from heal_sites import Site

from homeostat.contracts.nouns import HostId
from homeostat.leases.planner import Plan, PlanHost, PlanRequest, PlanUnit, UnitKey, plan
from homeostat.leases.survey import Survey

SURVEY_S = 300.0


def request_of(site: Site, time_s: float) -> PlanRequest:
    """Failed hosts are no part of it; what runs on a healthy host is fixed; windows begin now at the earliest."""
    alive = [host for host in site.hosts if host.id not in site.failed]
    units, fitting = [], {}
    for each in site.reservations:
        want = (each.demand, each.min_vcpus)
        if want not in fitting:
            fitting[want] = frozenset(HostId(f"h{host.id}") for host in alive if each.fits(host))
        fit = fitting[want]
        units += [
            PlanUnit(
                each.id, number, max(0, each.start_s), each.end_s, fit, each.demand,
                HostId(f"h{host}") if host not in site.failed else None,
                is_fixed=each.runs and host not in site.failed, affinity=each.affinity, is_running=each.runs,
            )
            for number, host in enumerate(each.hosts)
        ]  # fmt: skip
    hosts = tuple(PlanHost(HostId(f"h{host.id}"), host.vcpus, host.memory_mb, host.disk_gb) for host in alive)
    return PlanRequest(hosts, tuple(units), time_s)


def planned(site: Site, time_s: float) -> tuple[Plan, Places, float]:
    """The plan, where everything is by it, and the CPU seconds of making it."""
    request = request_of(site, time_s)
    cpu_s = time.process_time()
    found = plan(request, time.monotonic)
    cpu_s = time.process_time() - cpu_s
    places: Places = {each.id: [] for each in site.reservations}
    for key, host in found.places.items():
        places[key.reservation].append(int(host[1:]))
    return found, places, cpu_s


@dataclass(frozen=True, slots=True)
class Surveyed:
    """CPU seconds of the first survey of a site and of each change after it, and what it said."""

    whole_s: float
    changed_s: list[float]
    safe: int
    at_risk: int
    unlawful: int
    """Of the failures that were looked into: those whose plan breaks a rule."""


def surveyed(site: Site, changes: int, looked_into: int) -> Surveyed:
    """Survey a site; then a lease ends, and is there again, `changes` times; check some of the failures."""
    request = request_of(site, SURVEY_S)
    began_s = time.process_time()
    survey = Survey(request, time.monotonic)
    whole_s = time.process_time() - began_s
    if survey.stale:
        raise SystemExit(f"bench: {len(survey.stale)} hosts are not looked at after {SURVEY_S} s")
    chance, changed_s = random.Random(1), []
    of: dict[str, list[PlanUnit]] = {}
    for unit in request.units:
        of.setdefault(unit.reservation, []).append(unit)
    for name in chance.sample(sorted(of), changes // 2):
        for units in ([], of[name]):
            began_s = time.process_time()
            survey.change(name, units)
            changed_s.append(time.process_time() - began_s)
    safe = sum(each.is_safe for each in survey.risks())
    broken = 0
    for host in chance.sample([each.id for each in site.hosts], looked_into):
        broken += bool(unlawful(Site(site.hosts, site.reservations, [host]), _after(site, survey, host)))
    return Surveyed(whole_s, changed_s, safe, len(of) - safe, broken)


def _after(site: Site, survey: Survey, failed: int) -> Places:
    """Where everything is when this host fails, by the survey."""
    failure = survey.failure(HostId(f"h{failed}"))
    assert failure is not None
    places: Places = {}
    for each in site.reservations:
        found = []
        for number, host in enumerate(each.hosts):
            key = UnitKey(each.id, number)
            if key not in failure.stranded:
                found.append(int(failure.places.get(key, HostId(f"h{host}"))[1:]))
        places[each.id] = found
    return places
