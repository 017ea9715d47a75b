"""What runs of dead tools left: faults are undone, histories closed as ABORTED, reports sent to the server.

The hosts' keepers have undone it by their deadlines anyway; this does it now, and looks. What cannot be done
now is said, and left for the next time: it repeats until clean. A run of another site is left alone, since a
host or a cloud of the same name is another one there; one whose fault is not proven to be gone stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from homeostat.drills.fault import HostOff
from homeostat.drills.leftovers.late_fences import stays_on
from homeostat.drills.leftovers.unreported import tell_unreported
from homeostat.drills.records.book import now_ns
from homeostat.drills.records.evidence import read_evidence
from homeostat.drills.records.facts import Aborted, CleanedUp, Undone
from homeostat.drills.records.history import (
    CLEANUP,
    MANIFEST,
    PLAN,
    VERDICT,
    Log,
    Recording,
    close_frozen,
    files_of,
    read_plan,
)
from homeostat.drills.records.ledger import Ledger, Left, Undo, read_left
from homeostat.drills.running.cleaning import DELETES, delete_made
from homeostat.drills.running.ordered import Parts
from homeostat.drills.transports.port import HostTransport
from homeostat.drills.verdicts.checkers import judge
from homeostat.drills.verdicts.judgement import judgement_record
from homeostat.kernel.errors import HomeostatError


@dataclass(frozen=True, slots=True)
class Healed:
    """One thing that was left: a fault on a host, a run without its end, or a report that was not sent."""

    what: str
    host: str | None
    ok: bool
    seen: str


async def heal(parts: Parts) -> list[Healed]:
    """Everything that is left, on every host, in every run whose tool is gone, and of its test objects."""
    healed: list[Healed] = []
    for host in sorted(parts.site.hosts):
        healed += await _host(parts.transports[host])
    for folder in sorted(path.parent for path in parts.runs.glob(f"*/{PLAN}")):
        try:
            if not (files_of(folder).closed or (left := read_left(folder)).tool_lives):
                healed.append(await _run(parts, folder, left))
        except HomeostatError as error:
            healed.append(Healed(folder.name, None, False, str(error)))
    told = await tell_unreported(parts, asked_for=bool(healed))
    return healed + [Healed(each.what, None, each.ok, each.seen) for each in told]


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
    """Close one run. Its verdict stays when it had one; else it is ABORTED. Open while something is left."""
    if left.site not in (None, parts.site.site):
        remedy = f"`homeostat drill heal --site FILE` with the file of {left.site}"
        return Healed(folder.name, None, False, f"it is of site {left.site} and was not touched: {remedy}")
    gone = [(each, await _gone(parts, folder, each)) for each in left.faults]
    ok, seen = all(said.proven for _, said in gone), [said.seen for _, said in gone]
    if (folder / VERDICT).exists() and (folder / MANIFEST).exists():
        _noted(folder, gone)
        seen.insert(0, "its verdict was there; the clean-up did not end")
    else:
        _judged(folder, gone)
        seen = seen or ["nothing was broken"]
    if any(each.kind == DELETES for each in read_plan(folder).drill.cleanup):
        done = await _deleted(parts, folder)
        ok = ok and done.ok
        seen.append(done.seen)
    if ok:
        close_frozen(folder)
    return Healed(folder.name, None, ok, "; ".join(seen))


async def _gone(parts: Parts, folder: Path, left: Undo) -> Undone:
    """Whether a fault is gone. RetryLater while somebody may still do what it did."""
    if left.host not in parts.site.hosts:
        words = f"site {parts.site.site} has no host {left.host} any more, which has to say that it is undone"
        return Undone(False, words)
    plan = read_plan(folder)
    if isinstance(plan.drill.fault, HostOff):
        return await stays_on(parts, plan.drill.fault, plan.victims[0], left)
    return await _looked(parts.transports[left.host], left.fault)


def _judged(folder: Path, gone: Sequence[tuple[Undo, Undone]]) -> None:
    """Its history ends with a verdict, whatever is known of its faults by now."""
    with Recording.reopened(folder) as recording, Ledger(folder) as ledger:
        recording.note(Aborted("homeostat drill heal", "the tool ended without its verdict"), now_ns())
        for undo, said in gone:
            recording.note(said, now_ns())
            if said.proven:
                ledger.undone(undo.fault, said.seen)
        recording.freeze(judgement_record(judge(read_evidence(folder))))


def _noted(folder: Path, gone: Sequence[tuple[Undo, Undone]]) -> None:
    """What came of faults that were not known to be gone when the verdict was frozen: that stays."""
    if not gone:
        return
    with closing(Log(folder / CLEANUP, goes_on=True)) as log, Ledger(folder) as ledger:
        for undo, said in gone:
            step = f"undo {undo.fault} on {undo.host} by drill heal"
            log.note(CleanedUp(step, said.proven, said.seen), now_ns())
            if said.proven:
                ledger.undone(undo.fault, said.seen)


async def _deleted(parts: Parts, folder: Path) -> CleanedUp:
    """The test objects of a run, by its ledger; what comes of it stands beside what its tool did."""
    with closing(Log(folder / CLEANUP, goes_on=True)) as log, Ledger(folder) as ledger:
        try:
            done = await delete_made(parts, folder, ledger)
        except (HomeostatError, OSError) as error:
            done = CleanedUp(DELETES, False, str(error))
        log.note(replace(done, step=f"{done.step} by drill heal"), now_ns())
    return done


async def _looked(transport: HostTransport, fault: str) -> Undone:
    """Whether the keeper still has it, after it was asked to undo everything."""
    try:
        still = fault in (await transport.status())["open"]
    except HomeostatError as error:
        return Undone(False, str(error))
    host = transport.host
    return Undone(not still, f"the keeper of {host} still has {fault}" if still else f"{host} has undone it")
