"""`homeostat explain RESOURCE`: the newest chain of a resource, on both engines."""

from __future__ import annotations

from sqlalchemy import select
from test_fault_path import DOWN, join, running, seen
from test_silenced_faults import kinds

from homeostat.faults.api import _locate
from homeostat.faults.store import fault_table
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
