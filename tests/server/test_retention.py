"""What is old goes, what is open or young stays, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from homeostat.components import catalogue
from homeostat.contracts.events.fleet import AgentReturned, JournalPruned
from homeostat.contracts.nouns import HostId
from homeostat.drills.store import run_table
from homeostat.faults.store import fault_table
from homeostat.fleet.claims import claim_table
from homeostat.fleet.store import action_table
from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Journal, NewEvent, Receipt, Seq, Submission
from homeostat.notices.store import outbox, silence_table
from homeostat.server.retention import Retention
from homeostat.server.settings import RetentionSettings
from store_parts import Store

DAY_NS = 86_400 * 10**9
NOW_NS = SystemClock().wall_ns()
OLD_NS, YOUNG_NS = NOW_NS - 100 * DAY_NS, NOW_NS - DAY_NS
QUICK = RetentionSettings(batch=7, pause_s=0.0)


def event(number: int, at_ns: int) -> dict[str, Any]:
    return {
        "seq": number, "kind": "AgentReturned", "version": 1, "subject": "node/n1", "cause": None,
        "trace": "t",
        "at_ns": at_ns, "origin": "test", "loop": "test", "payload": '{"host":"n1","incarnation":"i"}',
    }  # fmt: skip


def fault(number: int, state: str, cleared_ns: int | None) -> dict[str, Any]:
    return {
        "id": f"f-{number}", "kind": "resource_down", "severity": "major", "about": "resource/r",
        "owner": "p", "reason": "", "state": state, "raised_seq": number, "trace": "t", "raised_ns": OLD_NS,
        "cleared_ns": cleared_ns, "cleared_reason": "", "affected": "{}",
    }  # fmt: skip


def notice(number: int, state: str, about: str = "f-0") -> dict[str, Any]:
    return {
        "key": f"k-{number}", "subscription": "s", "owner": "p", "fault": about, "transition": "raised",
        "queued_seq": number, "queued_ns": OLD_NS, "trace": "t", "state": state, "attempts": 1, "next_ns": 0,
        "reason": "",
    }  # fmt: skip


def act(number: int, outcome: str | None) -> dict[str, Any]:
    return {
        "id": f"a-{number}", "verb": "restart", "about": "resource/r", "owner_of_act": "n1",
        "deadline_s": 1.0,
        "intended_seq": number, "intended_ns": OLD_NS, "trace": "t", "outcome": outcome,
    }  # fmt: skip


def claim(number: int, outcome: str) -> dict[str, Any]:
    return {
        "id": f"c-{number}", "work": "toys", "item": f"i-{number}", "host": "n1", "request": f"r-{number}",
        "arguments": "{}", "epoch": 1, "deadline_s": 1.0, "given_seq": number, "given_ns": OLD_NS,
        "open_item": None if outcome else f"toys i-{number}", "outcome": outcome, "ended_ns": None,
    }  # fmt: skip


def drill(number: int, ended: int | None) -> dict[str, Any]:
    return {
        "run": f"r-{number}", "drill": "d", "suite": "", "site": f"s-{number}", "hosts": "[]",
        "resources": "[]", "seed": 0, "owner": "p", "by": "p", "began_seq": number, "began_ns": OLD_NS,
        "ended_seq": ended, "how": "running" if ended is None else "reported", "verdict": "",
    }  # fmt: skip


def fill(store: Store, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    with store.engine.begin() as connection:
        connection.execute(insert(table), list(rows))


class Watched:
    """The real appender; notes how many rows each commit of retention takes."""

    def __init__(self, appender: Appender) -> None:
        self._appender, self.sizes = appender, list[int]()

    @property
    def waiting(self) -> int:
        return self._appender.waiting

    async def append(self, submission: Submission) -> Receipt:
        self.sizes += [len(change.values) for change in submission.changes]
        return await self._appender.append(submission)


async def prune(store: Store, settings: RetentionSettings = QUICK) -> tuple[dict[str, int], list[int]]:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    try:
        watched = Watched(appender)
        counts = await Retention(watched, store.readers, SystemClock(), settings).prune()
        return counts, watched.sizes
    finally:
        await appender.close()


@pytest.mark.seed("order retention: history older than the setting goes, in bounded batches")
async def test_what_is_old_and_over_goes_in_small_batches(store: Store) -> None:
    fill(store, database.journal, [event(n, OLD_NS) for n in range(1, 41)])
    fill(store, database.journal, [event(n, YOUNG_NS) for n in range(41, 51)])
    fill(store, fault_table, [fault(1, "cleared", OLD_NS), fault(45, "cleared", YOUNG_NS)])
    fill(store, outbox, [notice(n, "delivered") for n in range(2, 22)] + [notice(46, "given_up")])
    fill(store, action_table, [act(3, "ok"), act(47, "failed")])
    fill(store, run_table, [drill(4, 30), drill(5, 45), drill(6, None)])
    fill(store, claim_table, [claim(7, "done"), claim(8, "expired"), claim(48, "done")])
    counts, sizes = await prune(store)
    rows = {"notices": 20, "acts": 1, "claims": 2, "faults": 1, "drills": 1, "silences": 0}
    of_leases = dict.fromkeys(("allocations", "reservations", "moments of leases", "leases"), 0)
    assert counts == {**rows, **of_leases, "events": 40}
    assert max(sizes) == 7
    assert store.seqs() == list(range(41, 52))
    assert [row.id for row in store.rows(select(fault_table))] == ["f-45"]
    assert [row.key for row in store.rows(select(outbox))] == ["k-46"]
    assert [row.id for row in store.rows(select(action_table))] == ["a-47"]
    assert [row.id for row in store.rows(select(claim_table))] == ["c-48"]
    assert sorted(row.run for row in store.rows(select(run_table))) == ["r-5", "r-6"]
    (told,) = await Journal(store.readers, catalogue()).read(Seq(50))
    assert told.event == JournalPruned(through=40)
    assert (await prune(store)) == (dict.fromkeys(counts, 0), [])


@pytest.mark.seed("order retention: pruned only below every cursor and open item")
@pytest.mark.parametrize(
    ("table", "row", "first"),
    [
        (fault_table, fault(20, "open", None), 20),
        (fault_table, fault(20, "clearing", None), 20),
        (fault_table, fault(20, "cleared", YOUNG_NS), 20),
        (outbox, notice(20, "pending"), 20),
        (action_table, act(20, None), 20),
        (claim_table, claim(20, ""), 20),
        (database.cursor, {"loop": "slow", "seq": 19}, 20),
        (database.journal, event(41, YOUNG_NS), 41),
    ],
)
async def test_nothing_goes_that_is_open_or_lies_behind_it(
    store: Store, table: Any, row: dict[str, Any], first: int
) -> None:
    fill(store, database.journal, [event(n, OLD_NS) for n in range(1, 41)])
    fill(store, outbox, [notice(n, "delivered") for n in (5, 19, 30)])
    fill(store, table, [row])
    await prune(store)
    assert store.seqs()[0] == first
    kept = [each.queued_seq for each in store.rows(select(outbox).order_by(outbox.c.queued_seq))]
    assert [number for number in kept if number < first] == []
    if first == 20:
        assert 30 in kept
    if table is not database.journal:
        assert store.rows(select(func.count()).select_from(table))[0][0] >= 1


async def test_the_fault_of_a_notice_that_waits_stays(store: Store) -> None:
    fill(store, database.journal, [event(n, OLD_NS) for n in range(1, 41)])
    fill(store, fault_table, [fault(10, "cleared", OLD_NS)])
    fill(store, outbox, [notice(30, "pending", about="f-10")])
    await prune(store)
    assert store.seqs()[0] == 10
    with store.engine.begin() as connection:
        connection.execute(update(outbox).values(state="given_up"))
    await prune(store)
    assert store.rows(select(fault_table)) == []


async def test_the_last_event_stays_so_that_numbers_go_on(store: Store) -> None:
    fill(store, database.journal, [event(n, OLD_NS) for n in range(1, 41)])
    await prune(store)
    assert store.seqs() == [40, 41]


async def test_an_event_from_the_future_keeps_nothing_alive(store: Store) -> None:
    fill(store, database.journal, [event(1, NOW_NS + 1000 * DAY_NS)])
    fill(store, database.journal, [event(n, OLD_NS) for n in range(2, 41)])
    await prune(store)
    assert store.seqs() == [40, 41]


async def test_writers_are_not_kept_waiting_for_more_than_a_batch(store: Store) -> None:
    fill(store, database.journal, [event(n, OLD_NS) for n in range(1, 401)])
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    sizes: list[int] = []
    appender.on_commit(lambda _waited_s, _took_s, count: sizes.append(count))
    appender.start()
    try:
        pruning = asyncio.create_task(
            Retention(appender, store.readers, SystemClock(), QUICK).prune(), name="prune"
        )
        for number in range(20):
            draft = NewEvent(AgentReturned(HostId("n1"), str(number)), "node/n1", NOW_NS, "test", "t")
            await appender.append(Submission("test", (draft,)))
        between = len(sizes)
        counts = await pruning
    finally:
        await appender.close()
    assert between < 400 // QUICK.batch, "writers came in between the batches, not after them"
    assert counts["events"] >= 399
    assert store.events() <= 22


async def test_silences_go_when_they_ended_long_ago(store: Store) -> None:
    def silence(number: int, ends_ns: int) -> dict[str, Any]:
        texts = dict.fromkeys(("zone", "resource", "kind", "owner", "ended_by"), "")
        return {
            "id": f"s-{number}", "project": "p", "reason": "r", "by": "a", "created_ns": OLD_NS - DAY_NS,
            "begins_ns": OLD_NS - DAY_NS, "ends_ns": ends_ns, "host": "n1", **texts,
        }  # fmt: skip

    ends_ns = [OLD_NS] * 10 + [YOUNG_NS, NOW_NS + DAY_NS]
    fill(store, silence_table, [silence(number, at_ns) for number, at_ns in enumerate(ends_ns)])
    counts, sizes = await prune(store)
    assert (counts["silences"], sizes) == (10, [7, 3])
    left = store.rows(select(silence_table.c.id).order_by(silence_table.c.ends_ns))
    assert [row.id for row in left] == ["s-10", "s-11"]
