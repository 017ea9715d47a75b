"""What a machine has: written when it is new or has changed, acknowledged after the commit, and replayed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from entry_parts import PlayedEntry
from sqlalchemy import select, update
from test_fault_path import Running, join, running

from homeostat.contracts.events.fleet import HostFactsChanged
from homeostat.contracts.nouns import HostFacts, HostId
from homeostat.contracts.wire import (
    Heartbeat,
    HostFactsAcknowledged,
    HostFactsReport,
    Subjects,
    decode,
    digest,
)
from homeostat.fleet.component import COMPONENT
from homeostat.fleet.journal import sentence
from homeostat.fleet.store import load_topology, node_table
from homeostat.ingest.entry import Entry, IngestState
from homeostat.kernel import database
from homeostat.kernel.journal import RowChange, Submission
from homeostat.server.replay import Replay, compare_with_tables
from store_parts import Store, until

N1 = HostId("n1")
REPORT = HostFactsReport(N1, "i1", 1, 8, 16_000, 100, "x86_64")


def told(world: IngestState, *messages: HostFactsReport) -> Entry:
    entry = PlayedEntry(world, 5, 5)
    for message in messages:
        entry.facts(message)
    return entry


def joined() -> IngestState:
    entry = PlayedEntry(IngestState(), 1, 1)
    entry.heartbeat(Heartbeat(N1, "b1", "i1", 0, digest({})))
    assert entry.world.topology.nodes[N1].facts is None, "a node of an earlier version says nothing"
    return entry.world


def test_only_what_is_new_is_an_event_and_every_report_is_acknowledged() -> None:
    world = joined()
    first = told(world, REPORT)
    assert [each.event for each in first.events] == [HostFactsChanged(N1, 8, 16_000, 100, "x86_64")]
    assert world.topology.nodes[N1].facts == HostFacts(8, 16_000, 100, "x86_64")
    again = told(world, replace(REPORT, number=2))
    assert not again.events and not again.changes
    assert again.facts_acknowledged == {N1: ("i1", 2)}
    larger = told(world, replace(REPORT, number=3, disk_gb=200))
    assert [each.event for each in larger.events] == [HostFactsChanged(N1, 8, 16_000, 200, "x86_64")]
    (event,) = larger.events
    said = "Host n1 has 8 processors (x86_64), 16000 MiB memory, 200 GiB disk"
    assert sentence(event.event, event.subject) == said


@pytest.mark.parametrize(
    "report",
    [replace(REPORT, incarnation="i0"), replace(REPORT, host=HostId("n2"))],
    ids=["before", "unknown"],
)
def test_what_is_said_before_the_heartbeat_of_its_incarnation_is_to_be_said_again(
    report: HostFactsReport,
) -> None:
    entry = told(joined(), report)
    assert not entry.events and not entry.facts_acknowledged


def _ignore(_: Replay) -> None:
    """Nobody watches the replay."""


def acknowledged(here: Running) -> list[HostFactsAcknowledged]:
    subject = Subjects(N1).facts_acknowledged
    return [decode(HostFactsAcknowledged, body) for name, body in here.bus.published if name == subject]


@pytest.mark.seed("003 what a host has comes from its node: processors, memory, disk, architecture")
async def test_facts_are_in_the_row_before_they_are_acknowledged_and_a_row_changed_by_hand_is_found(
    store: Store,
) -> None:
    async def verdict() -> str:
        fleet = (COMPONENT,)
        return await store.readers.read(lambda connection: compare_with_tables(connection, _ignore, fleet)[1])

    async with running(store) as here:
        await join(here, "n1")
        assert await verdict() == ""
        here.bus.say(Subjects(N1).facts, REPORT)
        await until(lambda: bool(acknowledged(here)))
        assert acknowledged(here) == [HostFactsAcknowledged("i1", 1, 1)]
        read = await store.readers.read(load_topology)
        assert read.nodes[N1].facts == REPORT.facts
        kinds = select(database.journal.c.kind).where(database.journal.c.subject == "node/n1")
        assert [row.kind for row in store.rows(kinds)].count("HostFactsChanged") == 1
        assert await verdict() == ""
        spoilt = RowChange(update(node_table).values(memory_mb=32_000))
        await here.appender.append(Submission("test", changes=(spoilt,)))
        assert "node n1: memory_mb is 32000 in the table and 16000 by the events" in await verdict()
