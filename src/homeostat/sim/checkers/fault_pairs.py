"""Raised before cleared: in the journal for each subject in turn, and at every consumer."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.nouns import FaultId, fault_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "raised before cleared"


def check(evidence: Evidence) -> Iterator[Violation]:
    """One fault of a kind is open about a subject at a time; it is cleared once, under its own id."""
    open_about: dict[tuple[str, str], FaultId] = {}
    kinds: dict[str, str] = {}
    for envelope in evidence.record.events:
        match envelope.event:
            case FaultRaised() as raised:
                before = open_about.get((raised.about, raised.kind))
                if before is not None or raised.fault in kinds:
                    said = f"raised by event {envelope.seq} while {before or 'it'} was raised already"
                    yield Violation(NAME, fault_subject(raised.fault), said)
                kinds[raised.fault] = raised.kind
                open_about[raised.about, raised.kind] = raised.fault
            case FaultCleared() as cleared:
                about = (cleared.about, kinds.get(cleared.fault, ""))
                if open_about.pop(about, None) != cleared.fault:
                    said = f"cleared by event {envelope.seq} and not raised before that"
                    yield Violation(NAME, fault_subject(cleared.fault), said)
            case _:
                pass
    if evidence.story is None:
        return
    for (subject, _), fault in open_about.items():
        yield Violation(NAME, fault_subject(fault), f"{subject} is right again and it was never cleared")
    heard: set[tuple[str, str, str]] = set()
    for at_s, each in evidence.story.of(story.Received):
        if each.transition == "cleared" and (each.subscription, each.fault, "raised") not in heard:
            said = f"{each.subscription} hears at {at_s:.3f} s that it cleared, before it heard it raised"
            yield Violation(NAME, fault_subject(FaultId(each.fault)), said)
        heard.add((each.subscription, each.fault, each.transition))
