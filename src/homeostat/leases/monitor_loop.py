"""Runs the monitoring plug-ins: one loop for each that is polled, one for all that are told, one for holds.

Plug-ins are code of others: whatever one raises or returns makes what it says unknown, is shown as the state
of that monitor, and stops neither the others nor the loop. Everything that is written goes through the
service of leases, which heals afterwards. A server looks a few times at its start also where polling is off:
that makes up for what was announced while nobody listened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, SetPoint, SetPointState
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Envelope, Journal, Seq
from homeostat.kernel.loops import Backoff, Task
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.monitoring import (
    JOURNAL_TOPIC,
    HostLooks,
    HostOutcome,
    HostReport,
    HostVerdict,
    Notification,
    PollFindings,
    PollingMonitor,
    PushMonitor,
    all_unknown,
    read_poll,
)
from homeostat.leases.reservable_hosts import (
    end_expired_holds,
    next_hold_end_ns,
    record_verdicts,
    withdraw_others,
)
from homeostat.leases.settings import MonitorSettings

log = structlog.get_logger("leases")

PAGE = 200
HOLD_LOOK_S = 5.0
"""How long a hold that is over may go unnoticed when the wall clock stepped."""
LOOK_DEADLINE_MAX_S = 60.0
FIRST_LOOKS_S = 1.0
"""Between the looks at the start."""


@dataclass(frozen=True, slots=True)
class MonitorState:
    """A monitor, for people. `trouble` is why it said nothing the last time, empty when it did."""

    name: str
    push: bool
    polling_interval_s: float | None
    is_dry_run: bool
    looked_ns: int | None
    trouble: str
    errors: int


class HostMonitor:
    """One plug-in with its section of the settings, and what it saw.

    `push` and `source` are the plug-in as far as it can be told and asked; with `polling_interval_s` None it
    is not polled.
    """

    def __init__(self, name: str, plugin: object, settings: MonitorSettings) -> None:
        """Reads everything that is asked of the plug-in once; raises what that raises."""
        self.name, self.settings = name, settings
        self.push = (
            plugin if isinstance(plugin, PushMonitor) and settings.enable_notification_monitor else None
        )
        self.source = plugin if isinstance(plugin, PollingMonitor) else None
        self.topics = frozenset(self.push.topics if self.push else ())
        self.event_types = frozenset(self.push.event_types if self.push else ())
        self.healing_interval_s: float | None = None
        self.polling_interval_s: float | None = None
        if isinstance(plugin, PushMonitor | PollingMonitor):
            self.healing_interval_s = plugin.healing_interval_s
        if self.source is not None and settings.enable_polling_monitor:
            wanted = settings.polling_interval
            self.polling_interval_s = float(self.source.polling_interval_s if wanted is None else wanted)
        self.looks = HostLooks(settings.confirmation)
        self._said: dict[HostId, HostOutcome] = {}
        self._looked_ns: int | None = None
        self._trouble, self._errors = "", 0

    @property
    def runs(self) -> bool:
        return self.push is not None or self.polling_interval_s is not None

    @property
    def state(self) -> MonitorState:
        return MonitorState(
            self.name,
            self.push is not None,
            self.polling_interval_s,
            self.settings.monitor_dry_run,
            self._looked_ns,
            self._trouble,
            self._errors,
        )

    async def look(self, hosts: Collection[HostId], clock: Clock) -> list[HostVerdict]:
        """Ask it about these hosts; what that leads to."""
        if self.source is None:
            return []
        begun_ns, wall_ns = clock.mono_ns(), clock.wall_ns()
        findings = await self._ask(self.source, hosts)
        self._looked_ns = wall_ns
        return [self._verdict(each, wall_ns, None) for each in self.looks.look(findings, begun_ns)]

    async def _ask(self, source: PollingMonitor, hosts: Collection[HostId]) -> PollFindings:
        deadline_s = min(self.polling_interval_s or LOOK_DEADLINE_MAX_S, LOOK_DEADLINE_MAX_S)
        try:
            async with asyncio.timeout(deadline_s):
                reports = await source.poll(hosts)
            findings = read_poll(hosts, reports, lists_all=source.lists_all)
        except Exception as error:
            reason = (
                f"no answer within {deadline_s:g} s" if isinstance(error, TimeoutError) else _named(error)
            )
            self._fail(reason)
            return all_unknown(hosts, reason)
        self._trouble = ""
        return findings

    def hear(self, notification: Notification, mono_ns: int) -> list[HostVerdict]:
        """Give it a notification that it wants; what that leads to."""
        wanted = notification.topic in self.topics and notification.event_type in self.event_types
        if self.push is None or not wanted:
            return []
        try:
            reports = list(self.push.on_notification(notification))
            for report in reports:
                if not isinstance(report, HostReport):
                    raise TypeError(f"on_notification must return HostReport objects, not {report!r:.40}")
        except Exception as error:
            self._fail(_named(error))
            return []
        self._trouble = ""
        known = [each for each in reports if each.outcome is not HostOutcome.UNKNOWN]
        for report in known:
            self.looks.push(report.host, mono_ns)
        return [self._verdict(each, notification.at_ns, notification.seq) for each in known]

    def unsaid(self, verdicts: Iterable[HostVerdict]) -> list[HostVerdict]:
        """Without what a dry run said before: no row tells that."""
        if not self.settings.monitor_dry_run:
            return list(verdicts)
        return [
            each for each in verdicts if self._said.get(each.host, HostOutcome.RECOVERED) is not each.outcome
        ]

    def note_said(self, verdicts: Iterable[HostVerdict]) -> None:
        """These are written down."""
        if self.settings.monitor_dry_run:
            self._said |= {each.host: each.outcome for each in verdicts}

    def _verdict(self, report: HostReport, now_ns: int, cause: Seq | None) -> HostVerdict:
        seen_ns = now_ns if report.seen_ns is None else report.seen_ns
        is_dry_run = self.settings.monitor_dry_run
        return HostVerdict(self.name, report.host, report.outcome, report.reason, seen_ns, is_dry_run, cause)

    def _fail(self, reason: str) -> None:
        self._errors += 1
        if self._trouble != reason:
            log.warning("a monitor of hosts cannot say anything", monitor=self.name, reason=reason)
        self._trouble = reason


def _notification(event: Envelope) -> Notification:
    payload = {"subject": event.subject, **event.payload}
    return Notification(JOURNAL_TOPIC, event.kind, payload, event.at_ns, event.seq)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class FollowedJournal(Protocol):
    """`kernel.appender.Appender`, as far as it is waited for."""

    @property
    def head(self) -> Seq: ...

    async def wait_beyond(self, seq: Seq) -> Seq: ...


@dataclass(frozen=True, slots=True)
class MonitorDependencies:
    """What the loops work with."""

    keeper: LeaseKeeper
    clock: Clock
    journal: Journal
    appended: FollowedJournal


class HostMonitors:
    """All plug-ins of a server, and their loops."""

    def __init__(
        self, monitors: Sequence[HostMonitor], parts: MonitorDependencies, warnings: Sequence[str] = ()
    ) -> None:
        """`warnings`: those of the settings, for people."""
        self._monitors, self._parts, self._warnings = tuple(monitors), parts, tuple(warnings)
        self._place = parts.appended.head

    @property
    def states(self) -> tuple[MonitorState, ...]:
        return tuple(each.state for each in self._monitors)

    async def set_points(self, caller: Caller) -> tuple[SetPoint, ...]:
        """Monitors that cannot say anything, and a row that is unknown while failures may go unnoticed."""
        if not caller.may_read(INFRASTRUCTURE):
            return ()
        silent = [each for each in self.states if each.trouble]
        return (
            SetPoint(
                "leases",
                "monitors of hosts that cannot say anything",
                0,
                "monitors",
                len(silent),
                SetPointState.BROKEN if silent else SetPointState.KEPT,
                "; ".join(f"{each.name}: {each.trouble}" for each in silent),
                needs_nodes=False,
            ),
            *self._unnoticed(),
        )

    def _unnoticed(self) -> Iterator[SetPoint]:
        if self._warnings:
            promise, detail = "failures of hosts that monitors do not notice", "; ".join(self._warnings)
            yield SetPoint(
                "leases", promise, 0, "hosts", None, SetPointState.UNKNOWN, detail, needs_nodes=False
            )

    @property
    def healing_intervals_s(self) -> tuple[float | None, ...]:
        """What each plug-in wants, for `monitoring.healing_times`."""
        return tuple(each.healing_interval_s for each in self._monitors if each.runs)

    def tasks(self) -> tuple[Task, ...]:
        """The loops. Without any plug-in that is switched on there is still one: holds end.

        What is announced from now on is heard, whenever they begin to run.
        """
        self._place = self._parts.appended.head
        told = [each for each in self._monitors if each.push is not None]
        polled = [each for each in self._monitors if each.polling_interval_s is not None]
        only_told = [each for each in told if each not in polled and each.source is not None]
        return (
            Task("holds of hosts", self._end_holds, forever=True),
            *([Task("notifications to monitors", partial(self._listen, told), forever=True)] if told else []),
            *(Task(f"first looks of monitor {each.name}", partial(self._begin, each)) for each in only_told),
            *(Task(f"monitor {each.name}", partial(self._poll, each), forever=True) for each in polled),
        )

    async def _poll(self, monitor: HostMonitor) -> None:
        """Look at once, and then at fixed times; one that is missed is left out."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                await self._look(monitor)
            except RetryLater as error:
                log.warning(
                    "what a monitor found is not written down", monitor=monitor.name, reason=str(error)
                )
            interval_s = monitor.polling_interval_s or LOOK_DEADLINE_MAX_S
            due_s += interval_s * max(1, -(-(loop.time() - due_s) // interval_s))
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def _begin(self, monitor: HostMonitor) -> None:
        """As many looks as a conclusion needs."""
        for _ in range(max(2, monitor.settings.confirm_polls)):
            await _insist(partial(self._look, monitor))
            await asyncio.sleep(FIRST_LOOKS_S)

    async def _look(self, monitor: HostMonitor) -> None:
        verdicts = await monitor.look(tuple(self._parts.keeper.book.hosts), self._parts.clock)
        await self._record([(monitor, verdicts)], monitor.name)

    async def _listen(self, told: Sequence[HostMonitor]) -> None:
        """Follow the journal for ever; what could not be written is decided again."""
        kinds = frozenset(kind for each in told if JOURNAL_TOPIC in each.topics for kind in each.event_types)
        while True:
            await _insist(partial(self._step, kinds))

    async def _step(self, kinds: frozenset[str]) -> None:
        """Wait for events, and give one page of them to the plug-ins. RetryLater."""
        head = await self._parts.appended.wait_beyond(self._place)
        page = await self._parts.journal.read(self._place, PAGE, kinds=kinds)
        await self.notify(_notification(each) for each in page if each.event is not None)
        last = page[-1].seq if page else self._place
        self._place = last if len(page) == PAGE else max(head, last)

    async def notify(self, notifications: Iterable[Notification]) -> None:
        """Give them to every plug-in that wants them, and write down what it says. RetryLater."""
        said: dict[str, tuple[HostMonitor, list[HostVerdict]]] = {}
        for notification in notifications:
            for monitor in self._monitors:
                verdicts = monitor.hear(notification, self._parts.clock.mono_ns())
                said.setdefault(monitor.name, (monitor, []))[1].extend(verdicts)
        await self._record(list(said.values()), "monitors")

    async def _record(self, said: Sequence[tuple[HostMonitor, Sequence[HostVerdict]]], by: str) -> None:
        """One decision for all. RetryLater."""
        unsaid = [(monitor, monitor.unsaid(verdicts)) for monitor, verdicts in said]
        verdicts = [verdict for _, each in unsaid for verdict in each]
        if not verdicts:
            return
        await self._parts.keeper.decide(lambda book, context: record_verdicts(book, verdicts, context), by)
        for monitor, each in unsaid:
            monitor.note_said(each)

    async def _end_holds(self) -> None:
        """End every hold at its time; and what monitors said that do not run any more."""
        keeper = self._parts.keeper
        waking = keeper.watch()
        names = [each.name for each in self._monitors if each.runs and not each.settings.monitor_dry_run]
        await _insist(lambda: keeper.decide(lambda book, context: withdraw_others(book, names, context)))
        while True:
            waking.clear()
            await _insist(lambda: keeper.decide(end_expired_holds))
            end_ns = next_hold_end_ns(keeper.book)
            left_s = None if end_ns is None else max(0.0, (end_ns - self._parts.clock.wall_ns()) / 1e9)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left_s is None else min(left_s, HOLD_LOOK_S)):
                    await waking.wait()


async def _insist(act: Callable[[], Awaitable[object]]) -> None:
    backoff = Backoff()
    while True:
        try:
            await act()
        except RetryLater as error:
            log.warning("what monitors say waits to be written", reason=str(error))
            await asyncio.sleep(backoff.next_s())
        else:
            return
