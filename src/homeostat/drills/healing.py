"""What runs of dead tools left: their faults are undone, their histories closed as ABORTED.

The hosts' keepers have undone it by their deadlines anyway; this does it now, and looks. Repeats until clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.book import now_ns
from homeostat.drills.checkers import judge
from homeostat.drills.evidence import read_evidence
from homeostat.drills.facts import Aborted, Undone
from homeostat.drills.history import MANIFEST, PLAN, VERDICT, Recording, close_frozen, files_of
from homeostat.drills.judgement import judgement_record
from homeostat.drills.ledger import Ledger, Left, read_left
from homeostat.drills.transports.opening import Transports
from homeostat.drills.transports.port import HostTransport
from homeostat.kernel.errors import HomeostatError


@dataclass(frozen=True, slots=True)
class Healed:
    """One thing that was left: a fault on a host, or a run without its end."""

    what: str
    host: str | None
    ok: bool
    seen: str


async def heal(transports: Transports, hosts: list[str], runs: Path) -> list[Healed]:
    """Everything that is left, on every host and in every run whose tool is gone."""
    healed: list[Healed] = []
    for host in hosts:
        healed += await _host(transports[host])
    for folder in sorted(path.parent for path in runs.glob(f"*/{PLAN}")):
        try:
            if not (files_of(folder).closed or (left := read_left(folder)).tool_lives):
                healed.append(await _run(transports, folder, left))
        except HomeostatError as error:
            healed.append(Healed(folder.name, None, False, str(error)))
    return healed


async def _host(transport: HostTransport) -> list[Healed]:
    try:
        outcomes = await transport.heal()
    except HomeostatError as error:
        return [Healed("keeper", transport.host, False, str(error))]
    return [
        Healed(str(each["fault"]), transport.host, bool(each["undone"]), str(each["reason"]))
        for each in outcomes
    ]


async def _run(transports: Transports, folder: Path, left: Left) -> Healed:
    """Close one run. Its verdict stays when it had one; else it is ABORTED."""
    if (folder / VERDICT).exists() and (folder / MANIFEST).exists():
        close_frozen(folder)
        return Healed(folder.name, None, True, "its verdict was there; the clean-up did not end")
    gone: list[Undone] = []
    for each in left.faults:
        gone.append(await _looked(transports[each.host], each.fault))
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
