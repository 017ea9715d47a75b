"""Ties the resources room to the fault path: who decides where guests run, and who writes it down."""

from __future__ import annotations

from dataclasses import replace

from homeostat.faults.aftermath import Aftermath
from homeostat.faults.loop import FaultPath
from homeostat.fleet.assignment import Placement
from homeostat.fleet.gate import Asked, Refusal
from homeostat.kernel.clock import Clock
from homeostat.kernel.journal import Seq
from homeostat.resources.loop import Placing, PlacingParts


def placing_of(
    path: FaultPath, aftermath: Aftermath, epoch: int, clock: Clock, made: type[Placing] = Placing
) -> Placing:
    """The resources room decides which host gets a guest; the fault path owns the rows and writes it down.

    What the gate said when it was decided may be old when it is written: it is asked again at that moment.
    """

    async def record(placement: Placement) -> Seq:
        def allowed() -> Placement:
            down = path.world.topology.is_down  # what a living host gave back takes nothing from anybody
            hosts = {each.from_host for each in placement.assigned if each.from_host and down(each.from_host)}
            refused = {host for host in hosts if placing.verdict(host) is not None}
            kept = tuple(each for each in placement.assigned if each.from_host not in refused)
            return replace(placement, assigned=kept)

        return await path.record(lambda entry: entry.placed(allowed()))

    async def refuse(asked: Asked, refusal: Refusal) -> Seq:
        return await path.record(lambda entry: entry.refusal(asked, refusal, None))

    parts = PlacingParts(
        topology=lambda: path.world.topology,
        doubts=lambda: path.watch.doubts.keys(),
        ask=aftermath.ask,
        record=record,
        refuse=refuse,
        epoch=epoch,
        clock=clock,
        knows_guests=lambda: path.knows_guests,
        strangers=lambda: path.strangers,
    )
    placing = made(parts)
    return placing
