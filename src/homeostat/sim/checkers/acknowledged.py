"""Acknowledged means committed: what a node may forget is in the database."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.nouns import node_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "acknowledged means committed"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Nothing without a story: acknowledgements are not journaled."""
    if evidence.story is None:
        return
    for at_s, sent in evidence.story.of(story.AckSent):
        if sent.seq > sent.committed:
            said = f"at {at_s:.3f} s {sent.seq} was acknowledged and {sent.committed} was committed"
            yield Violation(NAME, node_subject(sent.host), said)
