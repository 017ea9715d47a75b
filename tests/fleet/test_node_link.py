"""The node's link over a real NATS server: what is lost on the way arrives in the end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given
from reports import report
from server_end import ServerEnd

from homeostat.contracts.nouns import HostId, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Assigned, Report
from homeostat.contracts.wire import (
    MESSAGE_BYTES_MAX,
    AssignmentGiven,
    Observations,
    ResourceStatus,
    ResourceTransition,
    assigned_digest,
    encode,
)
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.loops import Task, run_tasks
from homeostat.node.link import IN_FLIGHT_MAX, LinkSettings, NodeLink, batches
from homeostat.node.observations import ObservationStore
from real_parts import NatsServer, accounts, eventually


@dataclass
class Ends:
    """A link with its store, and the server's end of it."""

    store: ObservationStore
    link: NodeLink
    bus: Bus
    server: ServerEnd

    def record(self, resource: str = "web", state: ResourceState = ResourceState.UP) -> ResourceTransition:
        transition = self.store.record(report(resource, state))
        self.link.recorded(transition)
        return transition


@asynccontextmanager
async def running(
    nats: NatsServer, folder: Path, *, heartbeat_s: float = 0.2, answers: bool = True
) -> AsyncIterator[Ends]:
    """A node's link and a server's end on one NATS server."""
    store = ObservationStore(folder / "observations.db")
    bus = Bus(BusSettings(nats.url, "n1", "n1-secret", name="n1", ping_interval_s=0.2))
    link = NodeLink(LinkSettings(HostId("n1"), heartbeat_s), bus, store)
    server_bus = await Bus.connect(BusSettings(nats.url, "server", "server-secret", ping_interval_s=0.2))
    server = ServerEnd(server_bus, answers=answers)
    await server.listen()
    await link.listen()
    stopping = asyncio.Event()
    tasks = [Task("bus", bus.run), Task("answer", server.answer), *link.tasks()]
    group = asyncio.create_task(run_tasks(tasks, stopping=stopping))
    try:
        yield Ends(store, link, bus, server)
    finally:
        stopping.set()
        await group
        await server_bus.close()
        store.close()


async def test_an_observation_arrives_and_is_forgotten_when_acknowledged(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: ends.bus.connected)
        transition = ends.record()
        await eventually(lambda: not ends.store.pending(1))
        assert ends.server.transitions == [transition]
        message = ends.server.messages[0]
        assert (message.host, message.boot, message.first) == ("n1", ends.store.boot, 1)
        assert message.sent_mono_ns > 0
        assert len(ends.server.messages) == 1, "nothing is repeated without need"


def killed_with_one_observation(folder: Path) -> None:
    store = ObservationStore(folder / "observations.db")
    store.record(report("web"))
    store._file.database.close()  # as kill -9 leaves it


async def test_after_a_kill_a_server_says_how_far_it_knows_and_new_reports_follow(
    nats: NatsServer, tmp_path: Path
) -> None:
    killed_with_one_observation(tmp_path)
    async with running(nats, tmp_path) as ends:
        ends.record("mail")
        await eventually(lambda: ends.server.seqs == [1, 2])
        assert ends.server.heartbeats[0].asks and not ends.store.asks


async def test_a_server_that_speaks_and_never_says_how_far_it_knows_is_told_all_the_same(
    nats: NatsServer, tmp_path: Path
) -> None:
    killed_with_one_observation(tmp_path)
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.server.seqs == [1])
        ends.record("mail")
        await ends.server.ask()
        await eventually(lambda: ends.server.seqs == [1, 2], 20)
        assert not ends.store.asks


async def test_heartbeats_come_at_once_and_say_what_the_store_says(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: len(ends.server.heartbeats) >= 4)
        ends.record("web", ResourceState.DOWN)
        await eventually(lambda: ends.server.heartbeats[-1].seq == 1)
        last = ends.server.heartbeats[-1]
        assert (last.boot, last.digest) == (ends.store.boot, ends.store.digest())
        assert {beat.incarnation for beat in ends.server.heartbeats} == {ends.link.incarnation}


async def test_a_heartbeat_says_when_all_was_looked_at_last(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path) as ends:
        before_ns = SystemClock().mono_ns()
        ends.link.looked(True, 77)
        ends.link.looked(False)
        await eventually(lambda: bool(ends.server.heartbeats) and not ends.server.heartbeats[-1].looked)
        beat = ends.server.heartbeats[-1]
        assert before_ns <= beat.looked_mono_ns <= beat.sent_mono_ns <= SystemClock().mono_ns()
        assert beat.seen_mono_ns == 77, "a runner that fell silent saw that much"


async def test_without_an_answer_it_is_sent_again_in_order_and_less_often(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record("web")
        ends.record("mail")
        await eventually(lambda: sum(1 in _seqs(message) for message in ends.server.messages) >= 3)
        sent = [m.sent_mono_ns / 1e9 for m in ends.server.messages if 1 in _seqs(m)]
        first_s, second_s = sent[1] - sent[0], sent[2] - sent[1]
        assert first_s > 0.4 and second_s > 0.8, "each wait is longer than the one before"
        assert _seqs(ends.server.messages[-1]) == [1, 2]
        await ends.server.acknowledge_all()
        await eventually(lambda: not ends.store.pending(1))


async def test_new_observations_do_not_put_off_the_repetition(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record()
        async with asyncio.timeout(3):
            while sum(1 in _seqs(message) for message in ends.server.messages) < 2:
                ends.record()
                await asyncio.sleep(0.05)


async def test_a_killed_nats_loses_nothing(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record()
        await eventually(lambda: not ends.store.pending(1))
        nats.kill()
        for _ in range(5):
            ends.record("web", ResourceState.DOWN)
            ends.record("web", ResourceState.UP)
        heartbeats = len(ends.server.heartbeats)
        nats.start()
        await eventually(lambda: not ends.store.pending(1), 10)
        assert ends.server.seqs == list(range(1, 12))
        assert len(ends.server.heartbeats) > heartbeats


async def test_lost_acknowledgements_only_cost_a_repetition(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.server.answers = False
        ends.record()
        await eventually(lambda: ends.server.messages)
        ends.server.answers = True
        await eventually(lambda: not ends.store.pending(1))
        assert [_seqs(message) for message in ends.server.messages] == [[1], [1]]


async def test_a_resync_brings_all_levels_and_what_is_not_acknowledged(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record("web", ResourceState.UP)
        await eventually(lambda: ends.server.messages)
        await ends.server.acknowledge(ends.store.boot, 1)
        await eventually(lambda: not ends.store.pending(1))
        ends.record("mail", ResourceState.DOWN)
        await eventually(lambda: 2 in ends.server.seqs)
        before = len(ends.server.messages)
        await ends.server.ask()
        await eventually(lambda: ends.server.levels and len(ends.server.messages) > before, 0.4)
        levels = ends.server.levels[0]
        assert {each.resource: each.state.value for each in levels.levels} == {"web": "up", "mail": "down"}
        assert (levels.boot, levels.seq) == (ends.store.boot, 2)
        assert levels.incarnation == ends.link.incarnation
        assert _seqs(ends.server.messages[before]) == [2]


async def test_a_deposed_server_is_not_listened_to(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record()
        ends.record()
        await eventually(lambda: 2 in ends.server.seqs)
        ends.server.epoch = 8
        await ends.server.ask()
        await eventually(lambda: len(ends.server.levels) == 1)
        ends.server.epoch = 7
        await ends.server.acknowledge(ends.store.boot, 2)
        await ends.server.ask()
        ends.server.epoch = 9
        await ends.server.acknowledge(ends.store.boot, 1)
        await eventually(lambda: len(ends.store.pending(10)) < 2)
        assert len(ends.store.pending(10)) == 1, "the acknowledgement of epoch 7 was refused"
        await ends.server.ask()
        await eventually(lambda: len(ends.server.levels) >= 2)
        assert len(ends.server.levels) == 2, "and so was its resync"


async def test_a_connection_is_greeted_with_a_heartbeat(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path, heartbeat_s=60) as ends:
        await eventually(lambda: len(ends.server.heartbeats) >= 1, 3)
        nats.write(accounts("n2"))  # throws the node out, and nobody else
        nats.send(signal.SIGHUP)
        await eventually(lambda: not ends.bus.connected)
        nats.write(accounts("n1", "n2"))
        nats.send(signal.SIGHUP)
        await eventually(lambda: len(ends.server.heartbeats) >= 2)
        assert ends.server.bus.last_break_ns is None


async def test_messages_that_are_none_are_dropped_with_a_line(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record()
        await eventually(lambda: ends.server.messages)
        for body in (
            b"",
            b"{}",
            b"\xff\x00",
            b"[" * 1000,
            b'{"boot": "x", "seq": -1, "epoch": 1, "more": 2}',
        ):
            await ends.server.bus.publish(ends.server.subjects.acknowledged, body)
        await ends.server.acknowledge(ends.store.boot, 1)
        await eventually(lambda: not ends.store.pending(1))


async def test_a_long_backlog_goes_in_order_and_waits_for_the_server(
    nats: NatsServer, tmp_path: Path
) -> None:
    count = IN_FLIGHT_MAX + 300
    store = ObservationStore(tmp_path / "observations.db")
    store._file.database.execute("PRAGMA synchronous = OFF")  # only to prepare
    for _ in range(count):
        store.record(report())
    store.close()
    async with running(nats, tmp_path, answers=False) as ends:
        await eventually(
            lambda: IN_FLIGHT_MAX in _seqs(ends.server.messages[-1]) if ends.server.messages else 0
        )
        await eventually(lambda: sum(1 in _seqs(message) for message in ends.server.messages) == 2)
        assert ends.server.seqs[-1] == IN_FLIGHT_MAX
        await eventually(lambda: IN_FLIGHT_MAX in _seqs(ends.server.messages[-1]))
        ends.server.answers = True
        await ends.server.acknowledge_all()
        await eventually(lambda: not ends.store.pending(1))
        assert ends.server.seqs == list(range(1, count + 1))
        assert all(len(encode(message)) < MESSAGE_BYTES_MAX / 2 for message in ends.server.messages)


async def test_goodbye_after_everything_is_acknowledged(nats: NatsServer, tmp_path: Path) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: ends.bus.connected)
        ends.record()
        assert await ends.link.drain(5.0)
        await ends.link.goodbye()
        await eventually(lambda: ends.server.goodbyes)
        assert ends.server.goodbyes[0].incarnation == ends.link.incarnation
        ends.server.answers = False
        ends.record()
        assert not await ends.link.drain(0.05)


@given(st.lists(st.integers(0, 60_000), max_size=30))
def test_batches_keep_order_and_bound(sizes: list[int]) -> None:
    transitions = [_transition(seq, "x" * size) for seq, size in enumerate(sizes)]
    cut = list(batches(transitions))
    assert [each for batch in cut for each in batch] == transitions
    for batch in cut:
        message = Observations(HostId("n" * 63), "b" * 16, 2**63 - 1, 10_000, batch)
        assert len(encode(message)) < MESSAGE_BYTES_MAX / 2


def _transition(seq: int, reason: str) -> ResourceTransition:
    what: Report = report()
    level = ResourceStatus(
        ResourceId("web"), ResourceKind.SERVICE, what.owner, what.agent, what.state, reason, 1, seq
    )
    return ResourceTransition(level, 1)


def _seqs(message: Observations) -> list[int]:
    return [each.level.seq for each in message.transitions]


async def test_an_assignment_counts_for_this_life_only_and_the_newest_wins(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(nats, tmp_path) as ends:
        await eventually(lambda: ends.server.heartbeats)
        told: list[object] = []
        ends.link.on_assigned(lambda: told.append(ends.store.assigned()))
        guest, mine = ResourceId("g"), ends.link.incarnation

        async def give(number: int, generation: int, incarnation: str = mine, epoch: int = 5) -> None:
            given = AssignmentGiven(epoch, number, incarnation, {guest: generation})
            assert await ends.server.bus.publish(ends.server.subjects.assigned, encode(given))

        await give(1, 1, "another-life")
        await give(2, 2)
        await give(1, 9)
        await give(9, 9, epoch=4)
        await give(3, 3)
        await eventually(lambda: ends.server.heartbeats[-1].assigned == assigned_digest({guest: 3}))
        assert told == [Assigned({guest: 2}, True), Assigned({guest: 3}, True)]
        assert ends.server.heartbeats[0].assigned == ""
        assert ends.server.heartbeats[-1].offers == ""
