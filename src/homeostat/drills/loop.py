"""Runs one after the other: several drills, each of a service's hosts, repeats, suites, and what could not
decide once more.

One failure does not affect the next: each run has its own set-up and its own verdict. A person who stops one
stops them all. Not the place that knows how a run goes (`engine`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from homeostat.drills.fault import Choice
from homeostat.drills.model import Drill, Quiesce
from homeostat.drills.planning.asking import Asker
from homeostat.drills.planning.fitting import fitted
from homeostat.drills.planning.preparation import candidates, victims
from homeostat.drills.planning.sampling import can_be_denser
from homeostat.drills.planning.trusting import trusted
from homeostat.drills.progress import Progress
from homeostat.drills.records.history import read_cleanup
from homeostat.drills.reports.model import DrillReport, report_of
from homeostat.drills.running.engine import Run, denser
from homeostat.drills.running.monitoring import ORDERS, client_there
from homeostat.drills.running.ordered import Ordered, Parts
from homeostat.drills.running.site_lock import halted, only_drill
from homeostat.drills.running.stopping import Stop, signals_stop
from homeostat.drills.site import Site
from homeostat.drills.transports.opening import Transports
from homeostat.drills.verdicts.verification import verify
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, NotFound, StoreFull
from homeostat.monitors.verdicts import Reason, Verdict

_DENSER_HELPS = Reason.LIMIT_WITHIN_BOUNDS.name
_LATE = Reason.PROBER_LATE.name
_DISTURBED = Reason.BASELINE_FAILED.name


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked for."""

    drills: tuple[Drill, ...]
    seed: int = 0
    each: bool = False
    repeat: int = 1
    strict_steps: bool = False
    suite: str | None = None
    quiesce: Quiesce | None = None


@asynccontextmanager
async def opened(
    site: Site, runs: Path, progress: Progress, *, even_halted: bool = False
) -> AsyncIterator[Parts]:
    """Everything that runs share, and the site for ourselves. AlreadyRunning, NotAllowed while halted."""
    if not even_halted and (words := halted(runs)) is not None:
        raise NotAllowed(f"{runs}: {words}; `homeostat drill resume` lets drills run again")
    stop = Stop(progress.say)
    with only_drill(runs, f"a drill of site {site.site}"), _orders(runs / ORDERS) as orders:
        asking = Asker(await trusted(site))
        async with signals_stop(stop), asking as asker, Transports(site, orders) as transports:
            yield Parts(site, transports, asker, runs, stop, progress)


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
async def looked_at(site: Site, runs: Path, progress: Progress) -> AsyncIterator[Parts]:
    """The same for who only looks: beside a drill that runs, and without telling anybody."""
    with TemporaryDirectory(prefix="homeostat-drill-") as orders:
        async with Asker(await trusted(site)) as asker, Transports(site, Path(orders)) as transports:
            yield Parts(site, transports, asker, runs, Stop(), progress)


async def run_all(parts: Parts, wanted: Wanted) -> list[DrillReport]:
    """A report for each run that stands; one that could not decide is followed by another one instead."""
    reports: list[DrillReport] = []
    for drill in wanted.drills:
        for number in range(wanted.repeat):
            for ordered in await _ordered(parts, wanted, drill, wanted.seed + number):
                if parts.stop.reason is not None:
                    return reports
                reports.append(await _until_it_decides(parts, ordered))
    return reports


async def _ordered(parts: Parts, wanted: Wanted, drill: Drill, seed: int) -> list[Ordered]:
    """One for each host that the rule chooses; one without a victim when it chooses none."""
    one = Ordered(drill, None, seed, wanted.suite, wanted.strict_steps, wanted.quiesce)
    choose = Choice.EACH if wanted.each else drill.fault.target.choose
    try:
        left, left_out = fitted(parts.site, drill, client_there=client_there(parts.site))
        one = replace(one, drill=left, left_out=left_out)
        holders = await parts.looking.holders(drill)
        chosen = victims(candidates(parts.site, drill.fault.target), choose, seed, holders)
    except HomeostatError as error:
        return [replace(one, unfit=str(error))]
    return [replace(one, victim=host) for host in chosen]


async def _until_it_decides(parts: Parts, ordered: Ordered) -> DrillReport:
    report = await _one(parts, ordered)
    for _ in range(parts.site.drills.denser_at_most):
        if parts.stop.reason is not None:
            break
        if only_too_coarse(report) and can_be_denser(ordered.drill, ordered.denser):
            ordered = denser(ordered)
            words = "could not decide for its period alone; once more with half of it"
        elif only_late(report):
            words = "could not decide: the prober itself was late; once more"
        elif only_disturbed(report):
            words = "says nothing: not all was well in the moment before the fault; once more"
        else:
            break
        parts.progress.say(f"{report.run} {words}")
        report = await _one(parts, ordered)
    return report


def only_too_coarse(report: DrillReport) -> bool:
    """Whether half the period would help: every undecided row has its limit within the bounds."""
    return report.verdict is Verdict.INCONCLUSIVE and _undecided(report) == {_DENSER_HELPS}


def only_late(report: DrillReport) -> bool:
    """Whether the prober's own lateness spoilt it: half the period would make that worse."""
    reasons = _undecided(report)
    return report.verdict is Verdict.INCONCLUSIVE and _LATE in reasons <= {_LATE, _DENSER_HELPS}


def _undecided(report: DrillReport) -> set[str]:
    """Why, of every binding row that nobody knows of."""
    return {row.reason for row in report.rows if row.binding and row.result is Verdict.INCONCLUSIVE}


def only_disturbed(report: DrillReport) -> bool:
    """Whether nothing but a bad moment between the clean baseline and the fault spoilt it."""
    wrong = [row for row in report.rows if row.binding and row.result is not Verdict.PASS]
    return report.verdict is Verdict.ERROR and all(row.reason == _DISTURBED for row in wrong)


async def _one(parts: Parts, ordered: Ordered) -> DrillReport:
    run = Run(parts, ordered)
    try:
        report = report_in(await run.execute())
    except OSError as error:  # what is broken has been undone; the history could not be written
        raise StoreFull(f"{run.folder}: {error.strerror}; make room, then `homeostat drill heal`") from error
    parts.progress.say(f"{report.verdict.value}  {report.drill}, run {report.run}")
    try:
        await run.announcing.finish(report.model_dump(mode="json"))
    except HomeostatError as error:
        parts.progress.say(f"our own server has no report of {report.run}: {error}")
    return report


def report_in(folder: Path) -> DrillReport:
    """The report of a run, from its files."""
    return report_of(verify(folder), read_cleanup(folder))


async def planned(parts: Parts, wanted: Wanted) -> list[dict[str, object]]:
    """A dry run: exactly what would be hit, by what, and how it would be undone. Touches nothing."""
    from homeostat.drills.running.dry_run import dry_run

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
