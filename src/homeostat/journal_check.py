"""A full replay: what the journal says must be in the tables, compared with what is there.

Reads only, in one transaction, so that it may run beside a server. What it follows: the numbers themselves,
causes, faults, notices, acts, arming, tokens, subscriptions and drills. The levels of resources and nodes are
their nodes' and not events one by one; they are not compared. A row whose beginning retention has removed is
not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, select

from homeostat.contracts.events import CATALOGUE
from homeostat.contracts.events.access import TokenIssued, TokenRevoked
from homeostat.contracts.events.drills import (
    DrillBegan,
    DrillEnded,
    DrillReported,
    DrillsHalted,
    DrillsResumed,
)
from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.fleet import JournalPruned, RoomArmed
from homeostat.contracts.events.notices import (
    NoticeDelivered,
    NoticeGivenUp,
    NoticeQueued,
    NoticeSilenced,
    NoticeUnsilenced,
    SubscriptionCreated,
    SubscriptionRemoved,
)
from homeostat.contracts.events.resources import ActionFinished, ActionIntended
from homeostat.drills.store import HALT_SCOPE, claim_table, halt_table, run_table
from homeostat.faults.model import FaultState
from homeostat.faults.store import fault_table
from homeostat.fleet.store import action_table, arming_table
from homeostat.kernel import database
from homeostat.kernel.journal import Envelope
from homeostat.kernel.reader import opened, stream
from homeostat.notices.model import NoticeState
from homeostat.notices.store import outbox, subscription

Rows = dict[str, dict[str, object]]
"""By key: the columns that the journal determines."""

TABLES: Mapping[str, tuple[Table, str, str | None]] = {
    "fault": (fault_table, "id", "raised_seq"),
    "outbox": (outbox, "key", "queued_seq"),
    "action": (action_table, "id", "intended_seq"),
    "arming": (arming_table, "room", None),
    "token": (database.token, "name", None),
    "subscription": (subscription, "name", None),
    "drill_run": (run_table, "run", "began_seq"),
    "drill_claim": (claim_table, "site", "began_seq"),
    "drill_halt": (halt_table, "scope", None),
}
"""Name: the table, its key, and the column with the number of the event that began a row."""


@dataclass(slots=True)
class Replay:
    """What the events so far say. `first` is the oldest number that is still there, 0 before the first; rows
    that began up to `pruned` may be gone. `unjudged` are notices that a silence kept back.
    """

    first: int = 0
    last: int = 0
    pruned: int = 0
    unknown: int = 0
    unjudged: set[str] = field(default_factory=set)
    rows: dict[str, Rows] = field(default_factory=lambda: {name: {} for name in TABLES})

    def take(self, envelope: Envelope) -> str:
        """Follow one event; what is wrong with it, empty when nothing is."""
        seq = int(envelope.seq)
        before, self.last = self.last, seq
        if self.first == 0:
            self.first = seq
        elif seq != before + 1:
            return f"event {seq}: follows {before}; {seq - before - 1} numbers are missing"
        if envelope.cause is not None and envelope.cause >= seq:
            return f"event {seq}: its cause {envelope.cause} is not before it"
        if envelope.event is None:
            self.unknown += 1
            return ""
        return self._apply(seq, envelope.subject, envelope.event)

    def _apply(self, seq: int, subject: str, event: object) -> str:
        match event:
            case FaultRaised():
                return self._begin("fault", event.fault, seq, _fault_row(event, seq))
            case FaultCleared():
                ended = {
                    "state": FaultState.CLEARED.value,
                    "cleared_reason": event.reason,
                    "outage_ms": event.outage_ms,
                }
                return self._end("fault", event.fault, seq, ended)
            case NoticeQueued():
                queued = {
                    "subscription": event.subscription,
                    "fault": event.fault,
                    "transition": event.transition,
                    "queued_seq": seq,
                    "state": NoticeState.PENDING.value,
                }
                return self._begin("outbox", event.key, seq, queued)
            case NoticeDelivered():
                return self._end("outbox", event.key, seq, {"state": NoticeState.DELIVERED.value})
            case NoticeGivenUp():
                return self._end("outbox", event.key, seq, {"state": NoticeState.GIVEN_UP.value})
            case ActionIntended():
                intended = {
                    "verb": event.verb,
                    "about": subject,
                    "owner_of_act": event.owner_of_act,
                    "intended_seq": seq,
                    "outcome": None,
                }
                return self._begin("action", event.action, seq, intended)
            case ActionFinished():
                return self._end("action", event.action, seq, {"outcome": event.outcome})
            case DrillBegan() | DrillEnded() | DrillReported():
                return self._drill(seq, event)
            case _:
                self._set(event)
        return ""

    def _drill(self, seq: int, event: DrillBegan | DrillEnded | DrillReported) -> str:
        """A run begins, ends or reports; its claim comes and goes with it."""
        claims = self.rows["drill_claim"]
        match event:
            case DrillBegan():
                told = {"site": event.site, "owner": event.owner, "by": event.by, "began_seq": seq}
                wrong = self._begin("drill_claim", event.site, seq, {"run": event.run, "began_seq": seq})
                running = {"drill": event.drill, "ended_seq": None, "how": "running", "verdict": ""}
                return wrong or self._begin("drill_run", event.run, seq, {**told, **running})
            case DrillEnded():
                for site in [each for each, row in claims.items() if row["run"] == event.run]:
                    del claims[site]
                ended = {"ended_seq": seq, "how": event.how, "verdict": event.verdict}
                return self._end("drill_run", event.run, seq, ended)
            case DrillReported():
                return self._end("drill_run", event.run, seq, {"verdict": event.verdict})

    def _set(self, event: object) -> None:
        """Events that say what is so, and not what has begun or ended."""
        rows = self.rows
        match event:
            case NoticeSilenced() | NoticeUnsilenced():
                self.unjudged.add(event.key)
            case JournalPruned():
                self.pruned = max(self.pruned, event.through)
            case RoomArmed():
                rows["arming"][event.room] = {"armed": event.armed, "by": event.by}
            case TokenIssued():
                rows["token"][event.token] = {"role": event.role, "owner": event.owner}
            case TokenRevoked():
                rows["token"].pop(event.token, None)
            case DrillsHalted():
                rows["drill_halt"][HALT_SCOPE] = {"by": event.by, "owner": event.owner, "why": event.why}
            case DrillsResumed():
                rows["drill_halt"].pop(HALT_SCOPE, None)
            case SubscriptionCreated():
                rows["subscription"][event.subscription] = {"owner": event.owner}
            case SubscriptionRemoved():
                rows["subscription"].pop(event.subscription, None)
            case _:
                pass  # says nothing of these tables

    def _begin(self, table: str, key: str, seq: int, row: Mapping[str, object]) -> str:
        if key in self.rows[table] and key not in self.unjudged:
            return f"event {seq}: {table} {key} begins a second time"
        self.rows[table][key] = dict(row)
        return ""

    def _end(self, table: str, key: str, seq: int, ended: Mapping[str, object]) -> str:
        row = self.rows[table].get(key)
        if row is not None:
            row.update(ended)
        elif self.first == 1 and key not in self.unjudged:
            return f"event {seq}: {table} {key} ends and never began"
        return ""

    def differences(self, connection: Connection) -> Iterator[str]:
        """Where the tables are not what the events say, in the tables' order; lazily."""
        for name, (table, key, number) in TABLES.items():
            expected = dict(self.rows[name])
            for found in connection.execution_options(yield_per=1000).execute(select(table)).mappings():
                wanted = expected.pop(found[key], None)
                if found[key] in self.unjudged:
                    continue
                if wanted is not None:
                    yield from _compare(f"{name} {found[key]}", wanted, found)
                elif self.first == 1 or (number is not None and found[number] >= self.first):
                    yield f"{name} {found[key]}: is in the table; no event says so"
            for missing, row in expected.items():
                if missing in self.unjudged:
                    continue
                if number is None or int(str(row[number])) > self.pruned:
                    yield f"{name} {missing}: is not in the table; an event says so"


def _fault_row(event: FaultRaised, seq: int) -> dict[str, object]:
    return {
        "kind": event.kind.value,
        "severity": event.severity.value,
        "about": event.about,
        "owner": event.owner,
        "reason": event.reason,
        "raised_seq": seq,
        "state": None,
        "cleared_reason": "",
        "outage_ms": None,
    }


def _compare(what: str, wanted: Mapping[str, object], found: Mapping[Any, object]) -> Iterator[str]:
    for column, value in wanted.items():
        if column == "state" and value is None:  # open or clearing: the journal does not tell them apart
            if found[column] == FaultState.CLEARED.value:
                yield f"{what}: state is {found[column]!r} in the table; no event cleared it"
        elif value == NoticeState.PENDING.value and found[column] == NoticeState.KEPT.value:
            pass  # queued for who only reads it: nobody is called, so nothing ends it
        elif found[column] != value:
            yield f"{what}: {column} is {found[column]!r} in the table and {value!r} by the events"


def check(connection: Connection, told: Callable[[Replay], None]) -> tuple[Replay, str]:
    """The replay and the first difference, empty when there is none. `told` is called after each event."""
    replay = Replay()
    for row in stream(connection, 0):
        wrong = replay.take(opened(row, CATALOGUE))
        if wrong:
            return replay, wrong
        told(replay)
    return replay, next(replay.differences(connection), "")
