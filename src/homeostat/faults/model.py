"""The private nouns of the faults room."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, Severity
from homeostat.kernel.journal import Local, Seq


class FaultState(StrEnum):
    """`clearing`: it is right again, but not yet for `clear_after_s`."""

    OPEN = "open"
    CLEARING = "clearing"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with `about`. Times are the source's own.

    `raised_seq` and `up_seq` are events in the journal, `Local` until their entry is committed.
    `host` is where it was when it was raised, empty for what is on no host.
    `flaps`: it is open until its subject has been right for the whole of `faults.flap_window_s`.
    `affected` is who else suffers, as `faults.affected` writes it: as it was when the fault was raised.
    `hold_until_ns` is on the server's monotonic clock and only of this process: it is not stored.
    """

    id: FaultId
    kind: FaultKind
    severity: Severity
    about: str
    owner: Owner
    reason: str
    state: FaultState
    raised_seq: Seq | Local
    trace: str
    raised_ns: int
    raised_mono_ns: int | None
    up_ns: int | None = None
    up_mono_ns: int | None = None
    up_seq: Seq | Local | None = None
    cleared_ns: int | None = None
    cleared_reason: str = ""
    outage_ms: float | None = None
    affected: str = "{}"
    hold_until_ns: int | None = None
    host: str = ""
    flaps: bool = False

    def settled(self, raised_seq: Seq | Local, up_seq: Seq | Local | None) -> Fault:
        """The same with the numbers of its events. By position: `replace` takes twice as long, and in a
        storm a thousand wait for it."""
        return Fault(
            self.id, self.kind, self.severity, self.about, self.owner, self.reason, self.state,
            raised_seq, self.trace, self.raised_ns, self.raised_mono_ns, self.up_ns, self.up_mono_ns, up_seq,
            self.cleared_ns, self.cleared_reason, self.outage_ms, self.affected, self.hold_until_ns,
            self.host, self.flaps,
        )  # fmt: skip

    def held_until(self, moment_ns: int) -> Fault:
        """A clearing fault as a starting server takes it over: it waits its time once more."""
        return replace(self, hold_until_ns=moment_ns) if self.state is FaultState.CLEARING else self


def fault_id(about: str, evidence: str) -> FaultId:
    """The same evidence always makes the same fault, so that a re-run cannot raise it twice."""
    return FaultId("f-" + hashlib.blake2b(f"{about} {evidence}".encode(), digest_size=6).hexdigest())
