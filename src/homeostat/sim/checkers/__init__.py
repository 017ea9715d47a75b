"""The checkers of the invariants: each looks at evidence and yields the violations; none changes anything.

The simulator gives them a database and the history of what really happened; `homeostat check` has the
database only, and then a checker says what can be said from it.

A component exports the checkers of its own invariants in its record, by name. Those that compare it with the
history of a run stand here all the same, since only the simulator knows that history. The frame has checkers
of what no component owns alone: the journal, the term, and intents, which nodes and servers write alike.
"""

from homeostat.contracts.component import Violation
from homeostat.sim.checkers import actions
from homeostat.sim.checkers.actions import uncommitted_acts
from homeostat.sim.checkers.evidence import Checker, CheckerEvidence, DatabaseContents, read_database

FRAME_CHECKERS: tuple[Checker, ...] = (
    actions.check_intent_first,
    actions.check_intents_closed,
    actions.check_current_epoch,
    actions.check_acknowledged_is_committed,
)

__all__ = [
    "FRAME_CHECKERS",
    "Checker",
    "CheckerEvidence",
    "DatabaseContents",
    "Violation",
    "read_database",
    "uncommitted_acts",
]
