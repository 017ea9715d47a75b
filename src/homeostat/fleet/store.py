"""Tables of hosts, nodes, resources and acts, and how rows become records and changes. No decisions."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Table,
    Text,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.model import Action, AgentState, Node, Resource, Topology
from homeostat.kernel.database import BIG, METADATA
from homeostat.kernel.journal import Change, Seq
from homeostat.kernel.records import row_of

node_table = Table(
    "node",
    METADATA,
    Column("host", Text, primary_key=True),
    Column("boot", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("acked_seq", BIG, nullable=False),
    Column("agent", Text, nullable=False),
    Column("joined_ns", BIG, nullable=False),
    Column("down_ns", BIG),
    Column("fenced", Text, nullable=False),
    Column("held", Text, nullable=False),
    Column("fenced_seq", BIG),
    Column("marked_ns", BIG),
    Column("error_ns", BIG),
    Column("fenced_ns", BIG),
    Column("vouched", Boolean, nullable=False),
)

resource_table = Table(
    "resource",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_ns", BIG, nullable=False),
    Column("seq", BIG, nullable=False),
    Column("pid", BIG),
    Column("generation", BIG, nullable=False),
)

action_table = Table(
    "action",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("verb", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("owner_of_act", Text, nullable=False),
    Column("deadline_s", Double, nullable=False),
    Column("intended_seq", BIG, nullable=False),
    Column("intended_ns", BIG, nullable=False),
    Column("trace", Text, nullable=False),
    Column("outcome", Text),
    Column("took_ms", Double),
    Index("ix_action_outcome", "outcome"),
)

arming_table = Table(
    "arming",
    METADATA,
    Column("room", Text, primary_key=True),
    Column("armed", Boolean, nullable=False),
    Column("since_ns", BIG, nullable=False),
    Column("by", Text, nullable=False),
)


def _replace(table: Table, key: str) -> Update:
    """Sets every column but the key, which is bound as `key`."""
    names = [column.name for column in table.columns if column.name != key]
    return (
        update(table)
        .where(table.c[key] == bindparam("key"))
        .values({name: bindparam(name) for name in names})
    )


# Made once: rows of the same statement are written together.
_INSERT_NODE, _UPDATE_NODE = insert(node_table), _replace(node_table, "host")
_INSERT_RESOURCE, _UPDATE_RESOURCE = insert(resource_table), _replace(resource_table, "id")
_INSERT_ACTION = insert(action_table)
_FINISH_ACTION = (
    update(action_table)
    .where(action_table.c.id == bindparam("key"))
    .values(outcome=bindparam("outcome"), took_ms=bindparam("took_ms"))
)


def node_change(node: Node, *, is_new: bool) -> Change:
    """Insert or replace a node's row."""
    row = row_of(node)
    if is_new:
        return Change(_INSERT_NODE, (row,))
    return Change(_UPDATE_NODE, ({"key": row.pop("host"), **row},))


def resource_change(resource: Resource, *, is_new: bool) -> Change:
    """Insert or replace a resource's row."""
    row = row_of(resource)
    if is_new:
        return Change(_INSERT_RESOURCE, (row,))
    return Change(_UPDATE_RESOURCE, ({"key": row.pop("id"), **row},))


def action_intended(action: Action) -> Change:
    """A new open act; its intent's sequence number is known when it is committed."""
    return Change(_INSERT_ACTION, (row_of(action),))


def action_finished(action: Action) -> Change:
    """Close an act."""
    return Change(_FINISH_ACTION, ({"key": action.id, "outcome": action.outcome, "took_ms": action.took_ms},))


def arming_changes(room: str, armed: bool, since_ns: int, by: str) -> tuple[Change, ...]:
    """Replace what is said of a room."""
    row: dict[str, object] = {"room": room, "armed": armed, "since_ns": since_ns, "by": by}
    return (
        Change(delete(arming_table).where(arming_table.c.room == room)),
        Change(insert(arming_table), (row,)),
    )


def load_arming(connection: Connection) -> dict[str, bool]:
    """Which rooms somebody armed or disarmed."""
    return {row.room: bool(row.armed) for row in connection.execute(select(arming_table))}


def load_intended(connection: Connection, owner_of_act: str, since_ns: int) -> list[int]:
    """When this room began its acts since then (wall clock), the oldest first, ended or not."""
    column = action_table.c.intended_ns
    chosen = (action_table.c.owner_of_act == owner_of_act) & (column >= since_ns)
    return list(connection.scalars(select(column).where(chosen).order_by(column)))


def load_topology(connection: Connection) -> Topology:
    """Everything a starting server needs to know."""
    topology = Topology()
    topology.adopt(
        nodes=(
            Node(
                host=HostId(row.host),
                boot=row.boot,
                incarnation=row.incarnation,
                acked_seq=row.acked_seq,
                agent=AgentState(row.agent),
                joined_ns=row.joined_ns,
                down_ns=row.down_ns,
                fenced=row.fenced,
                held=row.held,
                fenced_seq=row.fenced_seq,
                marked_ns=row.marked_ns,
                error_ns=row.error_ns,
                fenced_ns=row.fenced_ns,
                vouched=bool(row.vouched),
            )
            for row in connection.execute(select(node_table))
        ),
        resources=(
            Resource(
                id=ResourceId(row.id),
                host=HostId(row.host),
                kind=ResourceKind(row.kind),
                owner=Owner(row.owner),
                agent=row.agent,
                state=ResourceState(row.state),
                reason=row.reason,
                since_ns=row.since_ns,
                seq=row.seq,
                pid=row.pid,
                generation=row.generation,
            )
            for row in connection.execute(select(resource_table))
        ),
        actions=(
            Action(
                id=row.id,
                verb=row.verb,
                about=row.about,
                owner_of_act=row.owner_of_act,
                deadline_s=row.deadline_s,
                intended_seq=Seq(row.intended_seq),
                intended_ns=row.intended_ns,
                trace=row.trace,
            )
            for row in connection.execute(select(action_table).where(action_table.c.outcome.is_(None)))
        ),
    )
    return topology
