"""A host that a dead tool had switched off, after its undo: it is looked for a fence that comes late.

By the rule of a run that lives: until our own server shows the host up and does nothing to it.
"""

from __future__ import annotations

from functools import partial

from homeostat.drills.fault import HostOff
from homeostat.drills.planning.preparation import order_of
from homeostat.drills.records.facts import Undone
from homeostat.drills.records.ledger import Undo
from homeostat.drills.running.breaking import Breaking, Late
from homeostat.drills.running.engine import UNDO_WITHIN_S
from homeostat.drills.running.ordered import Parts
from homeostat.kernel.errors import RetryLater


async def stays_on(parts: Parts, fault: HostOff, victim: str, undo: Undo) -> Undone:
    """Switched on until nobody fences it any more. RetryLater, with what to do, when somebody still may."""
    site = parts.site
    within_s = site.drills.undo_deadline_s + UNDO_WITHIN_S
    parts.progress.say(f"looking whether {victim} stays on, for at most {within_s:g} s")
    order = order_of(site, fault, victim, undo.fault, site.drills.undo_deadline_s)
    breaking = Breaking(parts.transports[undo.host], order)
    late = Late(partial(parts.looking.fenced_late, victim))
    said, coming = await breaking.undone_for_good(within_s, late)
    if coming is not None:
        remedy = "`homeostat drill heal` looks again; else start it (in a lab: `homeostat lab start-host`)"
        raise RetryLater(f"{said.seen}; {coming}; {remedy}")
    return said
