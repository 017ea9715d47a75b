"""What a run would do, for people who want to see it first. Asks hosts, touches nothing."""

from __future__ import annotations

from homeostat.drills.breaking import Breaking
from homeostat.drills.depending import dependants_in, depended_on
from homeostat.drills.guards import hit_services, last_ones
from homeostat.drills.model import Dependant
from homeostat.drills.ordered import Ordered, Parts
from homeostat.drills.preparation import acting_host, check_fit, order_of
from homeostat.drills.stopping import NotBegun
from homeostat.kernel.errors import HomeostatError


async def dry_run(parts: Parts, ordered: Ordered) -> dict[str, object]:
    """`hits`, `does`, `undo`, and what would keep it from running (`refused`)."""
    site, drill, victim = parts.site, ordered.drill, str(ordered.victim)
    check_fit(site, drill, victim)
    host = acting_host(site, drill.fault, victim)
    order = order_of(site, drill.fault, victim, f"dry-{drill.id}"[:63], site.drills.undo_deadline_s)
    breaking = Breaking(parts.transports[host], order)
    told: dict[str, object] = {"drill": drill.id, "victim": victim, "injector": order["injector"], "by": host}
    if ordered.left_out:
        told["left_out"] = [f"{each.monitor}: {each.why}" for each in ordered.left_out]
    refused: list[str] = []
    try:
        plan = await breaking.plan()
        told |= {"does": plan["does"], "matched": plan.get("matched", []), "undo": plan["undo"]}
        if any(isinstance(each, Dependant) for each in drill.checks):
            told["dependants"] = list(dependants_in(plan, depended_on(site, drill)).on_it)
    except NotBegun as error:
        refused.append(error.what)
    except HomeostatError as error:
        refused.append(str(error))
    for number in range(len(drill.preconditions)):
        seen = await parts.looking.precondition(number, drill, victim)
        if not seen.held:
            refused.append(seen.seen)
    hit = hit_services(site, drill, victim)
    refused += last_ones(site, victim, {name: await parts.looking.serving(name) for name in hit}, hit)
    return told | {"refused": refused, "undo_deadline_s": site.drills.undo_deadline_s}
