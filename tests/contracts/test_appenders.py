"""The appender's contract, on the real one and on the simulator's: what a loop may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from random import Random

import pytest
from sqlalchemy import insert

from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import AlreadyDone, BadInput, Conflict, Deposed, StoreUnavailable
from homeostat.kernel.journal import EventIndex, JournalAppender, Receipt, RowChange, Seq, Submission
from homeostat.kernel.leadership import acquire_term
from homeostat.sim.database import CommitHooks, SimAppender, SimDatabase
from store_parts import CATALOGUE, draft, seen

TOKEN = {"name": "a", "hash": "h", "role": "viewer", "owner": "p", "created_ns": 1}


@pytest.fixture
def disk() -> Iterator[SimDatabase]:
    """A database in memory."""
    with closing(SimDatabase.in_memory()) as made:
        yield made


class Bench:
    """One kind of appender on one database."""

    def __init__(self, kind: str, disk: SimDatabase) -> None:
        self.kind, self.disk = kind, disk

    @asynccontextmanager
    async def appending(self, epoch: int | None = None) -> AsyncIterator[JournalAppender]:
        """A running appender, closed in the end."""
        if self.kind == "simulated":
            simulated = SimAppender(self.disk, epoch, CommitHooks(Random(1)), CATALOGUE)
            yield simulated
            simulated.die()
            return
        real = Appender(
            self.disk.engine, CATALOGUE, epoch=epoch, settings=AppenderSettings(), clock=SystemClock()
        )
        real.start()
        yield real
        await real.close()

    def subjects(self) -> list[object]:
        """What is in the journal."""
        return [row[0] for row in self.disk.ask("SELECT subject FROM journal ORDER BY seq")]


@pytest.fixture(params=["real", "simulated"])
def bench(request: pytest.FixtureRequest, disk: SimDatabase) -> Bench:
    """Once with each appender."""
    return Bench(request.param, disk)


def token(**fields: object) -> RowChange:
    return RowChange(insert(database.token), ({**TOKEN, **fields},))


async def test_receipts_come_in_the_order_of_the_submissions_without_a_gap(bench: Bench) -> None:
    async with bench.appending() as appender:
        receipts = await asyncio.gather(*(appender.append(seen(f"s/{number}")) for number in range(40)))
    assert [each.seqs for each in receipts] == [(number,) for number in range(1, 41)]
    assert bench.subjects() == [f"s/{number}" for number in range(40)]


async def test_a_bad_submission_fails_alone(bench: Bench) -> None:
    async with bench.appending() as appender:
        bad = Submission("bad", (draft("bad"),), (token(), token()))
        answers = await asyncio.gather(
            appender.append(seen("a")),
            appender.append(bad),
            appender.append(seen("b")),
            return_exceptions=True,
        )
        with pytest.raises(BadInput):
            await appender.append(Submission("l", (draft("a", cause=EventIndex(0)),)))
    assert isinstance(answers[1], Conflict)
    assert bench.subjects() == ["a", "b"]
    assert bench.disk.number("SELECT count(*) FROM token") == 0


async def test_a_rerun_is_told_so_and_changes_nothing(bench: Bench) -> None:
    async with bench.appending() as appender:
        await appender.append(seen("root"))
        once = Submission("loop", (draft("a", cause=Seq(1), key="k"),), (token(),), Seq(1))
        assert await appender.append(once) == Receipt((Seq(2),))
        with pytest.raises(AlreadyDone):
            await appender.append(
                Submission("loop", (draft("b", cause=Seq(1), key="k"),), (token(name="b", hash="b"),), Seq(9))
            )
        again = await appender.append(Submission("loop", (draft("a", cause=Seq(1), key="k2"),)))
        assert again == Receipt((Seq(3),)), "the same cause, kind and subject with another key"
    assert bench.disk.number("SELECT count(*) FROM token") == 1
    assert bench.disk.number("SELECT seq FROM cursor") == 1


async def test_after_a_takeover_nothing_of_the_old_server_gets_in(bench: Bench) -> None:
    epoch = acquire_term(bench.disk.engine, "old", 60)
    async with bench.appending(epoch) as appender:
        await appender.append(seen("a"))
        acquire_term(bench.disk.engine, "new", 60, predecessor_is_dead=True)
        for subject in ("late", "later"):
            with pytest.raises(Deposed):
                await appender.append(seen(subject))
    assert bench.subjects() == ["a"]


async def test_a_closed_appender_says_so(bench: Bench) -> None:
    async with bench.appending() as appender:
        await appender.append(seen("a"))
    with pytest.raises(StoreUnavailable):
        await appender.append(seen("late"))
    assert bench.subjects() == ["a"]
