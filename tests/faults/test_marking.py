"""A dead host at its cloud: marked at once, its guests after it, taken back when it is back, never twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import select
from test_fault_path import UP, Running, join, running, seen

from homeostat.contracts.nouns import HostId, Mark, ResourceId
from homeostat.contracts.wire import Heartbeat, digest
from homeostat.faults.hosts import on_host_down
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.gate import GateReason, GateRefusal
from homeostat.fleet.store import node_table
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision
from homeostat.kernel import database
from homeostat.kernel.clock import SystemClock
from homeostat.ports import CloudView, MarkResult
from homeostat.recovery.acts import MARKING, MarkAct, on_mark_intended, on_marked
from homeostat.recovery.cloud_marks import CloudMarker, CloudMarkerDependencies
from simulated_cloud import SimCloud
from store_parts import Store, until

N1 = HostId("n1")


class ShownCloud(SimCloud):
    """A cloud whose driver writes its marks into our rows, as every driver does."""

    here: Running

    async def mark_down(self, host: str) -> MarkResult:
        return await self._shown(host, Mark.MARK_DOWN, await super().mark_down(host))

    async def set_error(self, host: str) -> MarkResult:
        return await self._shown(host, Mark.SET_ERROR, await super().set_error(host))

    async def mark_up(self, host: str) -> MarkResult:
        return await self._shown(host, Mark.MARK_UP, await super().mark_up(host))

    async def clear_error(self, host: str, seen: object) -> MarkResult:
        return await self._shown(host, Mark.CLEAR_ERROR, await super().clear_error(host, list(seen)))  # type: ignore[call-overload]

    async def _shown(self, host: str, mark: Mark, said: MarkResult) -> MarkResult:
        await self.here.path.record(lambda state, now: on_marked(state, HostId(host), (mark, "sim"), now))
        return said


@dataclass
class Marked:
    """A fault path, a cloud and the loop between them."""

    here: Running
    cloud: ShownCloud
    marker: CloudMarker
    refusals: list[GateRefusal]

    async def die(self) -> None:
        now_ns = SystemClock().wall_ns()
        death = Death("silent", now_ns, now_ns)
        await self.here.path.record(lambda state, now: on_host_down(state, N1, death, now))

    def back(self) -> bool:
        """Its node has looked at everything, and nothing there has changed. Always true."""
        states = digest({ResourceId("a"): UP, ResourceId("b"): UP})
        beat = Heartbeat(N1, "b1", "i2", 2, states, looked=True)
        self.here.bus.say("node.n1.heartbeat", beat)
        return True


@asynccontextmanager
async def marking(
    store: Store, *, deadline_s: float = 5.0, shuts: GateRefusal | None = None
) -> AsyncIterator[Marked]:
    """`shuts`: the gate is open when it is asked first, and never again."""
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("a", 1, UP), seen("b", 2, UP))
        await until(lambda: len(here.path.world.topology.resources) == 2)
        cloud = ShownCloud(lambda _: ["a", "b"])
        cloud.here = here
        refusals: list[GateRefusal] = []

        def gate(_host: HostId, _act: str) -> GateRefusal | None:
            said = refusals[0] if refusals else None
            if shuts is not None and not refusals:
                refusals.append(shuts)
            return said

        settings = FaultsSettings(mark_deadline_s=deadline_s, mark_retry_s=0.05)
        marker = CloudMarker(
            CloudMarkerDependencies(
                here.path,
                cloud,
                gate,
                settings,
                1,
                SystemClock(),
                lambda: uuid.uuid4().hex,
            )
        )
        task = asyncio.create_task(marker.run())
        try:
            yield Marked(here, cloud, marker, refusals)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def story(store: Store) -> list[tuple[str, str]]:
    """Kind and subject of everything in the journal about clouds, in order."""
    table = database.journal
    rows = store.rows(
        select(table.c.kind, table.c.subject).where(table.c.subject == "cloud/n1").order_by(table.c.seq)
    )
    return [row.kind for row in rows]


def row(store: Store) -> tuple[bool, bool]:
    """Whether the host is marked, and what runs there in error."""
    found = store.rows(select(node_table.c.marked_ns, node_table.c.error_ns))[0]
    return found.marked_ns is not None, found.error_ns is not None


async def test_a_gate_that_shuts_between_the_decision_and_the_entry_is_heeded(store: Store) -> None:
    async with marking(store, shuts=GateRefusal(GateReason.HELD, "disks")) as it:
        await it.die()
        refused = select(database.journal.c.kind).where(database.journal.c.kind == "ActRefused")
        await until(lambda: bool(store.rows(refused)))
        assert it.cloud.calls == []
        assert story(store) == ["ActRefused"]


@pytest.mark.seed("002 force-down comes first, then the guests are set to error")
async def test_a_death_is_marked_first_then_its_guests_each_with_intent_and_outcome(store: Store) -> None:
    async with marking(store) as it:
        await it.die()
        await until(lambda: row(store) == (True, True))
        await until(lambda: len(story(store)) == 6)
        assert it.cloud.calls == ["force-down n1", "error a", "error b"]
        assert story(store) == ["ActionIntended", "HostMarked", "ActionFinished"] * 2
        traces = store.rows(
            select(database.journal.c.trace).where(
                database.journal.c.kind.in_(["HostDown", "ActionIntended", "HostMarked"])
            )
        )
        assert len(set(traces)) == 1, "all of it is in the fault's story"
        assert not it.here.path.world.topology.actions


async def test_nobody_is_told_after_a_cloud_that_is_slow(store: Store) -> None:
    async with marking(store) as it:
        answer = asyncio.Event()

        async def slow(_call: str) -> None:
            await answer.wait()

        it.cloud.call = slow
        await it.die()
        assert it.here.told() == ["raised f"], "told with the commit"
        await until(lambda: it.cloud.calls == ["force-down n1"])
        answer.set()
        await until(lambda: row(store) == (True, True))


async def test_the_mark_goes_when_the_host_is_back_and_the_error_when_its_fault_is_over(store: Store) -> None:
    async with marking(store) as it:
        await it.die()
        await until(lambda: row(store) == (True, True))
        it.cloud.calls.clear()
        it.back()
        await until(lambda: row(store) == (False, True))
        assert it.here.told() == ["raised f"], "the fault is still open"
        await until(lambda: it.back() and row(store) == (False, False))
        assert it.here.told() == ["raised f", "cleared f"]
        assert it.cloud.calls == ["un-force n1", "active a", "active b"]
        traces = store.rows(select(database.journal.c.trace).where(database.journal.c.kind == "HostMarked"))
        assert len(traces) == 4
        assert len(set(traces)) == 1, "what is taken back belongs to the death"


async def test_a_gate_that_stays_shut_is_written_down_once_and_nothing_is_marked(store: Store) -> None:
    async with marking(store) as it:
        it.refusals.append(GateRefusal(GateReason.NOT_ARMED, "not armed"))
        await it.die()
        await until(lambda: story(store) == ["ActRefused"])
        looks = it.here.path.host_events
        for _ in range(5):
            looks.set()
            await asyncio.sleep(0)
        it.refusals.clear()
        await until(lambda: row(store) == (True, True))
        assert story(store).count("ActRefused") == 1
        assert it.cloud.calls[0] == "force-down n1"


async def test_a_second_refusal_of_another_reason_is_written_once_and_stops_nothing(store: Store) -> None:
    async with marking(store) as it:
        for why in (GateReason.NOT_ARMED, GateReason.HELD, GateReason.NOT_ARMED):
            count = len(story(store))
            it.refusals[:] = [GateRefusal(why, why.value)]
            if not count:
                await it.die()
            await until(lambda count=count: len(story(store)) == count + 1)  # type: ignore[misc]
            it.here.path.host_events.set()
        assert story(store) == ["ActRefused"] * 3
        it.refusals.clear()
        await until(lambda: row(store) == (True, True))


async def test_a_cloud_that_hangs_ends_as_unknown_and_is_asked_again(store: Store) -> None:
    async with marking(store, deadline_s=0.3) as it:
        hanging = asyncio.Event()

        async def hang(_call: str) -> None:
            await hanging.wait()

        it.cloud.call = hang
        await it.die()
        outcomes = select(database.journal.c.payload).where(database.journal.c.kind == "ActionFinished")
        await until(lambda: any("unknown" in each.payload for each in store.rows(outcomes)))
        hanging.set()
        await until(lambda: row(store) == (True, True))
        await until(lambda: not it.here.path.world.topology.actions)


def _intended_by(owner: str, decision: Decision) -> Decision:
    """The same intent, as a server of another version wrote it."""
    decision.intended = [replace(each, owner_of_act=owner) for each in decision.intended]
    return decision


@pytest.mark.parametrize("owner", [MARKING, "faults/marking"], ids=["now", "by 0.1"])
@pytest.mark.parametrize("was_done", [True, False])
async def test_what_a_dead_server_left_open_is_looked_at(store: Store, was_done: bool, owner: str) -> None:
    async with running(store) as here:
        await join(here, "n1")
        act = MarkAct(N1, Mark.MARK_DOWN, "mark_down-n1-1", 5.0, "t")
        await here.path.record(lambda _, now: _intended_by(owner, on_mark_intended(act, None, now)))
        cloud = ShownCloud(lambda _: [])
        cloud.here = here
        if was_done:
            cloud.down.add("n1")
        parts = CloudMarkerDependencies(
            here.path, cloud, lambda *_: None, FaultsSettings(), 1, SystemClock(), lambda: uuid.uuid4().hex
        )
        task = asyncio.create_task(CloudMarker(parts).run())
        table = database.journal
        endings = select(table.c.payload, table.c.origin).where(table.c.kind == "ActionFinished")
        await until(lambda: bool(store.rows(endings)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ended = store.rows(endings)
        assert [each.origin for each in ended] == [MARKING]
        assert ('"ok"' if was_done else '"unknown"') in ended[0].payload
        view = await cloud.look("n1")
        assert isinstance(view, CloudView)
