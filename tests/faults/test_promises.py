"""What is promised of outages is kept only where each of them was measured."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from homeostat.contracts.nouns import Owner, SetPointState
from homeostat.faults.panels import measure, set_points
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_table
from store_parts import Store

NOW_NS = 10**18
SECOND = 10**9
ROW = {
    "kind": "resource_down", "severity": "major", "about": "resource/a", "owner": "blue", "reason": "",
    "state": "cleared", "raised_seq": 1, "trace": "t", "raised_ns": NOW_NS - 20 * SECOND,
    "cleared_ns": NOW_NS - SECOND, "cleared_reason": "", "outage_ms": 300.0, "affected": "{}",
}  # fmt: skip
HOST = {
    "kind": "host_down", "owner": "infrastructure", "about": "node/n1", "outage_ms": None,
    "affected": '{"guest":{"blue":["a"]}}',
}  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "rows", "standing", "said"),
    [
        ("blue", [], SetPointState.UNKNOWN, "nothing died"),
        ("blue", [{}], SetPointState.KEPT, "longest of the last hour"),
        (
            "blue",
            [{}, {"outage_ms": None}],
            SetPointState.UNKNOWN,
            "1 in the last hour of which nobody saw both",
        ),
        (
            "blue",
            [{"outage_ms": None, "cleared_ns": NOW_NS - 4000 * SECOND}],
            SetPointState.UNKNOWN,
            "nothing died",
        ),
        ("blue", [{"outage_ms": 9000.0}, {"outage_ms": None}], SetPointState.BROKEN, "1 in the last hour"),
        (
            "blue",
            [{}, {"outage_ms": None, "outage_lower_ms": 60_000.0}],
            SetPointState.BROKEN,
            "at least 60.0 s",
        ),
        ("blue", [{"outage_ms": None, "outage_lower_ms": 300.0}], SetPointState.UNKNOWN, "nobody saw both"),
        (
            "blue",
            [{"outage_ms": None, "outage_lower_ms": 60_000.0, "cleared_ns": NOW_NS - 4000 * SECOND}],
            SetPointState.UNKNOWN,
            "nothing died",
        ),
        ("blue", [HOST], SetPointState.UNKNOWN, "whole hosts among them"),
        ("green", [HOST], SetPointState.UNKNOWN, "nothing died"),
        (None, [HOST], SetPointState.UNKNOWN, "whole hosts among them"),
        (None, [HOST | {"affected": "{}"}], SetPointState.UNKNOWN, "nothing died"),
    ],
)
def test_an_outage_of_unknown_length_is_never_a_kept_promise(
    store: Store, owner: str | None, rows: list[dict[str, object]], standing: SetPointState, said: str
) -> None:
    with store.engine.begin() as connection:
        for number, row in enumerate(rows):
            connection.execute(insert(fault_table), [ROW | row | {"id": f"f-{number}"}])
        found = measure(connection, NOW_NS, None if owner is None else Owner(owner))
    first = set_points(found, FaultsSettings())[0]
    assert first.standing is standing
    assert said in first.detail
