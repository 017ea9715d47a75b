"""One module an invariant. Each looks at evidence and yields what is wrong; none of them changes anything.

The simulator gives them a database and the story of what really happened; `homeostat check` has the database
only, and then a checker says what can be said from it.
"""

from homeostat.sim.checkers import (
    accused,
    acknowledged,
    at_home,
    closed_acts,
    committed_intent,
    deaths,
    epochs,
    fault_pairs,
    fenced_first,
    gated,
    one_host,
    told,
    told_once,
    trials,
)
from homeostat.sim.checkers.evidence import Checker, Evidence, Record, Violation, read_record

CHECKERS: tuple[Checker, ...] = (
    committed_intent.check,
    told.check,
    told_once.check,
    one_host.check,
    fenced_first.check,
    closed_acts.check,
    fault_pairs.check,
    deaths.check,
    epochs.check,
    acknowledged.check,
    accused.check,
    gated.check,
    trials.check,
    at_home.check,
)

__all__ = ["CHECKERS", "Checker", "Evidence", "Record", "Violation", "read_record"]
