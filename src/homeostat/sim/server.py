"""A simulated server: the real write path, notice bridge, delivery and term, on a simulated database and
network.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from homeostat import components
from homeostat.contracts.component import ExposureSource, ServerParts
from homeostat.contracts.journal_view import JournalView
from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Acknowledged, decode
from homeostat.fleet.gate import Arming
from homeostat.fleet.probes import HostProbe, OutsideProbes
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.kernel.follower import FollowedAppender
from homeostat.kernel.journal import Journal, JournalAppender, Receipt, Submission
from homeostat.kernel.leadership import Leadership, acquire_term
from homeostat.kernel.loops import LoopLag, Task, run_tasks
from homeostat.kernel.workers import Workers
from homeostat.notices.attempts import DeliveryDependencies, PictureArchive
from homeostat.notices.delivery import Delivery
from homeostat.notices.subscriptions import Silences, Subscriptions
from homeostat.ports import Fence, NewId
from homeostat.server.retention import Retention
from homeostat.server.settings import RetentionSettings
from homeostat.server.store import announce_leader
from homeostat.sim import history as story
from homeostat.sim.database import CommitFailure, CommitHooks, SimAppender, SimDatabase
from homeostat.sim.drivers import (
    InlineWorkers,
    SimConsumer,
    SimPowerSwitch,
    SimProbe,
    SimTransport,
    SwitchBehaviour,
)
from homeostat.sim.environment import SimClock, SimNetwork
from homeostat.sim.host import SimHost
from homeostat.sim.under_test import ClassesUnderTest, PartsUnderTest

TERM_S = 6.0


@dataclass(slots=True)
class ServerSurroundings:
    """What all servers of a run share. `settings` are sections by name, `choose` says what befalls a commit.

    `committed` is the highest observation in the database, by host and store. `probed` are the hosts that
    are looked at from outside and fenced; empty: none is ever host_down. `epoch` is that of the term now.
    """

    disk: SimDatabase
    network: SimNetwork
    parts: ClassesUnderTest
    settings: Mapping[str, Any]
    consumers: dict[str, SimConsumer]
    chance: Random
    record: Callable[[str, story.HistoryFact], None]
    choose: Callable[[], CommitFailure]
    committed: dict[tuple[str, str], int] = field(default_factory=dict)
    seed: int = 0
    epoch: int = 0
    probed: dict[str, SimHost] = field(default_factory=dict)
    switching: SwitchBehaviour = SwitchBehaviour.WORKS
    witnesses: story.Witnesses = field(default_factory=story.Witnesses)

    def now_s(self) -> float:
        return self.network.loop.time()


USED_SEEDS = (5, 6)
"""Of eight seeds those in which people use the components; a seed of the others tells what it always told."""


class SimServer:
    """One life of a server process."""

    def __init__(self, name: str, site: ServerSurroundings, clock: SimClock) -> None:
        self.name, self._site, self._clock = name, site, clock
        self.alive = True
        self.epoch = 0
        self.parts: ServerParts | None = None
        self._bus = site.network.attach(name, self._on_publish, self._on_arrival)
        self._transport = SimTransport(site.consumers, site.disk, site.chance, site.record)
        self._fate = CommitHooks(site.chance, site.choose, self.kill, self._wrote)
        self._main = asyncio.create_task(self._run())

    def kill(self, why: str) -> None:
        """As SIGKILL does: nothing that it still does reaches anybody."""
        if self.alive:
            self._record(story.Remark(f"ends: {why}"))
            self.alive = False
            self._site.network.detach(self._bus)
            self._transport.die()
            if self.epoch:
                self._appender.die()
            self._main.cancel()

    async def _run(self) -> None:
        site, clock = self._site, self._clock
        await asyncio.sleep(site.chance.uniform(0.01, 0.3))
        # The file lock shows that the predecessor is dead, or its term has run out: it is ours.
        epoch = acquire_term(site.disk.engine, self.name, TERM_S, predecessor_is_dead=True)
        assert epoch is not None
        self.epoch = site.epoch = epoch
        self._record(story.TermAcquired(epoch))
        self._appender = site.parts.of(SimAppender)(site.disk, epoch, self._fate)
        leader = Leadership(site.disk.engine, self.name, epoch, TERM_S, clock)
        try:
            await announce_leader(leader, self._appender)
            await self._lead(leader)
        except (RetryLater, GiveUp) as error:
            self.kill(f"{type(error).__name__}: {error}")

    async def _lead(self, leader: Leadership) -> None:
        """As `server.main` does, but for the API and for components that say why they are not simulated."""
        site, clock, readers = self._site, self._clock, self._site.disk.readers
        parts = self._ground_parts(leader)
        await components.lay_foundations(parts)
        delivery = await self._open_notifications(parts)
        outside = parts.put(OutsideProbes, self._outside())
        path = parts.make(IngestLoop, replace(components.write_path()(parts), term_left_s=self._term_left_s))
        armed = site.settings["fleet"].gate.armed
        arming = parts.put(Arming, Arming(self._appender, readers, clock, armed, components.armable_names()))
        await arming.reload()
        parts.put(ExposureSource, ExposureSource(partial(components.exposure_rows, parts)))
        served = await components.serve_components(
            parts, [each for each in components.COMPONENTS if not each.not_simulated]
        )
        await path.listen()
        await path.load()
        self.parts = parts
        retention = Retention(self._appender, readers, clock, RetentionSettings())
        await run_tasks(
            [
                Task("term", leader.keep, forever=True),
                Task("write path", path.run, forever=True),
                Task("outside probes", outside.run, forever=True),
                *(loop for each in served for loop in each.loops),
                Task("delivery", delivery.run, forever=True),
                Task("retention", retention.run, forever=True),
                *self._people(parts),
            ],
            stopping=asyncio.Event(),
            on_crash=self._crashed,
        )

    def _people(self, parts: ServerParts) -> list[Task]:
        """Those who use the components, in one seed of four: the others have longer stories of the rest."""
        site = self._site
        if site.seed % 8 not in USED_SEEDS:
            return []
        return [
            Task(f"people of {name}", partial(use, parts, Random(f"{site.seed}/{self.name}/{name}")))
            for name, use in components.simulated_uses().items()
        ]

    def _ground_parts(self, leader: Leadership) -> ServerParts:
        """The kernel's part of a server and its drivers; its loop is never late here."""
        site, readers = self._site, self._site.disk.readers
        parts = PartsUnderTest(site.settings.__getitem__, site.parts)
        parts.put(Clock, self._clock)
        parts.put(Messages, self._bus)
        parts.put(Leadership, leader)
        parts.put(JournalAppender, self._appender)
        parts.put(FollowedAppender, self._appender)
        parts.put(Workers, InlineWorkers())
        parts.put(Readers, readers)
        parts.put(Journal, Journal(readers, components.catalogue()))
        parts.put(JournalView, components.journal_view())
        parts.put(LoopLag, LoopLag())
        numbers = itertools.count(1)
        parts.put(NewId, lambda: f"{self.name}-{next(numbers):04d}")
        parts.put(
            Fence,
            SimPowerSwitch(
                site.probed,
                site.settings["fleet"].fencing.deadline_s,
                lambda: site.switching,
                Random(f"{site.seed}/{self.name}/switch"),
                self._record,
            ),
        )
        return parts

    async def _open_notifications(self, parts: ServerParts) -> Delivery:
        """As `server.assembly` does, on the simulated network."""
        site, readers = self._site, self._site.disk.readers
        subscriptions = parts.put(Subscriptions, Subscriptions(readers))
        await subscriptions.reload()
        silences = parts.put(Silences, Silences(readers, self._clock))
        await silences.reload()
        made = DeliveryDependencies(
            self._appender,
            readers,
            subscriptions,
            self._transport,
            parts.find(PictureArchive).lookup,
            self._clock,
            site.chance.random,
        )
        return parts.make(Delivery, made, site.settings["notices"])

    def _outside(self) -> OutsideProbes:
        site = self._site
        chance = Random(f"{site.seed}/{self.name}/probes")
        targets = []
        for host in site.probed.values():
            key = self.name, host.machine.host
            probe = SimProbe(host, chance, partial(self._probed, key), self.name)
            targets.append(HostProbe(host.machine.host, probe))
        return OutsideProbes(targets, site.settings["fleet"], self._clock, chance.random)

    def _term_left_s(self) -> float:
        """A term that another server could take is over for whoever had it, whether it knows or not."""
        return TERM_S if self._site.epoch == self.epoch else 0.0

    def _probed(self, key: tuple[str, HostId], answered: bool) -> None:
        self._site.witnesses.probed[key].append((self._site.now_s(), answered))

    def _on_arrival(self, subject: str) -> None:
        kind, host, _ = subject.split(".")
        if kind == "node":
            self._site.witnesses.heard[self.name, HostId(host)].append(self._site.now_s())

    async def _crashed(self, name: str, error: BaseException) -> None:
        if self.alive:
            self._record(story.ServerLoopCrashed(name, f"{type(error).__name__}: {error}"))

    def _on_publish(self, subject: str, body: bytes) -> None:
        if subject.endswith(".acknowledged"):
            said, host = decode(Acknowledged, body), HostId(subject.split(".")[1])
            committed = self._site.committed.get((host, said.boot), 0)
            self._record(story.AckSent(host, said.boot, said.seq, committed))

    def _wrote(self, submission: Submission, receipt: Receipt) -> None:
        term = self._site.disk.number("SELECT epoch FROM term WHERE id = 1")
        for host, boot, seq in self._site.disk.ask("SELECT host, boot, acked_seq FROM node"):
            assert isinstance(seq, int)
            key = (str(host), str(boot))
            self._site.committed[key] = max(seq, self._site.committed.get(key, 0))
        self._record(story.SubmissionCommitted(self.epoch, term, submission.loop, receipt.seqs))

    def _record(self, fact: story.HistoryFact) -> None:
        if self.alive:
            self._site.record(self.name, fact)
