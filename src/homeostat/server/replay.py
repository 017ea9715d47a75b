"""Replays the whole journal and compares what it says with the tables.

Reads only, in one transaction, so that it may run beside a server. It follows the numbers themselves and
causes; what events mean to the tables is in the rules of the components (`kernel.journal_rules`). The states
of resources and nodes are their nodes' and not events one by one; they are not compared, but for the facts of
a host. A row whose
beginning retention has removed is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, inspect, select, table

from homeostat.components import COMPONENTS, catalogue, known_tables, replay_rules
from homeostat.contracts.component import Component
from homeostat.contracts.events.fleet import JournalPruned
from homeostat.kernel.journal import Envelope, decode_event, stream_events
from homeostat.kernel.journal_rules import ReplayedRows, ReplayRules, Rows


@dataclass(slots=True)
class Replay:
    """What the events so far say. Rows that began up to `pruned` may be gone."""

    rules: Sequence[ReplayRules] = field(default_factory=replay_rules)
    last: int = 0
    pruned: int = 0
    unknown: int = 0
    followed: ReplayedRows = field(init=False)

    def __post_init__(self) -> None:
        self.followed = ReplayedRows({each.name: {} for rule in self.rules for each in rule.tables})

    @property
    def first(self) -> int:
        """The oldest number that is still there, 0 before the first."""
        return self.followed.first

    @property
    def unjudged(self) -> set[str]:
        """Notices that a silence kept back, and other keys of which the events do not say all."""
        return self.followed.unjudged

    @property
    def rows(self) -> dict[str, Rows]:
        return self.followed.tables

    def take(self, envelope: Envelope) -> str:
        """Follow one event; what is wrong with it, empty when nothing is."""
        seq = int(envelope.seq)
        before, self.last = self.last, seq
        if self.first == 0:
            self.followed.first = seq
        elif seq != before + 1:
            return f"event {seq}: follows {before}; {seq - before - 1} numbers are missing"
        if envelope.cause is not None and envelope.cause >= seq:
            return f"event {seq}: its cause {envelope.cause} is not before it"
        event = envelope.event
        if event is None:
            self.unknown += 1
            return ""
        if isinstance(event, JournalPruned):
            self.pruned = max(self.pruned, event.through)
        said = (rule.follow(self.followed, seq, envelope.subject, event) for rule in self.rules)
        return next(filter(None, said), "")

    def differences(self, connection: Connection) -> Generator[str, None, None]:
        """Where the tables are not what the events say, in the tables' order; lazily."""
        for each in (replayed for rule in self.rules for replayed in rule.tables):
            name, number, expected = each.name, each.number, dict(self.rows[each.name])
            query = select(each.table)
            with connection.execution_options(yield_per=1000).execute(query) as rows:
                for found in rows.mappings():
                    wanted = expected.pop(found[each.key], None)
                    if found[each.key] in self.unjudged:
                        continue
                    if wanted is not None:
                        pairs = ((column, value, found[column]) for column, value in wanted.items())
                        said = filter(None, (each.compare(*pair) for pair in pairs))
                        yield from (f"{name} {found[each.key]}: {wrong}" for wrong in said)
                    elif self.first == 1 or (number is not None and found[number] >= self.first):
                        yield f"{name} {found[each.key]}: is in the table; no event says so"
            for missing, row in expected.items():
                if missing in self.unjudged:
                    continue
                if number is None or int(str(row[number])) > self.pruned:
                    yield f"{name} {missing}: is not in the table; an event says so"


def compare_with_tables(
    connection: Connection,
    told: Callable[[Replay], None],
    components: tuple[Component, ...] = COMPONENTS,
) -> tuple[Replay, str]:
    """The replay and the first difference, empty when there is none. `told` is called after each event."""
    replay, known = Replay(replay_rules(components)), catalogue(components)
    for row in stream_events(connection, 0):
        wrong = replay.take(decode_event(row, known))
        if wrong:
            return replay, wrong
        told(replay)
    with closing(replay.differences(connection)) as differences:  # with it, its cursor in the database
        return replay, next(differences, "")


def unlisted_tables(
    connection: Connection, components: tuple[Component, ...] = COMPONENTS
) -> Mapping[str, int]:
    """Tables of components that are not on the list, and how many rows of theirs are kept."""
    known = {each.name for each in known_tables(components)} | {"alembic_version"}
    found = sorted(set(inspect(connection).get_table_names()) - known)
    counts = {name: select(func.count()).select_from(table(name)) for name in found}
    return {name: connection.execute(count).scalar() or 0 for name, count in counts.items()}
