"""Tables of hosts, nodes, resources and acts; rows become records, records row changes. No decisions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from homeostat.contracts.events.resources import GuestMoved
from homeostat.contracts.nouns import HostId
from homeostat.fleet.model import Action, Node, Resource, Topology
from homeostat.kernel import database
from homeostat.kernel.database import BIG, METADATA, record_table
from homeostat.kernel.journal import RowChange
from homeostat.kernel.records import record_of, row_of

node_table = record_table("node", Node, key="host")

resource_table = record_table("resource", Resource, key="id")

action_table = record_table("action", Action, sa.Index("ix_action_outcome", "outcome"), key="id")

arming_table = sa.Table(
    "arming",
    METADATA,
    sa.Column("room", sa.Text, primary_key=True),
    sa.Column("armed", sa.Boolean, nullable=False),
    sa.Column("since_ns", BIG, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)


def _replace(table: sa.Table, key: str) -> sa.Update:
    """Sets every column but the key, which is bound as `key`."""
    names = [column.name for column in table.columns if column.name != key]
    return (
        sa.update(table)
        .where(table.c[key] == sa.bindparam("key"))
        .values({name: sa.bindparam(name) for name in names})
    )


# Made once: rows of the same statement are written together.
_INSERT_NODE, _UPDATE_NODE = sa.insert(node_table), _replace(node_table, "host")
_INSERT_RESOURCE, _UPDATE_RESOURCE = sa.insert(resource_table), _replace(resource_table, "id")
_INSERT_ACTION = sa.insert(action_table)
_FINISH_ACTION = (
    sa.update(action_table)
    .where(action_table.c.id == sa.bindparam("key"))
    .values(outcome=sa.bindparam("outcome"), took_ms=sa.bindparam("took_ms"))
)


def node_change(node: Node, *, is_new: bool) -> RowChange:
    row = row_of(node)
    if is_new:
        return RowChange(_INSERT_NODE, (row,))
    return RowChange(_UPDATE_NODE, ({"key": row.pop("host"), **row},))


def host_deleted(host: HostId) -> tuple[RowChange, ...]:
    """Of a host that is gone for good: its row, and those of everything on it."""
    return (
        RowChange(sa.delete(resource_table).where(resource_table.c.host == host)),
        RowChange(sa.delete(node_table).where(node_table.c.host == host)),
    )


def resource_change(resource: Resource, *, is_new: bool) -> RowChange:
    row = row_of(resource)
    if is_new:
        return RowChange(_INSERT_RESOURCE, (row,))
    return RowChange(_UPDATE_RESOURCE, ({"key": row.pop("id"), **row},))


def action_intended(action: Action) -> RowChange:
    """A new open act; its intent's sequence number is known when it is committed."""
    return RowChange(_INSERT_ACTION, (row_of(action),))


def action_finished(action: Action) -> RowChange:
    return RowChange(
        _FINISH_ACTION, ({"key": action.id, "outcome": action.outcome, "took_ms": action.took_ms},)
    )


def arming_changes(
    name: str, earlier: Sequence[str], armed: bool, since_ns: int, by: str
) -> tuple[RowChange, ...]:
    """Replace what is said of a component, also under its earlier names. The column is named as in 0.1."""
    row: dict[str, object] = {"room": name, "armed": armed, "since_ns": since_ns, "by": by}
    return (
        RowChange(sa.delete(arming_table).where(arming_table.c.room.in_((name, *earlier)))),
        RowChange(sa.insert(arming_table), (row,)),
    )


def load_arming(connection: sa.Connection) -> dict[str, bool]:
    return {row.room: bool(row.armed) for row in connection.execute(sa.select(arming_table))}


def load_intended(
    connection: sa.Connection, owners_of_act: Collection[str], since_ns: int
) -> list[tuple[str, str, int]]:
    """Verb, id and time of the acts that these began since then (wall clock), oldest first, ended or not."""
    act = action_table.c
    chosen = act.owner_of_act.in_(sorted(owners_of_act)) & (act.intended_ns >= since_ns)
    query = sa.select(act.verb, act.id, act.intended_ns).where(chosen).order_by(act.intended_ns)
    return [(row.verb, row.id, row.intended_ns) for row in connection.execute(query)]


RECENT_EVENTS = 100_000
"""Events among which moves are looked for: more than are written in the window of any sensible rate."""


def load_started_elsewhere(connection: sa.Connection, since_ns: int) -> list[tuple[str, int]]:
    """Trace and time (wall clock) of each decision since then that moved guests of a dead host, oldest
    first."""
    event = database.journal.c
    since_seq = sa.select(sa.func.max(event.seq) - RECENT_EVENTS).scalar_subquery()
    # Only the move of a guest of a dead host has a cause, the receipt; all moves of a decision have one time.
    chosen = (event.seq > since_seq) & (event.kind == GuestMoved.__name__) & (event.at_ns >= since_ns)
    query = sa.select(event.trace, event.at_ns).where(chosen, event.cause.is_not(None))
    return [(row.trace, row.at_ns) for row in connection.execute(query.distinct().order_by(event.at_ns))]


def load_topology(connection: sa.Connection) -> Topology:
    """Everything a starting server needs to know."""
    open_actions = sa.select(action_table).where(action_table.c.outcome.is_(None))
    topology = Topology()
    topology.adopt(
        nodes=(record_of(Node, row) for row in connection.execute(sa.select(node_table))),
        resources=(record_of(Resource, row) for row in connection.execute(sa.select(resource_table))),
        actions=(record_of(Action, row) for row in connection.execute(open_actions)),
    )
    return topology
