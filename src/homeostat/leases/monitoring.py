"""The contract of monitoring plug-ins, and what their reports lead to. Pure.

A plug-in knows how to see a kind of host: it is told by push (`PushMonitor`), is asked again and again
(`PollingMonitor`), or both. It reports; it never marks, moves or decides. A package has a plug-in when it has
an entry point in the group `homeostat.leases.monitors`: a function that takes `MonitorOptions` and returns an
object that is one of the two Protocols, or both.

Invariants: an error is *unknown* and changes nothing; a host that is absent from a complete list is not
reservable from the first look on, and counts as failed only after later ones; when most hosts are absent at
once, the list is doubted and none of them counts as failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import Seq

ENTRY_POINTS = "homeostat.leases.monitors"
"""The group of entry points."""
JOURNAL_TOPIC = "journal"
"""The topic of Homeostat's own events: `event_type` is the kind of an event, `payload` its fields."""


class HostOutcome(StrEnum):
    """What can be said of a host. UNKNOWN changes nothing; ABSENT: a list that should name it does not."""

    FAILED = "failed"
    RECOVERED = "recovered"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a plug-in says of a host. `seen_ns`: since when (UTC wall clock), None: since now."""

    host: HostId
    outcome: HostOutcome
    reason: str
    seen_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """A message of another part of the system, or of another system."""

    topic: str
    event_type: str
    payload: Mapping[str, Any]
    at_ns: int
    seq: Seq | None = None
    """Its number in the journal, if it is an event of ours."""


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """What a plug-in is made from: its section of the settings. None: the plug-in's own interval."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    notification_topics: tuple[str, ...] = ()
    polling_interval_s: float | None = None
    healing_interval_s: float | None = None


@runtime_checkable
class PushMonitor(Protocol):
    """Is told. It gets the notifications of `topics` whose type is one of `event_types`, in order."""

    @property
    def event_types(self) -> Collection[str]: ...

    @property
    def topics(self) -> Collection[str]: ...

    @property
    def healing_interval_s(self) -> float | None:
        """How far ahead reservations are healed when its hosts fail; 0: all of them, None: no wish."""

    def on_notification(self, notification: Notification) -> Iterable[HostReport]:
        """What it says of hosts; nothing when it does not concern it. Whatever it raises: unknown."""


@runtime_checkable
class PollingMonitor(Protocol):
    """Is asked. With `lists_all`, a host of which a look says nothing is absent; else it is unknown."""

    @property
    def polling_interval_s(self) -> float: ...

    @property
    def lists_all(self) -> bool: ...

    @property
    def healing_interval_s(self) -> float | None:
        """As of a `PushMonitor`."""

    async def poll(self, hosts: Collection[HostId]) -> Iterable[HostReport]:
        """What it says of these hosts, now; others are passed over. Whatever it raises: all are unknown."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """N of M: so many of the last looks must say it, the very last among them."""

    needed: int = 1
    window: int = 1

    def kept(self, looks: tuple[HostOutcome, ...]) -> tuple[HostOutcome, ...]:
        """The looks that still count. Two at least: one absence alone never makes a failure."""
        return looks[-max(self.window, 2) :]


def conclude(looks: tuple[HostOutcome, ...], rule: Confirmation) -> HostOutcome:
    """What the last looks at a host mean together, the newest at the end. UNKNOWN: nothing new.

    A look that says nothing takes its place among the M, so that errors delay and never accuse.
    """
    if not looks:
        return HostOutcome.UNKNOWN
    last, recent = looks[-1], looks[-rule.window :]
    match last:
        case HostOutcome.RECOVERED:
            enough = recent.count(HostOutcome.RECOVERED) >= rule.needed
        case HostOutcome.FAILED:
            enough = _wrong(recent) >= rule.needed
        case HostOutcome.ABSENT:
            enough = _wrong(rule.kept(looks)) >= max(rule.needed, 2)
            return HostOutcome.FAILED if enough else HostOutcome.ABSENT
        case HostOutcome.UNKNOWN:
            enough = False
    return last if enough else HostOutcome.UNKNOWN


def _wrong(looks: tuple[HostOutcome, ...]) -> int:
    return looks.count(HostOutcome.FAILED) + looks.count(HostOutcome.ABSENT)


class PollFindings(NamedTuple):
    """What a look found of each host, and whether so many were absent that the list is doubted."""

    reports: Mapping[HostId, HostReport]
    is_doubtful: bool = False


def read_poll(hosts: Collection[HostId], reports: Iterable[object], *, lists_all: bool) -> PollFindings:
    """A finding for each host. TypeError: a plug-in returned something else than reports."""
    found: dict[HostId, HostReport] = {}
    for report in reports:
        if not isinstance(report, HostReport):
            raise TypeError(f"poll must return HostReport objects, not {type(report).__name__}")
        before = found.get(report.host)
        if before is not None and before.outcome is not report.outcome:
            reason = f"reported as {before.outcome} and as {report.outcome} at once"
            report = HostReport(report.host, HostOutcome.UNKNOWN, reason)
        found[report.host] = report
    silent = HostOutcome.ABSENT if lists_all else HostOutcome.UNKNOWN
    reason = "absent from the list" if lists_all else "nothing is said of it"
    complete = {host: found.get(host) or HostReport(host, silent, reason) for host in hosts}
    absent = sum(each.outcome is HostOutcome.ABSENT for each in complete.values())
    return PollFindings(complete, is_doubtful=absent > 1 and 2 * absent > len(complete))


def all_unknown(hosts: Collection[HostId], reason: str) -> PollFindings:
    """The findings of a look that failed."""
    return PollFindings({host: HostReport(host, HostOutcome.UNKNOWN, reason) for host in hosts})


@dataclass(frozen=True, slots=True)
class HostVerdict:
    """What a monitor concluded of a host. `cause` is the event that led to it, if one did.

    `is_dry_run`: it is written down and changes nothing.
    """

    monitor: str
    host: HostId
    outcome: HostOutcome
    reason: str
    seen_ns: int
    is_dry_run: bool = False
    cause: Seq | None = None


class HostLooks:
    """The last looks of one monitor at each host. The only state between looks; lost without harm."""

    def __init__(self, rule: Confirmation) -> None:
        self._rule = rule
        self._looks: dict[HostId, tuple[HostOutcome, ...]] = {}
        self._pushed_ns: dict[HostId, int] = {}

    def push(self, host: HostId, mono_ns: int) -> None:
        """A notification said how the host is: what was seen before counts no more."""
        self._looks.pop(host, None)
        self._pushed_ns[host] = mono_ns

    def look(self, findings: PollFindings, begun_ns: int) -> list[HostReport]:
        """Take a look that began at `begun_ns` (monotonic); what it concludes, without UNKNOWN.

        A look that began before a notification came says nothing of its host.
        """
        concluded = []
        for host, report in findings.reports.items():
            if self._pushed_ns.get(host, begun_ns) > begun_ns:
                continue
            outcome = report.outcome
            looks = self._looks[host] = self._rule.kept((*self._looks.get(host, ()), outcome))
            meant = conclude(looks, self._rule)
            if findings.is_doubtful and outcome is HostOutcome.ABSENT:
                meant = HostOutcome.ABSENT
            if meant is not HostOutcome.UNKNOWN:
                concluded.append(HostReport(host, meant, report.reason, report.seen_ns))
        self._forget(findings)
        return concluded

    def _forget(self, findings: PollFindings) -> None:
        """Hosts that may not be reserved any more."""
        for kept in (self._looks, self._pushed_ns):
            for host in kept.keys() - findings.reports.keys():
                del kept[host]


class HealingTimes(NamedTuple):
    """How far ahead reservations are healed (None: without horizon), and how often that is looked at."""

    window_s: float | None
    period_s: float


def healing_times(intervals_s: Iterable[float | None], default_s: float, tick_s: float) -> HealingTimes:
    """What the monitors ask for together: the farthest horizon, the shortest period. 0 is without horizon.

    Reservations are healed together, whoever found a host failed. The period is never longer than the window,
    so no start falls between two looks; without horizon the look takes place every `tick_s`.
    """
    wished = [default_s if each is None else each for each in intervals_s] or [default_s]
    period_s = min((each for each in wished if each > 0), default=tick_s)
    return HealingTimes(
        None if 0 in wished else max(wished), min(period_s, tick_s) if 0 in wished else period_s
    )
