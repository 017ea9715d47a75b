"""/metrics for Prometheus: the set points, and how the parts of this server do.

Nothing here is per guest, per resource or per subscription: what belongs to a project is read through the
API, filtered by owner. Everything is made in the composition root; there is no registry of the process.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from homeostat import __version__
from homeostat.contracts.component import MetricFamily, MetricLabels, MetricSource
from homeostat.contracts.health import Impairment, ServerHealth
from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint, SetPointState
from homeostat.fleet.api import ShownAgent, shown_agent
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.appender import Appender
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import NotAllowed, RetryLater
from homeostat.kernel.http import ERRORS, Credentials, current_caller
from homeostat.kernel.loops import LoopLag
from homeostat.notices import store as notice_store
from homeostat.notices.delivery import Delivery
from homeostat.notices.model import NoticeState
from homeostat.server.status import StatusSources

_SCRAPER = Caller("metrics", Role.ADMIN, INFRASTRUCTURE)
"""Whoever may read the page reads numbers of the whole installation."""

_TOLD_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0, 300.0, 3600.0)
_DISK_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
_SET_POINT = ("component", "promise", "project", "unit")


@dataclass(frozen=True, slots=True)
class MetricSources:
    """What is measured. `status` has health and set points, `components` are what components measure."""

    status: StatusSources
    components: tuple[MetricSource, ...]
    appender: Appender
    readers: Readers
    delivery: Delivery
    path: IngestLoop
    lag: LoopLag
    epoch: int


@dataclass(slots=True)
class _Snapshot:
    """What had to be asked for; the rest is read when the page is made."""

    health: ServerHealth = field(default_factory=ServerHealth)
    set_points: list[SetPoint] = field(default_factory=list)
    families: list[MetricFamily] = field(default_factory=list)
    pending: int | None = None


class Metrics:
    """One for a server: `app.state.metrics`. With `is_open` no token is asked for."""

    def __init__(self, sources: MetricSources, *, is_open: bool) -> None:
        self.is_open = is_open
        self._sources = sources
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._page = _Page(sources)
        self._registry.register(self._page)
        ended = Counter(
            "homeostat_notices_ended", "Notices that ended.", ("outcome",), registry=self._registry
        )
        ends = (NoticeState.DELIVERED, NoticeState.GIVEN_UP)
        self._ends = {outcome: ended.labels(outcome.value) for outcome in ends}
        self._told = self._histogram("notice_told", "From the commit to the consumer's answer.", _TOLD_S)
        self._waited = self._histogram(
            "append_wait", "What a submission waited for its transaction.", _DISK_S
        )
        self._committed = self._histogram("append_commit", "A transaction with its flush.", _DISK_S)
        self._submissions = Counter(
            "homeostat_append_submissions", "Submissions that got an answer.", registry=self._registry
        )
        sources.delivery.on_end(self._on_end)
        sources.appender.on_commit(self._on_commit)

    async def page(self) -> bytes:
        """The page now. What cannot be read, or is not known now, is left out, never the rest."""
        snapshot = _Snapshot(self._sources.status.health())
        snapshot.set_points = tenants_together(await self._sources.status.set_points(_SCRAPER))
        for source in self._sources.components:
            with suppress(RetryLater):
                snapshot.families += await source()
        try:
            snapshot.pending = await self._sources.readers.read(notice_store.count_pending)
        except RetryLater:
            snapshot.pending = None
        self._page.snapshot = snapshot
        return generate_latest(self._registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"homeostat_{name}_seconds", about, buckets=buckets, registry=self._registry)

    def _on_end(self, state: NoticeState, took_s: float | None) -> None:
        self._ends[state].inc()
        if took_s is not None:
            self._told.observe(took_s)

    def _on_commit(self, waited_s: float, took_s: float, submissions: int) -> None:
        self._waited.observe(waited_s)
        self._committed.observe(took_s)
        self._submissions.inc(submissions)


class _Page(Collector):
    """What has a value of its own at any moment: read when asked."""

    def __init__(self, sources: MetricSources) -> None:
        self._sources = sources
        self.snapshot = _Snapshot()

    def collect(self) -> Iterator[Metric]:
        """Every family, with or without values."""
        yield from _of_set_points(self.snapshot.set_points)
        sources, figures, health = self._sources, self._sources.delivery.figures(), self.snapshot.health
        yield _gauge("info", "This server.", {(("version", __version__),): 1})
        yield _gauge(
            "healthy",
            "1 while this server can write its database and hears its nodes.",
            {(): int(not health.impairments)},
        )
        wrong = {each for each, _ in health.impairments}
        yield _gauge(
            "impaired",
            "1 while this server cannot write or hear, by the reason.",
            {(("reason", each.value),): int(each in wrong) for each in Impairment},
        )
        yield _gauge("epoch", "The term that this server leads in.", {(): sources.epoch})
        yield _gauge("journal_head", "The last committed sequence number.", {(): sources.appender.head})
        yield _gauge("append_waiting", "Submissions without an answer.", {(): sources.appender.waiting})
        yield _gauge("loop_lag_seconds", "Worst of the last 10 s.", {(): sources.lag.worst_s})
        for family in self.snapshot.families:
            yield _gauge(family.name, family.about, {} if health.impairments else family.values)
        topology = sources.path.world.topology
        agents = Count(shown_agent(topology, node, health) for node in topology.nodes.values())
        yield _gauge(
            "nodes", "Nodes by their agent.", {(("agent", each.value),): agents[each] for each in ShownAgent}
        )
        pending = self.snapshot.pending
        yield _gauge(
            "notices_pending", "Notices that wait for delivery.", {} if pending is None else {(): pending}
        )
        yield _gauge("notices_in_flight", "Being sent now.", {(): figures.in_flight})
        yield _gauge("subscriptions_silent", "That do not answer.", {(): len(figures.suspects)})
        refused = CounterMetricFamily("homeostat_messages_refused", "Messages of nodes that were not taken.")
        refused.add_metric((), sources.path.hearing.refused)
        yield refused
        failed = CounterMetricFamily("homeostat_decisions_failed", "Decisions that raised and were refused.")
        failed.add_metric((), sources.path.failed)
        yield failed


TENANTS = "tenants"
_WORST_FIRST = (SetPointState.BROKEN, SetPointState.UNKNOWN, SetPointState.KEPT)


def tenants_together(rows: Sequence[SetPoint]) -> list[SetPoint]:
    """The same rows, but one for all projects of tenants, the worst of each: nobody's name is on the page."""
    shown: list[SetPoint] = []
    theirs: dict[tuple[str, str], SetPoint] = {}
    for row in rows:
        if row.project in ("", INFRASTRUCTURE):
            shown.append(row)
            continue
        worst = theirs.get((row.component, row.promise), row)
        values = [each.value for each in (worst, row) if each.value is not None]
        theirs[row.component, row.promise] = replace(
            row,
            project=TENANTS,
            value=max(values, default=None),
            standing=min(worst.standing, row.standing, key=_WORST_FIRST.index),
        )
    return [*shown, *theirs.values()]


def _of_set_points(rows: Sequence[SetPoint]) -> Iterator[Metric]:
    value = GaugeMetricFamily(
        "homeostat_set_point_value", "The current value of a set point, in its unit.", labels=_SET_POINT
    )
    limit = GaugeMetricFamily(
        "homeostat_set_point_limit", "The target of a set point, in its unit.", labels=_SET_POINT
    )
    standing = GaugeMetricFamily(
        "homeostat_set_point_standing",
        "1 for the state of the set point.",
        labels=("component", "promise", "project", "standing"),
    )
    for row in rows:
        labels = (row.component, row.promise, row.project, row.unit)
        limit.add_metric(labels, row.limit)
        if row.value is not None:
            value.add_metric(labels, row.value)
        for each in SetPointState:
            state = (row.component, row.promise, row.project, each.value)
            standing.add_metric(state, int(row.standing is each))
    yield from (value, limit, standing)


def _gauge(name: str, about: str, values: Mapping[MetricLabels, float]) -> Metric:
    """One family; each value under its labels."""
    labels = next(([label for label, _ in key] for key in values), [])
    family = GaugeMetricFamily(f"homeostat_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric([text for _, text in key], value)
    return family


def _parts(request: Request) -> Metrics:
    parts: Metrics = request.app.state.metrics
    return parts


router = APIRouter(tags=["status"], responses=ERRORS)
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", response_class=Response, responses=_TEXT)
async def metrics(
    request: Request, credentials: Credentials, parts: Annotated[Metrics, Depends(_parts)]
) -> Response:
    """For Prometheus. An administrator's token, unless `api.metrics_open` is true."""
    if not parts.is_open:
        caller = await current_caller(request, credentials)
        if not caller.may_read(INFRASTRUCTURE):
            raise NotAllowed("metrics are for administrators")
    return Response(await parts.page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
