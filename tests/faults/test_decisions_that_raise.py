"""A decision that raises is refused alone: whoever asked for it hears the error, all others are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from sqlalchemy import select
from test_fault_path import DOWN, UP, join, running, seen

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.contracts.wire import Observations, Snapshot, Subjects
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.hosts import on_injected
from homeostat.faults.settings import FaultsSettings
from homeostat.ingest.entry import Decide, Decision, IngestState, Moment
from homeostat.kernel import database
from store_parts import Store, until


class Bug(Exception):
    """An error of a component."""


def _raises(_: IngestState, now: Moment) -> Decision:
    raise Bug(f"planted at {now.base}")


def _injected(host: str, _: IngestState, now: Moment) -> Decision:
    return on_injected(HostId(host), ("power", now.wall_ns, "test"), now)


async def test_requests_of_one_batch_fail_alone(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        answers = await asyncio.gather(
            here.path.record(partial(_injected, "n1")),
            here.path.record(_raises),
            here.path.record(partial(_injected, "n2")),
            return_exceptions=True,
        )
        assert isinstance(answers[1], Bug), "who asked hears what went wrong"
        assert isinstance(answers[0], int)
        assert isinstance(answers[2], int)
        assert here.path.failed == 1
        assert not here.task.done()
        table = database.journal.c
        subjects = [
            row.subject for row in store.rows(select(table.subject).where(table.kind == "FaultInjected"))
        ]
        assert subjects == ["node/n1", "node/n2"]


def _stops(_: IngestState, now: Moment) -> Decision:
    raise StopIteration


async def test_a_decision_that_runs_out_of_something_does_not_stop_the_write_path(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        ran_out, good = await asyncio.gather(
            here.path.record(_stops), here.path.record(partial(_injected, "n1")), return_exceptions=True
        )
        assert isinstance(ran_out, RuntimeError)
        assert isinstance(ran_out.__cause__, StopIteration)
        assert isinstance(good, int)
        assert not here.task.done()


class _OneResourceBreaksIt(FaultDeciders):
    """The decision about one resource raises, whatever is said of it."""

    broken = "bad"

    def observations(self, state: IngestState, message: Observations, received_ns: int) -> Iterator[Decide]:
        names = iter([each.level.resource for each in message.transitions])
        for decide in super().observations(state, message, received_ns):
            yield _raises if next(names, "") == self.broken else decide


async def test_a_node_is_heard_past_the_observation_whose_decision_raises(store: Store) -> None:
    deciders = _OneResourceBreaksIt(FaultsSettings(clear_after_s=0.1))
    async with running(store, deciders=deciders) as here:
        await join(here, "n1", "n2")
        here.see("n1", seen("web", 1, DOWN), seen("bad", 2, DOWN), seen("db", 3, DOWN))
        here.see("n2", seen("api", 1, DOWN))
        await until(lambda: here.acknowledged("n1") == 1)
        await until(lambda: here.acknowledged("n2") == 1)
        assert here.told() == ["raised f"] * 3
        assert set(here.path.world.topology.resources) == {"web", "db", "api"}
        assert here.path.failed == 1
        here.see("n1", seen("web", 4, UP))
        await until(lambda: here.acknowledged("n1") == 2)


async def test_an_observation_whose_decision_raises_is_lost_and_its_state_comes_back_by_level(
    store: Store,
) -> None:
    deciders = _OneResourceBreaksIt(FaultsSettings(clear_after_s=0.1))
    async with running(store, deciders=deciders) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, DOWN, "web-1"), seen("db", 2, DOWN, "db-1"))
        await until(lambda: here.acknowledged("n1") == 1)
        asked = here.bus.answers("to.n1.resync")
        deciders.broken = "web"
        here.see("n1", seen("web", 3, UP), seen("db", 4, UP))
        await until(lambda: here.acknowledged("n1") == 2)
        await until(lambda: here.bus.answers("to.n1.resync") == asked + 1)
        table = database.journal.c
        told = store.rows(select(table.kind, table.subject).where(table.seq > 0).order_by(table.seq))
        kinds = [(row.kind, row.subject) for row in told]
        assert kinds.count(("ObservationsLost", "node/n1")) == 1
        assert kinds.count(("ActionFinished", "resource/web")) == 1, "nobody will say how the act ended"
        open_acts = [each.id for each in here.path.world.topology.actions.values()]
        assert open_acts == ["db-1"]
        assert here.path.world.topology.resources[ResourceId("web")].state is DOWN
        levels = tuple(seen(name, seq, UP).level for name, seq in (("web", 3), ("db", 4)))
        here.bus.say(Subjects(HostId("n1")).levels, Snapshot(HostId("n1"), "b1", "i1", 4, levels))
        await until(lambda: here.path.world.topology.resources[ResourceId("web")].state is UP)


class _NodeBreaksIt(FaultDeciders):
    """What n1 says cannot even be looked at."""

    def observations(self, state: IngestState, message: Observations, received_ns: int) -> Iterator[Decide]:
        if message.host == "n1":
            raise Bug("planted")
        yield from super().observations(state, message, received_ns)


async def test_a_message_that_cannot_be_looked_at_is_counted_and_skipped(store: Store) -> None:
    deciders = _NodeBreaksIt(FaultsSettings(clear_after_s=0.1))
    async with running(store, deciders=deciders) as here:
        await join(here, "n1", "n2")
        here.see("n1", seen("web", 1, DOWN))
        here.see("n2", seen("api", 1, DOWN))
        await until(lambda: here.acknowledged("n2") == 1)
        assert here.path.failed == 1
        assert here.acknowledged("n1") == 0
        assert not here.task.done()
