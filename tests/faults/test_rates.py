"""Rates of disruptive acts: six dead hosts are marked at the cloud, five of them fenced.

The fault path, both loops and the local cloud are real, on both engines; only the switch is a stand-in.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import orjson
import pytest
from sqlalchemy import select
from test_fault_path import Running, join, running
from test_storm import Switch

from homeostat.clouds.local import LocalCloud
from homeostat.components import catalogue
from homeostat.contracts.events.fleet import HostFenced
from homeostat.contracts.events.resources import GuestMoved
from homeostat.contracts.nouns import HostId, Mark, Owner, ResourceId
from homeostat.faults.hosts import on_host_down
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.gate import START_ELSEWHERE, Arming, GateReason, GateRequest
from homeostat.fleet.settings import FleetSettings, GateSettings
from homeostat.fleet.store import load_started_elsewhere
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import EventIndex, NewEvent, Submission
from homeostat.recovery.acts import on_marked
from homeostat.recovery.after_death import FencingDependencies, FencingLoop
from homeostat.recovery.cloud_marks import CloudMarker, CloudMarkerDependencies
from store_parts import Store, until

HOSTS = tuple(HostId(f"n{number}") for number in range(1, 21))
DEAD = HOSTS[:6]
APART_NS = 9 * 10**9
"""Six deaths in 45 s, and never two within the window of a storm."""


def _died(host: HostId, death: Death, state: IngestState, now: Moment) -> Decision:
    return on_host_down(state, host, death, now)


async def _beat(here: Running) -> None:
    """Whoever is not going to die speaks."""
    while True:
        for host in HOSTS[len(DEAD) :]:
            here.beat(host)
        await asyncio.sleep(0.3)


@asynccontextmanager
async def recovering(store: Store, gate: GateSettings) -> AsyncIterator[tuple[IngestLoop, FencingLoop]]:
    async with running(store) as here:
        for host in HOSTS:
            await join(here, host)
        clock, path = SystemClock(), here.path
        arming = Arming(here.appender, store.readers, clock, ["recovery"], ["recovery"])
        await arming.reload()
        fencing = FencingLoop(
            FencingDependencies(
                path, arming, Switch(), FleetSettings(gate=gate), 1, clock, lambda: uuid.uuid4().hex
            )
        )
        await fencing.remember(store.readers)
        cloud = LocalCloud(
            lambda: path.world.topology,
            lambda host, mark: path.record(
                lambda state, now: on_marked(state, host, (mark, LocalCloud.name), now)
            ),
        )
        marker = CloudMarker(
            CloudMarkerDependencies(
                path,
                cloud,
                fencing.verdict,
                FaultsSettings(),
                1,
                clock,
                lambda: uuid.uuid4().hex,
                fencing.count,
            )
        )
        loops = (fencing.run(), marker.run(), _beat(here))
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await until(lambda: not path.watch.doubt)
            yield path, fencing
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def die(path: IngestLoop, hosts: tuple[HostId, ...]) -> None:
    """One after the other, the first of them longest ago."""
    now_ns = SystemClock().wall_ns()
    for number, host in enumerate(hosts):
        died_ns = now_ns - APART_NS * (len(hosts) - number)
        await path.record(partial(_died, host, Death("silent", died_ns, died_ns)))


def refused(store: Store) -> list[tuple[str, str, str]]:
    table = database.journal
    rows = store.rows(select(table.c.subject, table.c.payload).where(table.c.kind == "ActRefused"))
    payloads = [(row.subject, orjson.loads(row.payload)) for row in rows]
    return [(subject, said["act"], said["reason"]) for subject, said in payloads]


async def test_six_hosts_that_die_one_after_the_other_are_all_marked_and_five_are_fenced(
    store: Store,
) -> None:
    async with recovering(store, GateSettings()) as (path, fencing):
        await die(path, DEAD)
        nodes = path.world.topology.nodes
        await until(lambda: all(nodes[host].marked_ns and nodes[host].error_ns for host in DEAD))
        await until(lambda: sum(bool(nodes[host].fenced) for host in DEAD) == 5)
        await until(lambda: bool(refused(store)))
        (late,) = [host for host in DEAD if not nodes[host].fenced]
        assert refused(store) == [(f"node/{late}", "fence", "rate")]
        assert [fencing.verdict(host, START_ELSEWHERE) for host in DEAD] == [None] * 6
        assert len(fencing.recent.by_kind()["fence"]) == 5


@pytest.mark.parametrize("act", [Mark.MARK_DOWN, Mark.SET_ERROR])
async def test_marks_have_a_limit_that_a_restart_does_not_lift(store: Store, act: Mark) -> None:
    def asked(fencing: FencingLoop) -> GateReason | None:
        refusal = fencing.ask(GateRequest("recovery", act.value, HOSTS[9], 1))
        return None if refusal is None else refusal.why

    gate = GateSettings(mark_max=2, mark_window_s=600)
    async with recovering(store, gate) as (path, fencing):
        await die(path, DEAD[:3])
        nodes = path.world.topology.nodes
        await until(lambda: sum(nodes[host].error_ns is not None for host in DEAD) == 2)
        await until(lambda: any(act_ == "mark_down" for _, act_, _ in refused(store)))
        assert sum(nodes[host].marked_ns is not None for host in DEAD) == 2
        await until(lambda: all(nodes[host].fenced for host in DEAD[:3]))
        assert asked(fencing) is GateReason.RATE
    async with recovering(store, gate) as (_, again):
        assert asked(again) is GateReason.RATE
    async with recovering(store, GateSettings(mark_max=4, mark_window_s=600)) as (_, wider):
        assert asked(wider) is None


async def test_decisions_that_started_guests_elsewhere_are_found_in_the_journal(store: Store) -> None:
    """One for each host and decision; what a living host gave back has no receipt and is none of them."""

    def moved(host: str, at_ns: int, cause: EventIndex | None) -> NewEvent:
        event = GuestMoved(ResourceId("g"), Owner("blue"), HostId(host), HostId("n9"), 2)
        return NewEvent(event, "resource/g", at_ns, "resources", f"death of {host}", cause)

    receipt = NewEvent(HostFenced(HOSTS[0], "switch", "off"), "node/n1", 5, "fleet", "t")
    settings = AppenderSettings()
    appender = Appender(store.engine, catalogue(), epoch=None, settings=settings, clock=SystemClock())
    appender.start()
    try:
        moves = [("n1", 10, 0), ("n1", 20, 0), ("n1", 20, 0), ("n2", 20, 0), ("n3", 30, None)]
        events = [moved(host, at_ns, None if by is None else EventIndex(by)) for host, at_ns, by in moves]
        await appender.append(Submission("test", (receipt, *events)))
    finally:
        await appender.close()
    found = await store.readers.read(partial(load_started_elsewhere, since_ns=11))
    assert sorted(found) == [("death of n1", 20), ("death of n2", 20)]
