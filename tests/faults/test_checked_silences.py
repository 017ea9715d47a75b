"""The checkers of `homeostat check` against what silences and streams leave behind on a real fault path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_fault_path import DOWN, UP, enrol, enrolment, join, listener, running, seen
from test_silenced_faults import end, kinds, silence, state

from homeostat.sim.checkers.evidence import CheckerEvidence, read_database
from homeostat.sim.checkers.faults import check_faults_notified, check_notified_once
from store_parts import Store, until


def found(store: Store) -> list[str]:
    evidence = CheckerEvidence(read_database(store.reading))
    return [str(each) for check in (check_faults_notified, check_notified_once) for each in check(evidence)]


@pytest.mark.parametrize("is_ended", [False, True])
async def test_a_fault_that_clears_in_a_silence_is_no_violation(store: Store, is_ended: bool) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: "FaultRaised" in kinds(store))
        here.see("n1", seen("web", 2, UP))
        await until(lambda: "FaultCleared" in kinds(store))
        if is_ended:
            await end(here)
    assert state(store) == [("silenced", "s-1: new memory")]
    assert found(store) == []


@pytest.mark.parametrize("is_silenced", [False, True])
async def test_a_stream_that_begins_while_a_fault_is_open_is_no_violation(
    store: Store, is_silenced: bool
) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: "FaultRaised" in kinds(store))
        if is_silenced:
            await silence(here, host="n1")
        row = listener("reads")
        row = replace(row, endpoints=tuple(replace(each, url="") for each in row.endpoints))
        await enrol(here, enrolment(row))
        here.see("n1", seen("web", 2, UP))
        await until(lambda: "FaultCleared" in kinds(store))
    assert found(store) == []
