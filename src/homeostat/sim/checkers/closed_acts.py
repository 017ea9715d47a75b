"""I10: every open intent is closed after recovery, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from homeostat.contracts.events.resources import ActionFinished
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I10 every open intent is closed after recovery"


def check(evidence: Evidence) -> Iterator[Violation]:
    """The rows say what is open, the events say how often each was closed."""
    ended = Counter(event.action for _, event in evidence.record.of(ActionFinished))
    for action in evidence.record.actions:
        count = ended[action.id]
        if action.outcome is None and evidence.overdue(action.intended_ns, action.deadline_s):
            yield Violation(NAME, action.id, f"the {action.verb} of {action.about} is still open")
        elif action.outcome is not None and count != 1:
            yield Violation(NAME, action.id, f"its row is closed and {count} events say how it ended")
