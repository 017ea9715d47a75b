"""What runs of dead tools left: faults are undone, histories closed as ABORTED, reports sent to the server.

The hosts' keepers have undone it by their deadlines anyway; this does it now, and looks. What cannot be done
now is said, and left for the next time: it repeats until clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from homeostat.drills.announcing import announcing_to
from homeostat.drills.book import now_ns
from homeostat.drills.breaking import UNDO_WITHIN_S, Breaking, Late
from homeostat.drills.checkers import judge
from homeostat.drills.evidence import read_evidence
from homeostat.drills.facts import Aborted, Undone
from homeostat.drills.history import (
    MANIFEST,
    PLAN,
    VERDICT,
    Recording,
    close_frozen,
    files_of,
    read_cleanup,
    read_plan,
)
from homeostat.drills.judgement import judgement_record
from homeostat.drills.ledger import Ledger, Left, Undo, read_left
from homeostat.drills.model import HostOff
from homeostat.drills.ordered import Parts
from homeostat.drills.preparation import order_of
from homeostat.drills.reports.model import report_of
from homeostat.drills.transports.port import HostTransport
from homeostat.drills.verification import verify
from homeostat.kernel.errors import HomeostatError


@dataclass(frozen=True, slots=True)
class Healed:
    """One thing that was left: a fault on a host, a run without its end, or a report that was not sent."""

    what: str
    host: str | None
    ok: bool
    seen: str


async def heal(parts: Parts) -> list[Healed]:
    """Everything that is left, on every host and in every run whose tool is gone."""
    healed: list[Healed] = []
    for host in sorted(parts.site.hosts):
        healed += await _host(parts.transports[host])
    closed = 0
    for folder in sorted(path.parent for path in parts.runs.glob(f"*/{PLAN}")):
        try:
            if not (files_of(folder).closed or (left := read_left(folder)).tool_lives):
                healed.append(await _run(parts, folder, left))
                closed += 1
        except HomeostatError as error:
            healed.append(Healed(folder.name, None, False, str(error)))
    return healed + await _told(parts, closed)


async def _host(transport: HostTransport) -> list[Healed]:
    try:
        outcomes = await transport.heal()
    except HomeostatError as error:
        return [Healed("keeper", transport.host, False, str(error))]
    return [
        Healed(str(each["fault"]), transport.host, bool(each["undone"]), str(each["reason"]))
        for each in outcomes
    ]


async def _run(parts: Parts, folder: Path, left: Left) -> Healed:
    """Close one run. Its verdict stays when it had one; else it is ABORTED."""
    if (folder / VERDICT).exists() and (folder / MANIFEST).exists():
        close_frozen(folder)
        return Healed(folder.name, None, True, "its verdict was there; the clean-up did not end")
    plan = read_plan(folder)
    gone: list[Undone] = []
    for each in left.faults:
        if each.host not in parts.site.hosts:
            gone.append(Undone(False, f"site {parts.site.site} has no host {each.host} any more"))
        elif isinstance(plan.drill.fault, HostOff):
            victim = plan.victims[0]
            said, coming = await _stays_on(parts, plan.drill.fault, victim, each)
            if coming is not None:
                remedy = "`homeostat drill heal` looks again; else start it (in a lab: `homeostat lab"
                return Healed(folder.name, victim, False, f"{said.seen}; {coming}; {remedy} start-host`)")
            gone.append(said)
        else:
            gone.append(await _looked(parts.transports[each.host], each.fault))
    with Recording.reopened(folder) as recording, Ledger(folder) as ledger:
        recording.note(Aborted("homeostat drill heal", "the tool ended without its verdict"), now_ns())
        for undo, said in zip(left.faults, gone, strict=True):
            recording.note(said, now_ns())
            if said.proven:
                ledger.undone(undo.fault, said.seen)
        recording.freeze(judgement_record(judge(read_evidence(folder))))
        recording.close()
    ok = all(each.proven for each in gone)
    return Healed(folder.name, None, ok, "; ".join(each.seen for each in gone) or "nothing was broken")


async def _looked(transport: HostTransport, fault: str) -> Undone:
    """Whether the keeper still has it, after it was asked to undo everything."""
    try:
        still = fault in (await transport.status())["open"]
    except HomeostatError as error:
        return Undone(False, str(error))
    host = transport.host
    return Undone(not still, f"the keeper of {host} still has {fault}" if still else f"{host} has undone it")


async def _stays_on(parts: Parts, fault: HostOff, victim: str, undo: Undo) -> tuple[Undone, str | None]:
    """By the rule of a run: a host that was off is switched on until nobody fences it any more."""
    site = parts.site
    within_s = site.drills.undo_deadline_s + UNDO_WITHIN_S
    parts.progress.say(f"looking whether {victim} stays on, for at most {within_s:g} s")
    order = order_of(site, fault, victim, undo.fault, site.drills.undo_deadline_s)
    breaking = Breaking(parts.transports[undo.host], order)
    return await breaking.undone_for_good(within_s, Late(partial(parts.looking.fenced_late, victim)))


async def _told(parts: Parts, closed: int) -> list[Healed]:
    """The reports that the site's server does not have of runs that lie here, closed now or before."""
    server = parts.site.server
    if server is None:
        return []
    here = {path.parent.name: path.parent for path in parts.runs.glob(f"*/{PLAN}")}
    try:
        unreported = await announcing_to(server.url, server.token_file).unreported()
    except HomeostatError as error:
        parts.progress.say(f"the site's server cannot be asked which reports it has: {error}")
        again = "once more when it answers"
        words = f"the site's server was not told: {error}; `homeostat drill heal` {again}"
        return [Healed("reports", None, False, words)] if closed else []
    healed: list[Healed] = []
    for run in unreported:
        try:
            if run in here and files_of(here[run]).closed:
                report = report_of(verify(here[run]), read_cleanup(here[run]))
                announcing = announcing_to(server.url, server.token_file, run)
                await announcing.finish(report.model_dump(mode="json"))
                healed.append(Healed(run, None, True, f"the site's server knows: {report.verdict.value}"))
        except HomeostatError as error:
            healed.append(Healed(run, None, False, f"the site's server has no report of it: {error}"))
    return healed
