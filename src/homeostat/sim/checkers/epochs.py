"""No write under an old epoch."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.fleet import TermTaken
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "no write under an old epoch"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Epochs only grow in the journal; every commit of a run was of the term's own epoch."""
    highest = 0
    for envelope, taken in evidence.record.of(TermTaken):
        if taken.epoch <= highest:
            yield Violation(NAME, envelope.subject, f"event {envelope.seq} comes after epoch {highest}")
        highest = max(highest, taken.epoch)
    if evidence.story is None:
        return
    for at_s, wrote in evidence.story.of(story.Wrote):
        if wrote.epoch != wrote.term:
            said = f"at {at_s:.3f} s epoch {wrote.epoch} wrote while the term was {wrote.term}"
            yield Violation(NAME, f"term/{wrote.epoch}", said)
