"""What a node has seen and not yet been able to tell: the latest level of every resource, numbered
transitions that the server has not acknowledged, acts that were begun and not ended.

Not a journal: an acknowledged transition is forgotten here. Invariants: what `record` returned survives
kill -9 and power loss; a number is never used twice within one boot id; the transitions kept are the newest,
without a hole; at most one act is open for a resource. Safe to call from several threads; reads never wait
for the disk.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import structlog

from homeostat.contracts.nouns import ResourceId
from homeostat.contracts.roles import Assigned, Report
from homeostat.contracts.wire import (
    Finish,
    Intent,
    Outcome,
    ResourceLevel,
    Transition,
    assigned_digest,
    encode,
)
from homeostat.fleet.node_observations_file import digest_of, move_aside, open_file, said_plainly
from homeostat.kernel.errors import CorruptState

UNACKNOWLEDGED_MAX = 10_000
"""About 5 MB. Smaller loses history in a long outage of the server, larger makes the catching-up longer."""

_SET_FACT = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_SET_LEVEL = "INSERT INTO levels VALUES (?, ?) ON CONFLICT (resource) DO UPDATE SET body = excluded.body"
_SET_INTENT = "INSERT INTO intents VALUES (?, ?) ON CONFLICT (resource) DO UPDATE SET body = excluded.body"

M = TypeVar("M")
_log = structlog.get_logger("observations")


def _new_boot() -> str:
    return uuid.uuid4().hex[:16]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What belongs together at one moment.

    `acknowledged` is the highest number the server has committed, `first` the oldest that is still here,
    `assigned` the digest of the assignment that a server confirmed since the store was opened.
    """

    boot: str
    seq: int
    acknowledged: int
    digest: str
    first: int
    levels: tuple[ResourceLevel, ...]
    assigned: str = ""


class ObservationStore:
    """One node's observations in one SQLite file."""

    def __init__(
        self,
        path: Path,
        unacknowledged_max: int = UNACKNOWLEDGED_MAX,
        new_boot: Callable[[], str] = _new_boot,
    ) -> None:
        """Open or make `path`. An unreadable file is moved to `<path>.corrupt-<ns>` and a new one begun.

        Raises StoreUnavailable when the disk does not let us read or write there.
        """
        self._path, self._max, self._new_boot = path, unacknowledged_max, new_boot
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        try:
            self._database, self._memory = open_file(path, new_boot)
        except CorruptState as error:
            aside = move_aside(path)
            _log.error(
                "observations were unreadable and are begun anew", moved_to=str(aside), reason=str(error)
            )
            self._database, self._memory = open_file(path, new_boot)

    @property
    def boot(self) -> str:
        """Names this store; another one means that earlier numbers are gone."""
        return self._memory.boot

    @property
    def seq(self) -> int:
        """The number of the latest transition, 0 before the first."""
        return self._memory.seq

    @property
    def lost(self) -> int:
        """Transitions dropped because the list was full, and not acknowledged before that."""
        with self._reading:
            return self._first_kept() - self._memory.acknowledged - 1

    def digest(self) -> str:
        """Sixteen hex digits that differ when any resource's state differs."""
        return self._memory.digest

    def levels(self) -> tuple[ResourceLevel, ...]:
        """The latest level of every resource, by name."""
        return self.snapshot().levels

    def open_intents(self) -> dict[ResourceId, Intent]:
        """The acts that were begun and not ended, by resource."""
        with self._reading:
            return dict(self._memory.intents)

    def snapshot(self) -> Snapshot:
        """What a heartbeat or a resync says, of one moment."""
        with self._reading:
            memory = self._memory
            levels = tuple(level for _, level in sorted(memory.levels.items()))
            told = memory.assigned
            return Snapshot(
                memory.boot,
                memory.seq,
                memory.acknowledged,
                memory.digest,
                self._first_kept(),
                levels,
                assigned_digest(told.mine) if told is not None and told.confirmed else "",
            )

    def assigned(self) -> Assigned | None:
        """The guests that are to run here; None when no server has ever said."""
        return self._memory.assigned

    def pending(self, limit: int, after: int = 0) -> tuple[Transition, ...]:
        """Up to `limit` transitions that are not acknowledged, with numbers above `after`, oldest first."""
        with self._reading:
            kept = self._memory.transitions
            first = max(self._first_kept(), after + 1)
            return tuple(kept[seq] for seq in islice(range(first, self._memory.seq + 1), limit))

    def record(self, report: Report) -> Transition:
        """Number a report and put it on disk with its level and its act, all or nothing.

        Raises StoreFull or StoreUnavailable; then nothing has changed and the call may be repeated.
        """
        with self._writing:
            transition = self._transition(report)
            level = transition.level
            intent = _open_act(self._memory.intents.get(level.resource), transition)
            overflow = level.seq - self._max
            with self._transaction() as database:
                database.execute(_SET_FACT, ("seq", str(level.seq)))
                database.execute(_SET_LEVEL, (level.resource, encode(level)))
                database.execute("INSERT INTO transitions VALUES (?, ?)", (level.seq, encode(transition)))
                database.execute("DELETE FROM transitions WHERE seq <= ?", (overflow,))
                if intent is None:
                    database.execute("DELETE FROM intents WHERE resource = ?", (level.resource,))
                else:
                    database.execute(_SET_INTENT, (level.resource, encode(intent)))
            self._remember(transition, intent, overflow)
            return transition

    def acknowledge(self, boot: str, seq: int) -> bool:
        """Forget transitions up to `seq` of store `boot`; whether that changed anything."""
        with self._writing:
            memory = self._memory
            if boot != memory.boot or seq <= memory.acknowledged:
                return False
            if seq > memory.seq:
                self._renew(seq)
                return True
            with self._transaction() as database:
                database.execute(_SET_FACT, ("acknowledged", str(seq)))
                database.execute("DELETE FROM transitions WHERE seq <= ?", (seq,))
            with self._reading:
                for number in range(self._first_kept(), seq + 1):
                    memory.transitions.pop(number, None)
                memory.acknowledged = seq
            return True

    def see_epoch(self, epoch: int) -> bool:
        """False when a higher epoch has been seen, ever: the sender is deposed. Remembers the highest."""
        with self._writing:
            if epoch > self._memory.epoch:
                with self._transaction() as database:
                    database.execute(_SET_FACT, ("epoch", str(epoch)))
                self._memory.epoch = epoch
            return epoch == self._memory.epoch

    def assign(self, mine: Mapping[ResourceId, int]) -> Assigned:
        """Put on disk what is to run here, says a server. StoreFull, StoreUnavailable: nothing changed."""
        told = Assigned(dict(mine), confirmed=True)
        with self._writing:
            before = self._memory.assigned
            if before is None or before.mine != told.mine:
                with self._transaction() as database:
                    database.execute(_SET_FACT, ("assigned", encode(told.mine).decode()))
            fresh = digest_of(self._memory.levels, told)
            with self._reading:
                self._memory.assigned, self._memory.digest = told, fresh
        return told

    def close(self) -> None:
        """Close the file, after a write that is going on."""
        with self._writing:
            self._database.close()

    def _first_kept(self) -> int:
        return self._memory.seq - len(self._memory.transitions) + 1

    def _transition(self, report: Report) -> Transition:
        level = ResourceLevel(
            resource=report.resource,
            kind=report.kind,
            owner=report.owner,
            agent=report.agent,
            state=report.state,
            reason=report.reason,
            at_ns=report.at_ns,
            seq=self._memory.seq + 1,
            pid=report.pid,
            generation=report.generation,
        )
        before = self._memory.intents.get(report.resource)
        intended, finished = report.intended, report.finished
        if before and intended and not finished and before.action != intended.action:
            # Nobody will ever report the end of the act that this one replaces.
            reason = f"replaced by {intended.action}; nobody saw how it ended"
            finished = Finish(before.action, Outcome.UNKNOWN, 0.0, reason)
        return Transition(level, report.mono_ns, intended, finished)

    def _remember(self, transition: Transition, intent: Intent | None, overflow: int) -> None:
        resource, seq = transition.level.resource, transition.level.seq
        fresh = digest_of({**self._memory.levels, resource: transition.level}, self._memory.assigned)
        with self._reading:
            memory = self._memory
            memory.seq = seq
            memory.levels[resource] = transition.level
            memory.transitions[seq] = transition
            memory.transitions.pop(overflow, None)
            memory.digest = fresh
            if intent is None:
                memory.intents.pop(resource, None)
            else:
                memory.intents[resource] = intent

    def _renew(self, seq: int) -> None:
        """The server knows numbers that we never gave: this file was put back from a copy."""
        _log.error("observations went back in time and get a new name", had=self._memory.seq, server_has=seq)
        boot = self._new_boot()
        with self._transaction() as database:
            database.execute(_SET_FACT, ("boot", boot))
        self._memory = replace(self._memory, boot=boot)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with said_plainly(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _open_act(before: Intent | None, transition: Transition) -> Intent | None:
    """The act that is open for the resource after this transition."""
    if transition.intended is not None:
        return transition.intended
    if before is not None and transition.finished is not None and transition.finished.action == before.action:
        return None
    return before
