"""Runs drills one after the other: hosts, repeats, suites, denser repetitions, and dry runs.

One failure does not affect the next: each run has its own set-up and its own verdict. A person who stops
one stops them all. A dry run asks hosts and touches nothing. How a single run goes is in `engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from homeostat.drills.actions import VictimChoice
from homeostat.drills.model import Dependant, Drill, Operation, Quiesce
from homeostat.drills.planning import preparation
from homeostat.drills.planning.blast_radius import (
    dependants_in,
    hit_services,
    last_back_ends,
    verdict_services,
)
from homeostat.drills.planning.preflight import can_be_denser
from homeostat.drills.planning.service_client import ServiceClient, check_certificates, read_tls_trust
from homeostat.drills.records.evidence import DrillProgress
from homeostat.drills.records.history import read_cleanup
from homeostat.drills.reports.model import DrillReport, report_of
from homeostat.drills.running import cancellation
from homeostat.drills.running.engine import DrillRun
from homeostat.drills.running.injection import FaultInjection
from homeostat.drills.running.measurement import ORDERS, has_cloud_client
from homeostat.drills.running.operations import name_of
from homeostat.drills.site import Site
from homeostat.drills.transports.connections import Transports
from homeostat.drills.verdicts.evaluation import verify
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, NotFound, StoreFull
from homeostat.kernel.files import hold_lock
from homeostat.monitors.verdicts import Verdict, VerdictReason

_DENSER_HELPS = VerdictReason.LIMIT_WITHIN_BOUNDS.name
_LATE = VerdictReason.PROBER_LATE.name
_DISTURBED = VerdictReason.BASELINE_FAILED.name


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a person asked for."""

    drills: tuple[Drill, ...]
    seed: int = 0
    each: bool = False
    repeat: int = 1
    strict_steps: bool = False
    suite: str | None = None
    quiesce: Quiesce | None = None


@asynccontextmanager
async def open_runs(
    site: Site, runs: Path, progress: DrillProgress, *, even_halted: bool = False
) -> AsyncIterator[cancellation.RunDependencies]:
    """Everything that runs share, and the site for ourselves. AlreadyRunning, NotAllowed while halted."""
    if not even_halted and (words := cancellation.halt_reason(runs)) is not None:
        raise NotAllowed(f"{runs}: {words}; `homeostat drill resume` lets drills run again")
    stop = cancellation.StopRequest(progress.say)
    with hold_lock(runs / cancellation.LOCK, cancellation.TAKEN), _orders(runs / ORDERS) as orders:
        asking = ServiceClient(await read_tls_trust(site))
        async with cancellation.signals_stop(stop), asking as asker, Transports(site, orders) as transports:
            yield cancellation.RunDependencies(site, transports, asker, runs, stop, progress)


@contextmanager
def _orders(folder: Path) -> Iterator[Path]:
    """A folder for the records of faults, empty at both ends; what a dead tool left in it goes."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def open_read_only(
    site: Site, runs: Path, progress: DrillProgress
) -> AsyncIterator[cancellation.RunDependencies]:
    """The same for who only looks: beside a drill that runs, and without telling anybody."""
    stop, asking = cancellation.StopRequest(), ServiceClient(await read_tls_trust(site))
    with TemporaryDirectory(prefix="homeostat-drill-") as orders:
        async with asking as asker, Transports(site, Path(orders)) as transports:
            yield cancellation.RunDependencies(site, transports, asker, runs, stop, progress)


async def run_all(parts: cancellation.RunDependencies, wanted: RunRequest) -> list[DrillReport]:
    """A report for each run that stands; one that could not decide is followed by another one instead."""
    reports: list[DrillReport] = []
    for drill in wanted.drills:
        for number in range(wanted.repeat):
            for ordered in await _ordered(parts, wanted, drill, wanted.seed + number):
                if parts.stop.reason is not None:
                    return reports
                reports.append(await _until_it_decides(parts, ordered))
    return reports


async def _ordered(
    parts: cancellation.RunDependencies, wanted: RunRequest, drill: Drill, seed: int
) -> list[cancellation.RunOrder]:
    """One for each host that the rule chooses; one without a victim when it chooses none."""
    one = cancellation.RunOrder(drill, None, seed, wanted.suite, wanted.strict_steps, wanted.quiesce)
    choose = VictimChoice.EACH if wanted.each else drill.fault.target.choose
    try:
        left, left_out = preparation.fit_to_site(parts.site, drill, client_there=has_cloud_client(parts.site))
        one = replace(one, drill=left, left_out=left_out)
        holders = await parts.looking.holders(drill)
        chosen = preparation.victims(
            preparation.candidates(parts.site, drill.fault.target), choose, seed, holders
        )
    except HomeostatError as error:
        return [replace(one, unfit=str(error))]
    return [replace(one, victim=host) for host in chosen]


async def _until_it_decides(
    parts: cancellation.RunDependencies, ordered: cancellation.RunOrder
) -> DrillReport:
    report = await _one(parts, ordered)
    for _ in range(parts.site.drills.denser_at_most):
        if parts.stop.reason is not None:
            break
        if undecided_by_resolution(report) and can_be_denser(ordered.drill, ordered.denser):
            ordered = replace(ordered, denser=ordered.denser + 1)
            words = "could not decide for its period alone; once more with half of it"
        elif undecided_by_lateness(report):
            words = "could not decide: the prober itself was late; once more"
        elif undecided_by_baseline(report):
            words = "proves nothing: not all was well just before the fault; run again"
        else:
            break
        parts.progress.say(f"{report.run} {words}")
        report = await _one(parts, ordered)
    return report


def undecided_by_resolution(report: DrillReport) -> bool:
    """Whether half the period would help: every undecided row has its limit within the bounds."""
    return report.verdict is Verdict.INCONCLUSIVE and _undecided(report) == {_DENSER_HELPS}


def undecided_by_lateness(report: DrillReport) -> bool:
    """Whether the prober's own lateness spoilt it: half the period would make that worse."""
    reasons = _undecided(report)
    return report.verdict is Verdict.INCONCLUSIVE and _LATE in reasons <= {_LATE, _DENSER_HELPS}


def _undecided(report: DrillReport) -> set[str]:
    """Why, of every binding row that nobody knows of."""
    return {row.reason for row in report.rows if row.binding and row.result is Verdict.INCONCLUSIVE}


def undecided_by_baseline(report: DrillReport) -> bool:
    """Whether nothing but a bad moment between the clean baseline and the fault spoilt it."""
    wrong = [row for row in report.rows if row.binding and row.result is not Verdict.PASS]
    return report.verdict is Verdict.ERROR and all(row.reason == _DISTURBED for row in wrong)


async def _one(parts: cancellation.RunDependencies, ordered: cancellation.RunOrder) -> DrillReport:
    run = DrillRun(parts, ordered)
    try:
        report = read_report(await run.execute())
    except OSError as error:  # what is broken has been undone; the history could not be written
        raise StoreFull(f"{run.folder}: {error.strerror}; make room, then `homeostat drill heal`") from error
    parts.progress.say(f"{report.verdict.value}  {report.drill}, run {report.run}")
    try:
        await run.announcing.finish(report.model_dump(mode="json"))
    except HomeostatError as error:
        parts.progress.say(f"our own server has no report of {report.run}: {error}")
    return report


def read_report(folder: Path) -> DrillReport:
    return report_of(verify(folder), read_cleanup(folder))


async def plan_runs(parts: cancellation.RunDependencies, wanted: RunRequest) -> list[dict[str, object]]:
    """A dry run: exactly what would be hit, by what, and how it would be undone. Touches nothing."""
    found = []
    for drill in wanted.drills:
        for ordered in await _ordered(parts, wanted, drill, wanted.seed):
            if ordered.unfit is not None:
                raise NotFound(f"{drill.id}: {ordered.unfit}")
            found.append(await dry_run(parts, ordered))
    return found


def exit_code(reports: Sequence[DrillReport]) -> int:
    """Of the worst; BadInput when nothing ran."""
    if not reports:
        raise BadInput("ID", None, "at least one drill that was run; it was ended before the first")
    return max(each.exit_code for each in reports)


async def dry_run(parts: cancellation.RunDependencies, ordered: cancellation.RunOrder) -> dict[str, object]:
    """`matched`, `does`, `undo`, and what would keep it from running (`refused`).

    `permitted`: whether the host lets this be done to it at all.
    """
    site, drill, victim = parts.site, ordered.drill, str(ordered.victim)
    preparation.check_fit(site, drill, victim)
    host = preparation.injector_host(site, drill.fault, victim)
    order = preparation.injector_order(
        site, drill.fault, victim, f"dry-{drill.id}"[:63], site.drills.undo_deadline_s
    )
    breaking = FaultInjection(parts.transports[host], order)
    told: dict[str, object] = {"drill": drill.id, "victim": victim, "injector": order["injector"], "by": host}
    if ordered.left_out:
        told["left_out"] = [f"{each.monitor}: {each.why}" for each in ordered.left_out]
    if drill.operations.all:
        told["operations"] = [*_operations(site, drill, victim)]
    refused: list[str] = []
    permitted = True
    try:
        await check_certificates(parts.asker.trust, site, drill, victim)
    except BadInput as error:
        refused.append(str(error))
    try:
        plan = await breaking.plan()
        told |= {"does": plan["does"], "matched": plan.get("matched", []), "undo": plan["undo"]}
        if any(isinstance(each, Dependant) for each in drill.checks):
            told["dependants"] = list(dependants_in(plan, verdict_services(site, drill)).on_it)
    except cancellation.NotBegun as error:
        refused.append(error.what)
    except HomeostatError as error:
        refused.append(str(error))
        permitted = not isinstance(error, NotAllowed)
    for number in range(len(drill.preconditions)):
        seen = await parts.looking.precondition(number, drill, victim)
        if not seen.held:
            refused.append(seen.seen)
    hit = hit_services(site, drill, victim)
    refused += last_back_ends(site, victim, {name: await parts.looking.serving(name) for name in hit}, hit)
    more = {"permitted": permitted, "refused": refused, "undo_deadline_s": site.drills.undo_deadline_s}
    return told | more


def _operations(site: Site, drill: Drill, victim: str) -> Iterator[str]:
    """What is asked of whom, in order; what is created has a name of the run."""
    for phase, steps in drill.operations.by_phase.items():
        for each in steps:
            if isinstance(each, Operation):
                yield f"{phase} {each.id}: {each.method} {preparation.operation_url(site, each, victim)}"
            else:
                cloud = preparation.cloud_of(site, each.id).name
                yield f"{phase} {each.id}: {each.does} {name_of('RUN', each.what)} in cloud {cloud}"
