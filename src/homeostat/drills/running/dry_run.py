"""What a run would do, for people who want to see it first. Asks hosts, touches nothing."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.drills.clouds.steps import name_of
from homeostat.drills.model import Dependant, Drill, Operation
from homeostat.drills.planning.depending import dependants_in, depended_on
from homeostat.drills.planning.guards import hit_services, last_ones
from homeostat.drills.planning.preparation import acting_host, check_fit, cloud_of, operation_url, order_of
from homeostat.drills.planning.trusting import check_certificates
from homeostat.drills.running.breaking import Breaking
from homeostat.drills.running.ordered import Ordered, Parts
from homeostat.drills.running.stopping import NotBegun
from homeostat.drills.site import Site
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed


async def dry_run(parts: Parts, ordered: Ordered) -> dict[str, object]:
    """`matched`, `does`, `undo`, and what would keep it from running (`refused`).

    `permitted`: whether the host lets this be done to it at all.
    """
    site, drill, victim = parts.site, ordered.drill, str(ordered.victim)
    check_fit(site, drill, victim)
    host = acting_host(site, drill.fault, victim)
    order = order_of(site, drill.fault, victim, f"dry-{drill.id}"[:63], site.drills.undo_deadline_s)
    breaking = Breaking(parts.transports[host], order)
    told: dict[str, object] = {"drill": drill.id, "victim": victim, "injector": order["injector"], "by": host}
    if ordered.left_out:
        told["left_out"] = [f"{each.monitor}: {each.why}" for each in ordered.left_out]
    if drill.operations.all:
        told["operations"] = [*_operations(site, drill, victim)]
    refused: list[str] = []
    permitted = True
    try:
        await check_certificates(parts.asker.trust, site, drill, victim)
    except BadInput as error:
        refused.append(str(error))
    try:
        plan = await breaking.plan()
        told |= {"does": plan["does"], "matched": plan.get("matched", []), "undo": plan["undo"]}
        if any(isinstance(each, Dependant) for each in drill.checks):
            told["dependants"] = list(dependants_in(plan, depended_on(site, drill)).on_it)
    except NotBegun as error:
        refused.append(error.what)
    except HomeostatError as error:
        refused.append(str(error))
        permitted = not isinstance(error, NotAllowed)
    for number in range(len(drill.preconditions)):
        seen = await parts.looking.precondition(number, drill, victim)
        if not seen.held:
            refused.append(seen.seen)
    hit = hit_services(site, drill, victim)
    refused += last_ones(site, victim, {name: await parts.looking.serving(name) for name in hit}, hit)
    more = {"permitted": permitted, "refused": refused, "undo_deadline_s": site.drills.undo_deadline_s}
    return told | more


def _operations(site: Site, drill: Drill, victim: str) -> Iterator[str]:
    """What is asked of whom, in order; what is created has a name of the run."""
    operations = drill.operations
    phases = {
        "before": operations.before,
        "during": operations.during,
        "while_held": operations.while_held,
        "after": operations.after,
    }
    for phase, steps in phases.items():
        for each in steps:
            if isinstance(each, Operation):
                yield f"{phase} {each.id}: {each.method} {operation_url(site, each, victim)}"
            else:
                cloud = cloud_of(site, each.id).name
                yield f"{phase} {each.id}: {each.does} {name_of('RUN', each.what)} in cloud {cloud}"
