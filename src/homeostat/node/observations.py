"""The store of a node's observations, in one SQLite file.

It holds the latest state of every resource, numbered transitions that the server has not acknowledged, and
acts that were begun and not ended.

Not a journal: an acknowledged transition is forgotten here. A file that cannot be read is moved aside and a
new one begun. On a disk that takes nothing more, not even in the room of the reserve, what is recorded is
held in memory and written as soon as it can be: a service must not stay dead because a log filled its disk.
The act that is intended with it is marked as uncommitted.

Invariants: what `record` returned survives kill -9 and power loss, unless it is held in memory; a number is
never used twice within one boot id (a start after a kill, or that finds the reserve spent, gives none to the
server before the server has said how far it knows); the transitions kept are the newest, without a hole; at
most one act is open for a resource. Safe to call from several threads; reads never wait for the disk.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import ResourceId
from homeostat.contracts.roles import Assigned, Report
from homeostat.kernel.errors import StoreFull, StoreUnavailable
from homeostat.node.observation_file import CLOSED, ObservationFile, Statement, StoredObservations, digest_of

UNACKNOWLEDGED_MAX = 10_000
"""About 5 MB. Smaller loses history in a long outage of the server, larger makes the catching-up longer."""

_SET_FACT = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_SET_LEVEL = "INSERT INTO levels VALUES (?, ?) ON CONFLICT (resource) DO UPDATE SET body = excluded.body"
_SET_INTENT = "INSERT INTO intents VALUES (?, ?) ON CONFLICT (resource) DO UPDATE SET body = excluded.body"

_log = structlog.get_logger("observations")


def _new_boot() -> str:
    return uuid.uuid4().hex[:16]


@dataclass(frozen=True, slots=True)
class ObservationState:
    """What belongs together at one moment.

    `acknowledged` is the highest number the server has committed, `first` the oldest that is still here,
    `assigned` the digest of the assignment that a server confirmed since the store was opened. `trouble` is
    why the store cannot be written as it should be, or empty; `asks`: the server is to say how far it knows.
    """

    boot: str
    seq: int
    acknowledged: int
    digest: str
    first: int
    levels: tuple[wire.ResourceStatus, ...]
    assigned: str = ""
    trouble: str = ""
    asks: bool = False


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
        self._max, self._new_boot = unacknowledged_max, new_boot
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._file = ObservationFile(path, new_boot)
        self._memory: StoredObservations = self._file.contents
        self._opened = self._memory.seq
        self._spent = self._file.reserve_was_spent
        self._asks = self._spent or not self._memory.whole
        self._ahead = self._file.is_closed  # of the file: something is in memory only

    @property
    def boot(self) -> str:
        """Names this store; another one means that earlier numbers are gone."""
        return self._memory.boot

    @property
    def trouble(self) -> str:
        """Why the store cannot be written as it should be, in one line; empty while it can."""
        return self._file.trouble

    @property
    def asks(self) -> bool:
        """The server is to say how far it knows."""
        return self._asks

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

    def levels(self) -> tuple[wire.ResourceStatus, ...]:
        """The latest level of every resource, by name."""
        return self.snapshot().levels

    def open_intents(self) -> dict[ResourceId, wire.Intent]:
        """The acts that were begun and not ended, by resource."""
        with self._reading:
            return dict(self._memory.intents)

    def snapshot(self) -> ObservationState:
        """What a heartbeat or a resync says, of one moment."""
        with self._reading:
            memory = self._memory
            levels = tuple(level for _, level in sorted(memory.levels.items()))
            told = memory.assigned
            return ObservationState(
                memory.boot,
                memory.seq,
                memory.acknowledged,
                memory.digest,
                self._first_kept(),
                levels,
                wire.assigned_digest(told.mine) if told is not None and told.confirmed else "",
                self._file.trouble,
                self._asks,
            )

    def assigned(self) -> Assigned | None:
        """The guests that are to run here; None when no server has ever said."""
        return self._memory.assigned

    def pending(self, limit: int, after: int = 0) -> tuple[wire.ResourceTransition, ...]:
        """Up to `limit` transitions that are not acknowledged, with numbers above `after`, oldest first."""
        with self._reading:
            kept = self._memory.transitions
            first = max(self._first_kept(), after + 1)
            last = self._opened if self._asks else self._memory.seq
            return tuple(kept[seq] for seq in islice(range(first, last + 1), limit))

    def record(self, report: Report) -> wire.ResourceTransition:
        """Number a report and put it on disk with its level and its act, all or nothing.

        A disk without room: it is held in memory, and its act is marked as uncommitted. Raises
        StoreUnavailable; then nothing has changed and the call may be repeated.
        """
        with self._writing:
            transition = self._transition(report)
            level = transition.level
            intent = _open_act(self._memory.intents.get(level.resource), transition)
            overflow = level.seq - self._max
            statements: list[Statement] = [
                (_SET_FACT, ("seq", str(level.seq))),
                _level_row(level),
                _transition_row(transition),
                ("DELETE FROM transitions WHERE seq <= ?", (overflow,)),
                ("DELETE FROM intents WHERE resource = ?", (level.resource,))
                if intent is None
                else _intent_row(level.resource, intent),
            ]
            if self._write(statements):
                self._remember(transition, intent, overflow)
                return transition
            if transition.intended is not None:
                intent = replace(transition.intended, uncommitted=True)
                transition = replace(transition, intended=intent)
            self._remember(transition, intent, overflow)
            return transition

    def acknowledge(self, boot: str, seq: int) -> bool:
        """Forget transitions up to `seq` of store `boot`; whether that changed anything."""
        with self._writing:
            memory = self._memory
            if boot != memory.boot:
                return False
            if seq > (self._opened if self._asks else memory.seq):
                self._renew(seq)
                return True
            answered, self._asks = self._asks, False
            if seq <= memory.acknowledged:
                return answered
            self._write(
                [
                    (_SET_FACT, ("acknowledged", str(seq))),
                    ("DELETE FROM transitions WHERE seq <= ?", (seq,)),
                ]
            )
            with self._reading:
                for number in range(self._first_kept(), seq + 1):
                    memory.transitions.pop(number, None)
                memory.acknowledged = seq
            return True

    def see_epoch(self, epoch: int) -> bool:
        """False when a higher epoch has been seen, ever: the sender is deposed. Remembers the highest."""
        with self._writing:
            if epoch > self._memory.epoch:
                self._write([(_SET_FACT, ("epoch", str(epoch)))])
                self._memory.epoch = epoch
            return epoch == self._memory.epoch

    def assign(self, mine: Mapping[ResourceId, int]) -> Assigned:
        """Put on disk what is to run here, says a server. StoreUnavailable: nothing changed."""
        told = Assigned(dict(mine), confirmed=True)
        with self._writing:
            before = self._memory.assigned
            if before is None or before.mine != told.mine:
                self._write([_assigned_row(told)])
            fresh = digest_of(self._memory.levels, told)
            with self._reading:
                self._memory.assigned, self._memory.digest = told, fresh
        return told

    def tend(self) -> None:
        """Look at the disk: write what is in memory only, and have the reserve again, when there is room."""
        with self._writing:
            complete = not self._ahead or (self._file.has_room and self._write_back())
            # Its absence says to the next start that numbers may have been given that are in no file.
            self._file.look(complete=complete and not (self._asks and self._spent))

    def close(self) -> None:
        """Write what can be, and close the file, after a write that is going on."""
        with self._writing:
            if self._write_back() and not self._asks:
                with suppress(StoreFull, StoreUnavailable):  # then the next start asks
                    self._file.write([CLOSED])
            self._file.close()

    def asked_in_vain(self) -> None:
        """The server is there and does not say how far it knows: one of an earlier version.

        It is believed to know no more than this file, unless there is a trace of numbers that are in none.
        """
        with self._writing:
            self._asks = self._asks and self._spent

    def _first_kept(self) -> int:
        return self._memory.seq - len(self._memory.transitions) + 1

    def _transition(self, report: Report) -> wire.ResourceTransition:
        level = wire.ResourceStatus(
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
            finished = wire.Finish(before.action, wire.Outcome.UNKNOWN, 0.0, reason)
        return wire.ResourceTransition(level, report.mono_ns, intended, finished, report.before_mono_ns)

    def _remember(
        self, transition: wire.ResourceTransition, intent: wire.Intent | None, overflow: int
    ) -> None:
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
        """The server knows numbers that this file has not: it was put back from a copy, or the process before
        held them in memory. StoreUnavailable: nothing has changed.

        What the file had at the start is acknowledged. The rest is told under the new name, by new numbers,
        behind the level of everything else.
        """
        memory = self._memory
        _log.error(
            "the server knows later observations than this store, begun anew", had=memory.seq, server_has=seq
        )
        since = [each for number, each in sorted(memory.transitions.items()) if number > self._opened]
        changed = {each.level.resource for each in since}
        others = [each for name, each in sorted(memory.levels.items()) if name not in changed]
        told = [*(wire.ResourceTransition(level, 0) for level in others), *since]
        fresh = [replace(each, level=replace(each.level, seq=at)) for at, each in enumerate(told, 1)]
        renewed = replace(
            memory,
            boot=self._new_boot(),
            seq=len(fresh),
            acknowledged=0,
            levels={each.level.resource: each.level for each in fresh},
            transitions={each.level.seq: each for each in fresh},
        )
        # Without room it is in memory only: nobody is told anything by the old name, and a new one is never
        # used twice, so that a start that finds the file as it was asks again.
        held = not self._on_disk(_everything(renewed))
        with self._reading:
            self._memory, self._opened = renewed, renewed.seq
            self._asks, self._ahead = False, held

    def _write(self, statements: Sequence[Statement]) -> bool:
        """False when it can only be held in memory for now. StoreUnavailable."""
        if not self._ahead:
            self._ahead = not self._on_disk(statements)
        return not self._ahead

    def _on_disk(self, statements: Sequence[Statement]) -> bool:
        """False on a disk that does not take them. StoreUnavailable."""
        try:
            self._file.write(statements)
        except StoreFull as error:
            _log.error("observations are held in memory; kill -9 would lose them", reason=str(error))
            return False
        return True

    def _write_back(self) -> bool:
        """Write all that is in memory only; whether the file has everything now."""
        if self._ahead:
            try:
                self._file.write(_everything(self._memory))
            except StoreFull:
                return False
            _log.info("observations that were held in memory are written", seq=self._memory.seq)
            self._ahead = False
        return True


def _level_row(level: wire.ResourceStatus) -> Statement:
    return _SET_LEVEL, (level.resource, wire.encode(level))


def _transition_row(transition: wire.ResourceTransition) -> Statement:
    return "INSERT INTO transitions VALUES (?, ?)", (transition.level.seq, wire.encode(transition))


def _intent_row(resource: ResourceId, intent: wire.Intent) -> Statement:
    return _SET_INTENT, (resource, wire.encode(intent))


def _assigned_row(told: Assigned) -> Statement:
    return _SET_FACT, ("assigned", wire.encode(told.mine).decode())


def _everything(memory: StoredObservations) -> list[Statement]:
    """The whole file anew."""
    facts = {
        "boot": memory.boot,
        "seq": memory.seq,
        "acknowledged": memory.acknowledged,
        "epoch": memory.epoch,
    }
    return [
        *((f"DELETE FROM {table}", ()) for table in ("levels", "transitions", "intents")),
        *((_SET_FACT, (name, str(value))) for name, value in facts.items()),
        *([] if memory.assigned is None else [_assigned_row(memory.assigned)]),
        *map(_level_row, memory.levels.values()),
        *map(_transition_row, memory.transitions.values()),
        *(_intent_row(resource, intent) for resource, intent in memory.intents.items()),
    ]


def _open_act(before: wire.Intent | None, transition: wire.ResourceTransition) -> wire.Intent | None:
    if transition.intended is not None:
        return transition.intended
    if before is not None and transition.finished is not None and transition.finished.action == before.action:
        return None
    return before
