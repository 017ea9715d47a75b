"""Heals the leftovers of dead tools: undoes faults, closes runs as ABORTED, sends their reports.

The hosts' keepers have undone the faults by their deadlines anyway; this does it now, and looks. What
cannot be done now is said, and left for the next time: it repeats until clean. A run of another site is
left alone, since a host or a cloud of the same name is another one there; one whose fault is not proven to
be gone stays open.

A host that was switched off is watched for a late fence by the rule of a living run: until our own server
shows the host up and does nothing to it. Reports are sent again when the server did not answer or their
tool was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from homeostat.drills.actions import PowerOffFault
from homeostat.drills.planning.preparation import injector_order
from homeostat.drills.records import history
from homeostat.drills.records.evidence import Ledger, Leftovers, PendingUndo, read_evidence, read_leftovers
from homeostat.drills.records.facts import Aborted, CleanedUp, Undone
from homeostat.drills.reports.model import report_of
from homeostat.drills.running.announcement import server_announcer
from homeostat.drills.running.cancellation import RunDependencies
from homeostat.drills.running.cleanup import DELETES, delete_made
from homeostat.drills.running.engine import UNDO_WITHIN_S
from homeostat.drills.running.injection import FaultInjection, LateFenceCheck
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.site import SiteServer
from homeostat.drills.transports.port import HostTransport
from homeostat.drills.verdicts.evaluation import judge, verify
from homeostat.drills.verdicts.judgement import judgement_record
from homeostat.kernel.errors import HomeostatError, RetryLater


@dataclass(frozen=True, slots=True)
class HealedItem:
    """One thing that was left: a fault on a host, a run without its end, or a report that was not sent.

    `reports`: all of them, when the server did not answer at all.
    """

    what: str
    host: str | None
    ok: bool
    seen: str


async def send_unreported(parts: RunDependencies, *, asked_for: bool) -> list[HealedItem]:
    """Send what lies here, closed. `asked_for`: a server that does not answer is a row, else only a line."""
    server = parts.site.server
    if server is None:
        return []
    here = {path.parent.name: path.parent for path in parts.runs.glob(f"*/{history.PLAN}")}
    try:
        unreported = await server_announcer(server.url, server.token_file).unreported()
    except HomeostatError as error:
        words = f"the site's server was not told: {error}; `homeostat drill heal` once more when it answers"
        parts.progress.say(words)
        return [HealedItem("reports", None, False, words)] if asked_for else []
    told: list[HealedItem] = []
    for run in unreported:
        try:
            if run in here and history.check_folder(here[run]).closed:
                verdict = await _send(server, run, here[run])
                told.append(HealedItem(run, None, True, f"the site's server knows: {verdict}"))
        except HomeostatError as error:
            told.append(HealedItem(run, None, False, f"the site's server has no report of it: {error}"))
    return told


async def _send(server: SiteServer, run: str, folder: Path) -> str:
    report = report_of(verify(folder), history.read_cleanup(folder))
    announcing = server_announcer(server.url, server.token_file, run)
    await announcing.finish(report.model_dump(mode="json"))
    return report.verdict.value


async def wait_for_late_fence(
    parts: RunDependencies, fault: PowerOffFault, victim: str, undo: PendingUndo
) -> Undone:
    """Switched on until nobody fences it any more. RetryLater, with what to do, when somebody still may."""
    site = parts.site
    within_s = site.drills.undo_deadline_s + UNDO_WITHIN_S
    parts.progress.say(f"looking whether {victim} stays on, for at most {within_s:g} s")
    order = injector_order(site, fault, victim, undo.fault, site.drills.undo_deadline_s)
    breaking = FaultInjection(parts.transports[undo.host], order)
    late = LateFenceCheck(partial(parts.looking.fenced_late, victim))
    said, coming = await breaking.undone_for_good(within_s, late)
    if coming is not None:
        remedy = "`homeostat drill heal` looks again; else start it (in a lab: `homeostat lab start-host`)"
        raise RetryLater(f"{said.seen}; {coming}; {remedy}")
    return said


async def heal(parts: RunDependencies) -> list[HealedItem]:
    """Everything that is left, on every host, in every run whose tool is gone, and of its test objects."""
    healed: list[HealedItem] = []
    for host in sorted(parts.site.hosts):
        healed += await _host(parts.transports[host])
    for folder in sorted(path.parent for path in parts.runs.glob(f"*/{history.PLAN}")):
        try:
            if not (history.check_folder(folder).closed or (left := read_leftovers(folder)).tool_lives):
                healed.append(await _run(parts, folder, left))
        except HomeostatError as error:
            healed.append(HealedItem(folder.name, None, False, str(error)))
    return healed + await send_unreported(parts, asked_for=bool(healed))


async def _host(transport: HostTransport) -> list[HealedItem]:
    try:
        outcomes = await transport.heal()
    except HomeostatError as error:
        return [HealedItem("keeper", transport.host, False, str(error))]
    return [
        HealedItem(str(each["fault"]), transport.host, bool(each["undone"]), str(each["reason"]))
        for each in outcomes
    ]


async def _run(parts: RunDependencies, folder: Path, left: Leftovers) -> HealedItem:
    """Close one run. Its verdict stays when it had one; else it is ABORTED. Open while something is left."""
    if left.site not in (None, parts.site.site):
        remedy = f"`homeostat drill heal --site FILE` with the file of {left.site}"
        return HealedItem(
            folder.name, None, False, f"it is of site {left.site} and was not touched: {remedy}"
        )
    gone = [(each, await _is_gone(parts, folder, each)) for each in left.faults]
    ok, seen = all(said.proven for _, said in gone), [said.seen for _, said in gone]
    if (folder / history.VERDICT).exists() and (folder / history.MANIFEST).exists():
        _note_late_undo(folder, gone)
        seen.insert(0, "its verdict was there; the clean-up did not end")
    else:
        _close_judged(folder, gone)
        seen = seen or ["nothing was broken"]
    if any(each.kind == DELETES for each in history.read_plan(folder).drill.cleanup):
        done = await _delete_objects(parts, folder)
        ok = ok and done.ok
        seen.append(done.seen)
    if ok:
        history.close_frozen(folder)
    return HealedItem(folder.name, None, ok, "; ".join(seen))


async def _is_gone(parts: RunDependencies, folder: Path, left: PendingUndo) -> Undone:
    """Whether a fault is gone. RetryLater while somebody may still do what it did."""
    if left.host not in parts.site.hosts:
        words = f"site {parts.site.site} has no host {left.host} any more, which has to say that it is undone"
        return Undone(False, words)
    plan = history.read_plan(folder)
    if isinstance(plan.drill.fault, PowerOffFault):
        return await wait_for_late_fence(parts, plan.drill.fault, plan.victims[0], left)
    return await _keeper_has(parts.transports[left.host], left.fault)


def _close_judged(folder: Path, gone: Sequence[tuple[PendingUndo, Undone]]) -> None:
    """Its history ends with a verdict, whatever is known of its faults by now."""
    with history.Recording(folder, goes_on=True) as recording, Ledger(folder) as ledger:
        recording.note(Aborted("homeostat drill heal", "the tool ended without its verdict"), now_ns())
        for undo, said in gone:
            recording.note(said, now_ns())
            if said.proven:
                ledger.undone(undo.fault, said.seen)
        recording.freeze(judgement_record(judge(read_evidence(folder))))


def _note_late_undo(folder: Path, gone: Sequence[tuple[PendingUndo, Undone]]) -> None:
    """What came of faults that were not known to be gone when the verdict was frozen: that stays."""
    if not gone:
        return
    with closing(history.FactLog(folder / history.CLEANUP, goes_on=True)) as log, Ledger(folder) as ledger:
        for undo, said in gone:
            step = f"undo {undo.fault} on {undo.host} by drill heal"
            log.note(CleanedUp(step, said.proven, said.seen), now_ns())
            if said.proven:
                ledger.undone(undo.fault, said.seen)


async def _delete_objects(parts: RunDependencies, folder: Path) -> CleanedUp:
    """The test objects of a run, by its ledger; what comes of it stands beside what its tool did."""
    with closing(history.FactLog(folder / history.CLEANUP, goes_on=True)) as log, Ledger(folder) as ledger:
        try:
            done = await delete_made(parts, folder, ledger)
        except (HomeostatError, OSError) as error:
            done = CleanedUp(DELETES, False, str(error))
        log.note(replace(done, step=f"{done.step} by drill heal"), now_ns())
    return done


async def _keeper_has(transport: HostTransport, fault: str) -> Undone:
    """Whether the keeper still has it, after it was asked to undo everything."""
    try:
        still = fault in (await transport.status())["open"]
    except HomeostatError as error:
        return Undone(False, str(error))
    host = transport.host
    return Undone(not still, f"the keeper of {host} still has {fault}" if still else f"{host} has undone it")
