"""The fault record: something that is or was wrong with one subject, and the states that it goes through.

Decided by `faults`, held in memory by `ingest`, described to people by `notices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from homeostat.contracts.nouns import FaultId, FaultKind, Owner, Severity
from homeostat.kernel.journal import EventIndex, Seq


class FaultState(StrEnum):
    """`clearing`: it is right again, but not yet for `clear_after_s`."""

    OPEN = "open"
    CLEARING = "clearing"
    CLEARED = "cleared"
    RECOVERED = "recovered"
    """Never stored: how the fault of a dead host is shown to a project whose guests all run elsewhere by now.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with `about`. Times are the source's own.

    `raised_seq` and `up_seq` are events in the journal, `EventIndex` until their entry is committed.
    `host` is where it was when it was raised, empty for what is on no host.
    `flaps`: it is open until its subject has been right for the whole of `faults.flap_window_s`.
    `affected` is who else suffers, as `faults.affected` writes it: as it was when the fault was raised.
    `hold_until_ns` is on the server's monotonic clock and only of this process: it is not stored.
    `raised_mono_ns` and `good_mono_ns` are the first bad and the last good evidence of its beginning,
    `up_mono_ns` and `bad_mono_ns` the first good and the last bad of its end, each pair on one clock; None:
    nobody knows. `outage_ms` is the longest that the outage can have been, `outage_lower_ms` the shortest.
    `superseded_by` is the fault that took its place: its subject stayed wrong, and `cleared` says only that
    this fault is over. `restored` is what of `affected` is right again elsewhere, `remaining` what was still
    wrong when it was cleared.
    """

    id: FaultId
    kind: FaultKind
    severity: Severity
    about: str
    owner: Owner
    reason: str
    state: FaultState
    raised_seq: Seq | EventIndex
    trace: str
    raised_ns: int
    raised_mono_ns: int | None
    up_ns: int | None = None
    up_mono_ns: int | None = None
    up_seq: Seq | EventIndex | None = None
    cleared_ns: int | None = None
    cleared_reason: str = ""
    outage_ms: float | None = None
    affected: str = "{}"
    hold_until_ns: int | None = None
    host: str = ""
    flaps: bool = False
    superseded_by: str = ""
    outage_lower_ms: float | None = None
    good_mono_ns: int | None = None
    bad_mono_ns: int | None = None
    restored: str = "{}"
    remaining: str = "{}"

    def settled(self, raised_seq: Seq | EventIndex, up_seq: Seq | EventIndex | None) -> Fault:
        """The same with the numbers of its events. By position: `replace` takes twice as long, and in a
        storm a thousand wait for it."""
        return Fault(
            self.id, self.kind, self.severity, self.about, self.owner, self.reason, self.state,
            raised_seq, self.trace, self.raised_ns, self.raised_mono_ns, self.up_ns, self.up_mono_ns, up_seq,
            self.cleared_ns, self.cleared_reason, self.outage_ms, self.affected, self.hold_until_ns,
            self.host, self.flaps, self.superseded_by, self.outage_lower_ms, self.good_mono_ns,
            self.bad_mono_ns, self.restored, self.remaining,
        )  # fmt: skip

    def held_until(self, moment_ns: int) -> Fault:
        """A clearing fault as a starting server takes it over: it waits its time once more."""
        return replace(self, hold_until_ns=moment_ns) if self.state is FaultState.CLEARING else self


RAISED_KEPT = 100
"""Faults of a subject that are remembered; `faults.flap_max` is never more."""


@dataclass(frozen=True, slots=True)
class FlapLimits:
    """`max` 0: nothing ever flaps."""

    max: int = 0
    window_s: float = 60.0


NEVER_FLAPPING = FlapLimits()


def add_raised_time(raised_ns: Sequence[int], now_ns: int) -> tuple[int, ...]:
    """The times at which faults of one subject were raised, with one more."""
    return (*raised_ns, now_ns)[-RAISED_KEPT - 1 :]
