"""Rows of operations on a cloud, what a ledger says is left in it, and calls that outlive who made them."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_run import MS, Played

from homeostat.drills.actions import CloudOperation
from homeostat.drills.clouds.connection import Calls
from homeostat.drills.model import Operations
from homeostat.drills.records.evidence import CloudLeftover, Ledger, read_leftovers
from homeostat.drills.records.facts import EffectSeen, OperationDone, OperationLeftOut
from homeostat.drills.running.cleanup import may_come_s
from homeostat.drills.running.operations import name_of
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import RowReason, VerdictRow
from homeostat.kernel.errors import RetryLater
from homeostat.monitors.verdicts import Verdict

VOLUME = CloudOperation("volume", "cloud", "create", "volume", optional=True)
IMAGE = CloudOperation("image", "cloud", "create", "image")
SECOND_NS = 1_000_000_000


def played(**phases: tuple[CloudOperation, ...]) -> Played:
    """A clean run whose drill has these operations and has done none of them yet."""
    run = Played().without(OperationDone)
    return replace(run, drill=replace(run.drill, operations=Operations(**phases)))


def row(run: Played, what: str) -> VerdictRow:
    """By the begin of its words."""
    return next(each for each in judge(run.evidence).rows if each.what.startswith(what))


@pytest.mark.seed("000 I10 zero operations are said and never passed silently")
def test_extensions_alone_are_no_operations() -> None:
    run = played(after=(VOLUME,)).also(
        6_200, OperationDone("volume", "after", 6_100 * MS, 6_150 * MS, False, "413 quota")
    )
    none = row(run, "0 operations after the fault")
    assert (none.why, none.binding) == (RowReason.NO_OPERATIONS, False)
    extension = row(run, "1 operation after the fault, as an extension")
    assert (extension.result, extension.binding) == (Verdict.FAIL, False)
    assert extension.detail == "volume: 413 quota"
    assert judge(run.evidence).verdict is Verdict.PASS


def test_what_the_cloud_lacks_is_left_out_with_its_reason() -> None:
    run = played(after=(VOLUME,)).also(6_200, OperationLeftOut("volume", "after", "no such service"))
    extension = row(run, "1 operation after the fault, as an extension")
    assert (extension.result, extension.why) == (Verdict.INCONCLUSIVE, RowReason.LEFT_OUT)
    assert extension.detail == "volume: no such service"


def test_the_set_up_has_a_row_that_does_not_decide() -> None:
    done = OperationDone("image", "before", 100 * MS, 200 * MS, True, "is 1")
    good = row(played(before=(IMAGE,)).also(300, done), "1 operation before the fault")
    assert (good.result, good.binding, good.detail) == (Verdict.PASS, False, "image")
    failed = played(before=(IMAGE,)).also(300, replace(done, ok=False, seen="403"))
    bad = row(failed, "1 operation before the fault")
    assert (bad.result, bad.why, bad.detail) == (Verdict.ERROR, RowReason.OPERATIONS_NOT_RUN, "image: 403")


@pytest.mark.seed("000 R7.4 the flavor is made while the disk is busy, before the writes end")
@pytest.mark.parametrize(
    ("began_ms", "ended_ms", "ok", "verdict", "why"),
    [
        (3_100, 3_900, True, Verdict.PASS, RowReason.OPERATIONS_DONE),
        (3_100, 3_900, False, Verdict.FAIL, RowReason.OPERATION_FAILED),
        (3_005, 3_900, True, Verdict.ERROR, RowReason.OPERATED_TOO_EARLY),
        (3_100, 4_001, True, Verdict.ERROR, RowReason.OPERATED_TOO_LATE),
        (4_100, 4_200, True, Verdict.ERROR, RowReason.OPERATED_TOO_LATE),
        (4_100, 4_200, False, Verdict.FAIL, RowReason.OPERATION_FAILED),
    ],
)
def test_what_is_done_while_the_fault_is_held_binds(
    began_ms: int, ended_ms: int, ok: bool, verdict: Verdict, why: RowReason
) -> None:
    """The effect was proven at 3010, the fault undone at 4000. What is done after that is as it should be."""
    after = OperationDone("delete", "after", 6_100 * MS, 6_150 * MS, True, "accepted")
    done = OperationDone("image", "while_held", began_ms * MS, ended_ms * MS, ok, "403")
    # The effect is looked at once more at the end of the hold, which is no earlier moment.
    run = played(while_held=(IMAGE,), after=(replace(IMAGE, id="delete", does="delete"),))
    run = run.also(3_950, EffectSeen(True, "still")).also(6_200, after).also(ended_ms, done)
    found = row(run, "1 operation while the fault is held")
    assert (found.result, found.why, found.binding) == (verdict, why, True)
    assert judge(run.evidence).verdict is verdict


def test_what_was_not_done_while_the_fault_was_held_is_no_proof() -> None:
    run = played(while_held=(IMAGE,))
    assert row(run, "1 operation while").why is RowReason.OPERATIONS_NOT_RUN
    assert judge(run.evidence).verdict is Verdict.ERROR


def test_an_operation_of_another_sequence_is_no_part_of_this_one() -> None:
    done = OperationDone("image", "after", 6_100 * MS, 6_150 * MS, True, "is 1")
    run = played(before=(IMAGE,), after=(replace(IMAGE, id="other"),)).also(6_200, done)
    assert row(run, "1 operation after the fault").why is RowReason.OPERATIONS_OUT_OF_ORDER


@pytest.mark.seed("000 I19 names are of the run")
def test_names_are_of_the_run_and_of_the_round() -> None:
    assert name_of("r-1", "server") == "homeostat-r-1-server"
    assert name_of("r-1", "server", 3) == "homeostat-r-1-server-d3"


@pytest.mark.seed("000 I20 what is made is in the undo stack before it exists, and deleted")
def test_a_ledger_says_what_is_left_the_newest_first(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.creating("c", "image", "i", 10.0)
        ledger.answered("image", "i")
        ledger.creating("c", "network", "n", 10.0)
        ledger.answered("network", "n")
        ledger.gone("network", "n")
        ledger.creating("c", "server", "s", 10.0)
    server, image = read_leftovers(tmp_path).in_cloud
    assert image == CloudLeftover("c", "image", "i", None)
    assert (server.name, server.until_ns is not None) == ("s", True)


def test_a_ledger_that_was_cut_in_a_line_goes_on(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.creating("c", "image", "i", 10.0)
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "creat')
    with Ledger(tmp_path) as ledger:
        ledger.gone("image", "i")
    assert read_leftovers(tmp_path).in_cloud == ()
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["creating", "gone"]


@given(st.integers(-(10**12), 10**12), st.floats(0, 600))
def test_nobody_waits_longer_than_a_thing_takes_to_come(ahead_ns: int, comes_s: float) -> None:
    waits = may_come_s(SECOND_NS * 10**6 + ahead_ns, SECOND_NS * 10**6, comes_s)
    assert 0 <= waits <= comes_s
    assert may_come_s(None, 0, comes_s) == 0
    if ahead_ns >= 0:
        assert waits == comes_s, "the request may be sent at this very moment"
    if ahead_ns <= -comes_s * SECOND_NS:
        assert waits == 0


async def test_a_call_that_hangs_is_given_up_and_waited_for_later() -> None:
    calls, goes_on = Calls(), threading.Event()
    with pytest.raises(RetryLater, match=r"no answer within 0\.01 s"):
        await calls.call(lambda _: goes_on.wait(60), 0.01)
    assert not await calls.ended(0.0)
    goes_on.set()
    assert await calls.ended(10.0)


async def test_a_cancelled_call_goes_on_unheard() -> None:
    calls, began, goes_on = Calls(), threading.Event(), threading.Event()

    def act(_: float) -> None:
        began.set()
        goes_on.wait(60)
        raise ValueError("nobody hears of it")

    task = asyncio.create_task(calls.call(act, 60.0))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await calls.ended(0.0)
    goes_on.set()
    assert await calls.ended(10.0)


async def test_what_a_call_raises_is_raised_and_without_time_nothing_is_called() -> None:
    calls = Calls()

    def fails(within_s: float) -> None:
        raise RetryLater(f"told {within_s:g} s")

    with pytest.raises(RetryLater, match="told 5 s"):
        await calls.call(fails, 5.0)
    with pytest.raises(RetryLater, match="no time"):
        await calls.call(fails, 0.0)
