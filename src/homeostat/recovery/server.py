"""Recovery in a server: fencing, marks at the cloud, placement of guests, and what-if."""

from __future__ import annotations

from dataclasses import replace

from homeostat.clouds.local import LocalCloud
from homeostat.contracts.component import ExposureSource, ServedComponent, ServerParts
from homeostat.faults.host_removal import on_host_removed
from homeostat.faults.hosts import on_hold, on_injected
from homeostat.faults.node_claims import on_claim_confirmed
from homeostat.faults.what_if import WhatIfApi
from homeostat.fleet.api import HostRecords
from homeostat.fleet.gate import Arming
from homeostat.fleet.placements import StrandedGuests
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Journal
from homeostat.kernel.leadership import Leadership
from homeostat.kernel.loops import Task
from homeostat.notices.subscriptions import Silences, Subscriptions
from homeostat.ports import Fence, NewId
from homeostat.recovery.acts import on_fenced, on_marked
from homeostat.recovery.after_death import FencingDependencies, FencingLoop
from homeostat.recovery.cloud_marks import CloudMarker, CloudMarkerDependencies
from homeostat.recovery.host_reservations import JournalReservations
from homeostat.recovery.placement_loop import PlacementLoop, create_placement_loop


async def assemble(parts: ServerParts) -> ServedComponent:
    """Made, and asks the gate what it may do; nothing runs yet."""
    path, clock, fleet = parts.find(IngestLoop), parts.find(Clock), parts.section("fleet")
    epoch = parts.find(Leadership).epoch
    new_id, fence = parts.find(NewId), parts.find_or(Fence, None)
    aftermath = parts.make(
        FencingLoop, FencingDependencies(path, parts.find(Arming), fence, fleet, epoch, clock, new_id)
    )
    await aftermath.remember(parts.find(Readers))
    cloud = LocalCloud(
        lambda: path.world.topology,
        lambda host, mark: path.record(
            lambda state, now: on_marked(state, host, (mark, LocalCloud.name), now)
        ),
    )
    faults = parts.section("faults")
    marker = parts.make(
        CloudMarker,
        CloudMarkerDependencies(
            path, cloud, aftermath.verdict, faults, epoch, clock, new_id, aftermath.count
        ),
    )
    parts.put(HostRecords, _host_records(path))
    reservations = JournalReservations(parts.find(Journal))
    placing = create_placement_loop(
        path,
        aftermath,
        epoch,
        clock,
        lambda made_of: parts.make(PlacementLoop, replace(made_of, reservations=reservations)),
    )
    parts.put(StrandedGuests, placing.stranded)
    what_if = WhatIfApi(
        topology=lambda: path.world.topology,
        subscriptions=parts.find(Subscriptions),
        verdict=aftermath.verdict,
        driver=aftermath.driver,
        cloud=marker.cloud,
        clock=clock,
        quiet=parts.find(Silences).covering,
        placement=placing.foretell,
        may_start=placing.verdict,
        exposed=parts.find(ExposureSource).rows,
    )
    return ServedComponent(
        loops=(
            Task("marking", marker.run, forever=True),
            Task("aftermath", aftermath.run, forever=True),
            Task("placing", placing.run, forever=True),
        ),
        state={"what_if": what_if, "stranded": placing.stranded},
    )


def _host_records(path: IngestLoop) -> HostRecords:
    return HostRecords(
        fenced=lambda host, by, said: path.record(lambda state, now: on_fenced(state, host, (by, said), now)),
        hold=lambda host, reason, by: path.record(lambda state, now: on_hold(state, host, (reason, by), now)),
        injected=lambda host, what, at_ns, by: path.record(
            lambda _, now: on_injected(host, (what, at_ns, by), now)
        ),
        removed=lambda host, by: path.record(
            lambda state, now: on_host_removed(state, host, (path.watch.answers(host), by), now)
        ),
        confirmed=lambda host, guest, by: path.record(
            lambda state, now: on_claim_confirmed(state, host, (guest, by), now)
        ),
    )
