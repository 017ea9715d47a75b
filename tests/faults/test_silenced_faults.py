"""Silences on the real fault path and a real store, on both engines."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select
from test_fault_path import DOWN, UP, Running, enrol, enrolment, join, listener, running, seen

from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.kernel.database import journal as journal_table
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.journal import Submission
from homeostat.notices.model import Silence
from homeostat.notices.store import end_silence, insert_silence, kept_back, outbox
from store_parts import Store, until

HOUR_NS = 3600 * 10**9


async def silence(here: Running, name: str = "s-1", last_ns: int = HOUR_NS, **scope: str) -> None:
    now_ns = time.time_ns()
    row = Silence(name, INFRASTRUCTURE, "new memory", "admin", now_ns, now_ns, now_ns + last_ns, **scope)
    await here.appender.append(Submission("test", changes=(insert_silence(row),)))
    await here.silences.reload()


async def end(here: Running, name: str = "s-1") -> None:
    await here.appender.append(Submission("test", changes=(end_silence(name, time.time_ns(), "admin"),)))
    await here.silences.reload()


def state(store: Store) -> list[tuple[str, str]]:
    return [
        (row.state, row.reason)
        for row in store.rows(select(outbox.c.state, outbox.c.reason).order_by(outbox.c.queued_seq))
    ]


def kinds(store: Store) -> list[str]:
    return [row.kind for row in store.rows(select(journal_table.c.kind).order_by(journal_table.c.seq))]


@pytest.mark.seed("order silences that follow topology: what runs on the host, told once when it is over")
async def test_what_runs_there_is_not_told_until_the_silence_is_over(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        assert here.told() == []
        assert state(store) == [("silenced", "s-1: new memory")]
        assert kinds(store)[-2:] == ["FaultRaised", "NoticeSilenced"]
        await end(here)
        await until(lambda: here.told() == ["raised f"])
        assert kinds(store)[-2:] == ["NoticeUnsilenced", "NoticeQueued"]
        here.see("n1", seen("web", 2, UP))
        await until(lambda: here.told() == ["raised f", "cleared f"])
        assert [each for each, _ in state(store)] == ["pending", "pending"]
        with store.reading.connect() as connection:
            assert kept_back(connection, ["s-1"]) == {"s-1": 1}, "it is counted when the silence is over, too"


async def test_another_host_is_told(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1", "n2")
        await silence(here, host="n1")
        here.see("n2", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])


async def test_what_cleared_within_the_silence_is_never_told(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        here.see("n1", seen("web", 2, UP))
        await until(lambda: "FaultCleared" in kinds(store))
        await end(here)
        here.see("n1", seen("db", 3, DOWN))  # told later than what could have been told of `web`
        await until(lambda: len(here.told()) == 1)
        assert here.offers.offered[0].transition == "raised"
        assert state(store)[0] == ("silenced", "s-1: new memory")
        assert len(state(store)) == 2


async def test_who_heard_it_raised_hears_it_cleared_in_a_silence(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])
        await silence(here, host="n1")
        here.see("n1", seen("web", 2, UP))
        await until(lambda: here.told() == ["raised f", "cleared f"])


async def test_a_silence_that_runs_out_ends_by_itself(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1", last_ns=500_000_000)
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        assert here.told() == []
        await until(lambda: here.told() == ["raised f"])


async def test_while_another_silence_covers_it_nothing_is_told(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, "s-1", host="n1")
        await silence(here, "s-2", kind="resource_down")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        await end(here, "s-1")
        here.see("n1", seen("web", 2, DOWN))
        await until(lambda: here.acknowledged("n1") == 2)
        assert here.told() == []
        await end(here, "s-2")
        await until(lambda: here.told() == ["raised f"])


async def test_a_start_knows_the_silences_before_it_tells_and_who_was_spared(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
    async with running(store) as again:
        again.see("n1", seen("web", 1, DOWN), seen("db", 2, DOWN))
        await until(lambda: again.acknowledged("n1") == 1)
        assert again.told() == []
        assert [each for each, _ in state(store)] == ["silenced", "silenced"]
        await end(again)
        await until(lambda: again.told() == ["raised f", "raised f"])
        assert len({each.key for each in again.offers.offered}) == 2


async def test_a_failed_commit_of_what_is_owed_loses_nothing(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        here.path._parts.appender._errors.append(StoreUnavailable("gone"))  # type: ignore[attr-defined]
        await end(here)
        await until(lambda: here.told() == ["raised f"])
        assert kinds(store).count("NoticeUnsilenced") == 1


async def test_whoever_reads_the_tables_again_reads_the_silences_too(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        unanswered = end_silence("s-1", time.time_ns(), "admin")
        await here.appender.append(Submission("test", changes=(unanswered,)))
        here.path._parts.appender._errors.append(StoreUnavailable("gone"))  # type: ignore[attr-defined]
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.bus.answers("to.n1.resync") >= 1)
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])


async def test_who_subscribes_within_a_silence_is_told_with_the_others_when_it_ends(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        await silence(here, host="n1")
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        await enrol(here, enrolment(listener("late")))
        await enrol(here, enrolment(listener("late", key_id="k2"), is_new=False))
        assert here.told() == []
        assert [each for each, _ in state(store)] == ["silenced", "silenced"]
        await end(here)
        await until(lambda: here.told() == ["raised f", "raised f"])
        assert {each.subscription for each in here.offers.offered} == {"s", "late"}
