"""`homeostat explain RESOURCE`: the newest chain of a resource, on both engines."""

from __future__ import annotations

from sqlalchemy import select
from test_fault_path import DOWN, join, running, seen
from test_silenced_faults import kinds

from homeostat.components import journal_view
from homeostat.contracts.events.resources import GuestMoved, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind
from homeostat.faults.api import _locate, arrivals, explain_events
from homeostat.faults.store import fault_table
from homeostat.kernel.journal import Envelope, Seq
from store_parts import Store, until


async def test_a_resource_stands_for_its_newest_fault(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: "FaultRaised" in kinds(store))
        here.see("n1", seen("db", 2, DOWN))
        await until(lambda: kinds(store).count("FaultRaised") == 2)
    raised = {row.about: row.raised_seq for row in store.rows(select(fault_table))}
    with store.reading.connect() as connection:
        for name in ("web", "db"):
            assert _locate(connection, name) == (raised[f"resource/{name}"], frozenset({"blue"}))
        assert _locate(connection, "nobody") == (None, frozenset())


def envelope(seq: int, event: GuestMoved | ResourceUp) -> Envelope:
    about = f"resource/{event.resource}"
    return Envelope(Seq(seq), type(event).__name__, 1, about, None, "t", seq, "test", {}, event)


def move(seq: int, name: str, host: str, generation: int = 2) -> Envelope:
    event = GuestMoved(ResourceId(name), Owner("blue"), HostId("n1"), HostId(host), generation)
    return envelope(seq, event)


def up(seq: int, name: str, host: str) -> Envelope:
    reason = "it answers"
    event = ResourceUp(ResourceId(name), HostId(host), ResourceKind.GUEST, Owner("blue"), reason, seq)
    return envelope(seq, event)


def test_the_story_of_a_guest_that_moved_ends_where_it_runs_again() -> None:
    chain = [move(10, "a", "n3"), move(11, "b", "n2")]
    ups = [up(5, "a", "n3"), up(12, "b", "n3"), up(14, "a", "n3"), up(13, "c", "n3"), up(20, "a", "n3")]
    found = arrivals(chain, ups)
    assert [each.seq for each in found] == [14], "b did not come up where it was moved to, c did not move"
    assert explain_events([*chain, *found], journal_view().sentence)[-1].what == "a on n3 is up: it answers"


def test_a_guest_that_moved_twice_is_up_after_its_last_move_and_said_once() -> None:
    chain = [move(10, "a", "n3"), move(20, "a", "n2", 3)]
    ups = [up(15, "a", "n3"), up(25, "a", "n2")]
    assert [each.seq for each in arrivals(chain, ups)] == [25]
    assert arrivals([*chain, ups[1]], ups) == []
