"""Drills through the real fault path, on both engines: one at a time, durable, and their faults tagged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from test_fault_path import DOWN, UP, Running, join, running, seen

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId, Owner
from homeostat.drills import store as drill_store
from homeostat.drills.leader.register import DrillRegister, KnownDrills, RegisterDependencies
from homeostat.drills.leader.runs import LAPSE_NS
from homeostat.drills.store import RunRow
from homeostat.faults.hosts import on_injected
from homeostat.faults.notice_bridge import load_pictures
from homeostat.faults.store import fault_table
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import Conflict, StoreUnavailable
from homeostat.kernel.journal import (
    EventIndex,
    Journal,
    Receipt,
    Seq,
    Submission,
    decode_event,
    stream_events,
)
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.model import NoticeFormat, NoticeTransition
from homeostat.server.replay import Replay
from store_parts import Store, until

ADMIN = Caller("admin", Role.ADMIN, "infrastructure")
BLUE = Caller("blue", Role.OPERATOR, "blue")


class Later(SystemClock):
    """The machine's clock, and what a test adds to it."""

    def __init__(self) -> None:
        self.added_ns = 0

    def mono_ns(self) -> int:
        return super().mono_ns() + self.added_ns


@dataclass
class Drilled:
    """A running fault path with a register."""

    path: Running
    known: KnownDrills
    register: DrillRegister
    clock: Later
    store: Store

    async def kinds(self) -> list[str]:
        events = await Journal(self.store.readers, catalogue()).read(Seq(0))
        return [each.kind for each in events if each.kind.startswith("Drill")]

    async def verified(self) -> str:
        """What is wrong with the tables of drills; the subscription of these tests has no event."""

        def look(connection: Connection) -> str:
            replay = Replay()
            wrong = [replay.take(decode_event(row, catalogue())) for row in stream_events(connection, 0)]
            assert not any(wrong)
            return "; ".join(each for each in replay.differences(connection) if each.startswith("drill"))

        return await self.store.readers.read(look)


def run(name: str = "r-1", **more: Any) -> RunRow:
    plain = RunRow(
        name, "service-down", "", "lab", (HostId("n1"),), (), 7, "infrastructure", "admin", 1, EventIndex(0)
    )
    return replace(plain, **more)


@asynccontextmanager
async def drilled(store: Store) -> AsyncIterator[Drilled]:
    clock = Later()
    known = KnownDrills(store.readers, clock)
    async with running(store, tags=known) as path:
        parts = RegisterDependencies(known, path.path.add, path.appender, store.readers, clock)
        yield Drilled(path, known, DrillRegister(parts), clock, store)


@pytest.mark.seed("order one drill at a time per cluster: the second is refused and told who has it")
async def test_one_drill_has_the_site_until_it_reports(store: Store) -> None:
    async with drilled(store) as here:
        await here.register.begin(run(), ADMIN)
        await here.register.begin(run(), ADMIN)  # its first answer may have been lost
        with pytest.raises(Conflict, match="run r-1, begun by admin has it"):
            await here.register.begin(run("r-2"), ADMIN)
        with pytest.raises(Conflict, match="another project's drill has it"):
            await here.register.begin(run("r-3", owner="blue", by="blue"), BLUE)
        await here.register.begin(run("r-4", site="other"), ADMIN)
        assert await here.register.renew("r-1") is None
        await here.register.finish(run(), "PASS", "{}")
        assert "lapsed" in (await here.register.renew("r-1") or "")
        with pytest.raises(Conflict, match="an id that no run had yet"):
            await here.register.begin(run(), ADMIN)
        await here.register.begin(run("r-2"), ADMIN)
        assert await here.kinds() == ["DrillBegan", "DrillBegan", "DrillEnded", "DrillBegan"]
        assert await here.verified() == ""


async def test_of_many_who_ask_at_once_one_gets_it(store: Store) -> None:
    async with drilled(store) as here:
        asked = [here.register.begin(run(f"r-{number}"), ADMIN) for number in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(answer is None for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 7
        assert len(store.rows(select(drill_store.claim_table))) == 1


async def test_a_second_server_cannot_write_a_second_claim(store: Store) -> None:
    """Whatever it believes: the database has one row a site."""
    async with drilled(store) as here:
        async with store.appending() as other:
            await here.register.begin(run(), ADMIN)
            with pytest.raises(Conflict):
                changes = drill_store.begun(run("r-2", began_seq=Seq(99)))
                await other.append(Submission("other", (), changes))
        assert [row.run for row in store.rows(select(drill_store.claim_table))] == ["r-1"]


async def test_a_claim_that_lapses_while_the_database_takes_its_time_is_not_renewed(store: Store) -> None:
    """Who asks may break something then: another drill may have the site a moment later."""
    async with drilled(store) as here:

        class Slow:
            async def append(self, submission: Submission) -> Receipt:
                here.clock.added_ns += LAPSE_NS
                return await here.path.appender.append(submission)

        await here.register.begin(run(), ADMIN)
        parts = RegisterDependencies(here.known, here.path.path.add, Slow(), store.readers, here.clock)
        assert "lapsed" in (await DrillRegister(parts).renew("r-1") or "")


@pytest.mark.seed("order a claim is durable: another server takes it over, and it lapses there")
async def test_a_claim_outlives_its_server_and_lapses_under_the_next(store: Store) -> None:
    async with drilled(store) as here:
        await here.register.begin(run(), ADMIN)
    async with drilled(store) as here:
        await until(lambda: here.known.claims.of("r-1") is not None)
        with pytest.raises(Conflict):
            await here.register.begin(run("r-2"), ADMIN)
        assert await here.register.renew("r-1") is None
        here.clock.added_ns = LAPSE_NS - 10**9
        assert await here.register.renew("r-1") is None
        here.clock.added_ns += LAPSE_NS
        assert "lapsed" in (await here.register.renew("r-1") or "")
        await here.register.begin(run("r-2"), ADMIN)
        await here.register.finish(run(), "ABORTED", "{}")  # it came too late to end anything
        assert await here.kinds() == ["DrillBegan", "DrillEnded", "DrillBegan", "DrillReported"]
        rows = store.rows(select(drill_store.run_table).order_by(drill_store.run_table.c.run))
        assert [(row.how, row.verdict) for row in rows] == [("lapsed", "ABORTED"), ("running", "")]
        assert await here.verified() == ""


async def test_the_lapse_of_a_dead_tool_is_written_down_without_anybody_asking(store: Store) -> None:
    async with drilled(store) as here:
        await here.register.begin(run(), ADMIN)
        here.clock.added_ns = LAPSE_NS
        task = asyncio.create_task(here.register.run())
        await until(lambda: here.known.claims.of("r-1") is None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await here.kinds())[-1] == "DrillEnded"


@pytest.mark.seed("order drill halt stops every running drill and refuses new ones until resume")
async def test_a_halt_is_heard_at_the_next_renewal_and_survives_the_server(store: Store) -> None:
    async with drilled(store) as here:
        await here.register.begin(run(), ADMIN)
        await here.register.halt(ADMIN, "smoke")
        assert await here.register.renew("r-1") == "halted by admin: smoke"
        await here.register.finish(run(), "ABORTED", "{}")
    async with drilled(store) as here:
        await until(lambda: here.known.claims.halt is not None)
        with pytest.raises(Conflict, match="halted by admin: smoke"):
            await here.register.begin(run("r-2"), ADMIN)
        with pytest.raises(Conflict) as refused:
            await here.register.begin(run("r-2", owner="blue", by="blue"), BLUE)
        assert "smoke" not in str(refused.value), "why is not every project's business"
        kept = await here.register.halt(BLUE, "to resume it myself")
        assert (kept.by, here.known.claims.halt) == ("admin", kept)
        await here.register.halt(ADMIN, "more smoke")
        assert await here.verified() == ""
        await here.register.resume(ADMIN)
        await here.register.resume(ADMIN)
        await here.register.begin(run("r-2"), ADMIN)
        assert (await here.kinds())[2:] == ["DrillEnded", "DrillsHalted", "DrillsResumed", "DrillBegan"]
        assert await here.verified() == ""


@pytest.mark.seed("order drills are tagged faults: in the notice, the same after a restart")
async def test_a_fault_of_a_drill_says_so_in_its_notice_for_ever(store: Store) -> None:
    async with drilled(store) as here:
        await join(here.path, "n1", "n2")
        here.path.see("n1", seen("before", 1, DOWN))
        await until(lambda: here.path.told() == ["raised f"])
        await here.register.begin(run(), ADMIN)
        here.path.see("n1", seen("web", 2, DOWN))
        here.path.see("n2", seen("far", 1, DOWN))
        await until(lambda: len(here.path.told()) == 3)
        await here.register.finish(run(), "PASS", "{}")
        here.path.see("n1", seen("web", 3, UP), seen("after", 4, DOWN))
        await until(lambda: len(here.path.told()) == 5)
        told = {each.about.partition("/")[2]: each for each in here.path.offers.pictures.values()}
        assert {name: each.drill for name, each in told.items()} == {
            "before": "", "web": "r-1", "far": "", "after": "",
        }  # fmt: skip
        frame = RenderContext("s", "s", Owner("blue"), 10**6)
        bodies = {
            shape: [render(shape, frame, told[name], NoticeTransition.RAISED) for name in ("web", "far")]
            for shape in NoticeFormat
        }
    for shape in (NoticeFormat.JSON, NoticeFormat.ALERTMANAGER):
        assert [b'"drill":"r-1"' in body for body in bodies[shape]] == [True, False]
    assert not any(b"drill" in body or b"r-1" in body for body in bodies[NoticeFormat.DOCTOR])
    known = KnownDrills(store.readers, SystemClock())  # another server, later
    await known.reload()
    again = await load_pictures(store.readers, known, [told["web"].id, told["far"].id])
    for shape, (web, far) in bodies.items():
        assert render(shape, frame, again[told["web"].id], NoticeTransition.RAISED) == web
        assert render(shape, frame, again[told["far"].id], NoticeTransition.RAISED) == far


async def test_faults_of_the_entry_in_which_a_drill_begins_or_ends_are_tagged_as_after_a_restart(
    store: Store,
) -> None:
    """Whatever comes in together, memory and tables say the same."""
    async with drilled(store) as here:
        await join(here.path, "n1")
        async with _busy(here):
            beginning = asyncio.create_task(here.register.begin(run(), ADMIN))
            await until(lambda: not here.path.path.hearing.inbox.empty())
            here.path.see("n1", seen("web", 1, DOWN))  # behind it in the queue, before it in the entry
        await beginning
        await until(lambda: here.path.told() == ["raised f"])
        async with _busy(here):
            ending = asyncio.create_task(here.register.finish(run(), "PASS", "{}"))
            await until(lambda: not here.path.path.hearing.inbox.empty())
            here.path.see("n1", seen("db", 2, DOWN))
        await ending
        await until(lambda: here.path.told() == ["raised f", "raised f"])
        told = {each.about: each.drill for each in here.path.offers.pictures.values()}
    assert told == {"resource/web": "", "resource/db": "r-1"}
    known = KnownDrills(store.readers, SystemClock())
    await known.reload()
    rows = store.rows(select(fault_table))
    stored = {row.about: known.run_of(row.about, row.host, row.owner, Seq(row.raised_seq)) for row in rows}
    assert stored == told


async def test_a_beginning_whose_answer_was_lost_is_known_all_the_same(store: Store) -> None:
    async with drilled(store) as here:
        await join(here.path, "n1")
        append = here.path.path._parts.appender.append

        async def unanswered(submission: Submission) -> Receipt:
            await append(submission)
            here.path.path._parts.appender.append = append  # type: ignore[method-assign]
            raise StoreUnavailable("the connection broke")

        here.path.path._parts.appender.append = unanswered  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await here.register.begin(run(), ADMIN)
        await until(lambda: here.known.claims.of("r-1") is not None)
        await here.register.begin(run(), ADMIN)
        here.path.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.path.told() == ["raised f"])
        assert [each.drill for each in here.path.offers.pictures.values()] == ["r-1"]


async def test_verify_finds_what_no_event_says(store: Store) -> None:
    async with drilled(store) as here:
        await here.register.begin(run(), ADMIN)
        await here.register.finish(run(), "PASS", "{}")
        with store.engine.begin() as connection:
            connection.execute(update(drill_store.run_table).values(verdict="FAIL"))
        assert "verdict is 'FAIL' in the table and 'PASS' by the events" in await here.verified()


@asynccontextmanager
async def _busy(here: Drilled) -> AsyncIterator[None]:
    """The path is within a commit; what comes in meanwhile is one entry."""
    parts, entered, go_on = here.path.path._parts, asyncio.Event(), asyncio.Event()
    append = parts.appender.append

    async def held(submission: Submission) -> Receipt:
        entered.set()
        await go_on.wait()
        return await append(submission)

    def note(_: IngestState, now: Moment) -> Decision:
        return on_injected(HostId("n1"), ("x", now.wall_ns, "test"), now)

    parts.appender.append = held  # type: ignore[method-assign]
    blocker = asyncio.create_task(here.path.path.record(note))
    await asyncio.wait_for(entered.wait(), 60)
    try:
        yield
    finally:
        parts.appender.append = append  # type: ignore[method-assign]
        go_on.set()
        await blocker
