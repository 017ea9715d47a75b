"""I1: no act without a committed intent. A restart on its own host is intended on its node's disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from homeostat.contracts.events.resources import ActionFinished, ActionIntended
from homeostat.contracts.nouns import node_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I1 no act without a committed intent"


def check(evidence: Evidence) -> Iterator[Violation]:
    """In the journal an end needs an intent before it; in a story an act needs one on a disk before it."""
    intended = {each.intended_seq: each.id for each in evidence.record.actions}
    begun = {envelope.seq for envelope, _ in evidence.record.of(ActionIntended)}
    for envelope, finished in evidence.record.of(ActionFinished):
        if envelope.cause not in begun:
            yield Violation(
                NAME, envelope.subject, f"event {envelope.seq} ends {finished.action}, not intended"
            )
    for seq, action in intended.items():
        if seq not in begun:
            yield Violation(NAME, action, f"its row names event {seq}, which is no intent")
    if evidence.story is None:
        return
    recorded = set()
    fences: dict[int, str] = {
        envelope.seq: envelope.subject
        for envelope, event in evidence.record.of(ActionIntended)
        if event.verb == "fence"
    }
    ready: Counter[str] = Counter()
    for line in evidence.story.lines:
        match line.fact:
            case story.IntentRecorded(action=action):
                recorded.add(action)
            case story.Wrote(seqs=seqs):
                ready.update(fences[seq] for seq in seqs if seq in fences)
            case story.FenceBegan(host=host):
                ready[node_subject(host)] -= 1
                if ready[node_subject(host)] < 0:
                    said = f"it is fenced at {line.at_s:.3f} s and no intent is committed"
                    yield Violation(NAME, node_subject(host), said)
            case story.ActBegan(action=action, verb=verb, resource=resource) if action not in recorded:
                said = f"{verb} began at {line.at_s:.3f} s and no intent {action!r} was on any disk"
                yield Violation(NAME, resource, said)
