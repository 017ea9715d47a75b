"""Whose data lay on the disk that was hit, and who held an address: from facts to rows. Pure.

A fault that nobody depends on proves nothing, however clean the run was.
"""

from __future__ import annotations

from homeostat.drills.model import Dependant, HolderMoved
from homeostat.drills.records.evidence import Evidence
from homeostat.drills.records.facts import DependantsSeen, HolderSeen, Injected
from homeostat.drills.verdicts.judgement import Row, Why
from homeostat.monitors.verdicts import Verdict


def dependant_row(evidence: Evidence, check: Dependant) -> Row:
    """INCONCLUSIVE when nobody's data lay there: to pass would say something of a disk that is not used."""
    seen = evidence.before(DependantsSeen, Injected)
    if not seen:
        verdict, why, detail = Verdict.ERROR, Why.NOT_LOOKED, ""
    else:
        last = seen[-1]
        beside = f"not on it: {', '.join(last.beside)}" if last.beside else "no data is known on this host"
        if last.on_it:
            verdict, why = Verdict.PASS, Why.DEPENDANT
            detail = f"{last.device}: {', '.join(last.on_it)}"
        else:
            verdict, why, detail = Verdict.INCONCLUSIVE, Why.NO_DEPENDANT, f"{last.device}; {beside}"
    what = "the disk that was hit has a dependant"
    return Row(requirement=check.requirement, what=what, result=verdict, why=why, detail=detail)


def holder_row(evidence: Evidence, check: HolderMoved) -> Row:
    """One host said so before and every other one no; later another one said so, and the first one no.

    Two hosts may claim an address at once, so the silence of one that had it is no proof that it went.
    """
    seen = [each for each in evidence.all(HolderSeen) if each.service == check.service]
    before = [each for each in seen if each.when == "before"]
    later = [each for each in seen if each.when != "before"]
    verdict, why = Verdict.ERROR, Why.NOT_LOOKED
    if before and later:
        held = before[-1].hosts
        if len(held) != 1:
            verdict, why = Verdict.ERROR, Why.HOLDER_UNKNOWN
        elif before[-1].silent:
            verdict, why = Verdict.INCONCLUSIVE, Why.HOLDER_UNKNOWN
        elif any(_elsewhere(each, held[0]) for each in later):
            verdict, why = Verdict.PASS, Why.HOLDER_MOVED
        elif any(each.hosts != held and (each.hosts or each.silent) for each in later):
            verdict, why = Verdict.INCONCLUSIVE, Why.HOLDER_UNKNOWN
        else:
            verdict, why = Verdict.FAIL, Why.HOLDER_STAYED
    return Row(
        requirement=check.requirement,
        what=f"the address of {check.service} moved",
        result=verdict,
        why=why,
        detail=", ".join(map(_words, seen)),
    )


def _elsewhere(seen: HolderSeen, held: str) -> bool:
    """Exactly one host, and it is known that the old holder has it not: it said no, or is proven to be off
    (the one whom the drill switched off is not asked, so it is not silent)."""
    return len(seen.hosts) == 1 and seen.hosts[0] != held and held not in seen.silent


def _words(seen: HolderSeen) -> str:
    silent = f" ({', '.join(seen.silent)} could not be asked)" if seen.silent else ""
    return f"{seen.when} the fault: {', '.join(seen.hosts) or 'nobody'}{silent}"
