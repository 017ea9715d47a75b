"""Leases, what they reserve, their moments, and the hosts that may be reserved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, BIG, nullable=nullable)


def upgrade() -> None:
    """Five tables. `created_seq` is the event that began a row."""
    op.create_table(
        "lease",
        sa.Column("id", sa.Text(), nullable=False),
        *map(_text, ("name", "project", "user")),
        *map(_big, ("start_ns", "end_ns")),
        _text("status"),
        *map(_big, ("created_ns", "updated_ns")),
        _big("ended_ns", nullable=True),
        _big("created_seq"),
        sa.PrimaryKeyConstraint("id", name="pk_lease"),
    )
    op.create_index("ix_lease_created_seq", "lease", ["created_seq"])
    op.create_table(
        "lease_reservation",
        sa.Column("id", sa.Text(), nullable=False),
        *map(_text, ("lease", "resource_type", "status")),
        *map(_integer, ("minimum", "maximum")),
        *map(_text, ("hypervisor_properties", "resource_properties", "before_end")),
        *map(_integer, ("amount", "vcpus", "memory_mb", "disk_gb")),
        sa.Column("affinity", sa.Boolean()),
        _big("moved_ns", nullable=True),
        _big("changed_ns", nullable=True),
        _big("acknowledged_ns", nullable=True),
        _integer("version"),
        _big("created_seq"),
        sa.PrimaryKeyConstraint("id", name="pk_lease_reservation"),
    )
    op.create_index("ix_lease_reservation_lease", "lease_reservation", ["lease"])
    op.create_table(
        "lease_allocation",
        sa.Column("id", sa.Text(), nullable=False),
        _text("reservation"),
        _integer("number"),
        _text("host", nullable=True),
        _big("since_ns"),
        *map(_text, ("reason", "lease")),
        _big("created_seq"),
        sa.PrimaryKeyConstraint("id", name="pk_lease_allocation"),
    )
    op.create_index("ix_lease_allocation_reservation", "lease_allocation", ["reservation"])
    op.create_table(
        "lease_event",
        sa.Column("id", sa.Text(), nullable=False),
        *map(_text, ("lease", "event_type")),
        _big("time_ns"),
        _text("status"),
        _integer("attempts"),
        _big("created_seq"),
        sa.PrimaryKeyConstraint("id", name="pk_lease_event"),
    )
    op.create_index("ix_lease_event_lease", "lease_event", ["lease"])
    op.create_table(
        "lease_host",
        sa.Column("host", sa.Text(), nullable=False),
        _integer("number"),
        sa.Column("reservable", sa.Boolean(), nullable=False),
        _text("reason"),
        _big("since_ns"),
        *map(_integer, ("vcpus", "memory_mb", "disk_gb")),
        *map(_text, ("architecture", "hold_reason")),
        _big("hold_until_ns", nullable=True),
        *map(_text, ("hold_by", "properties")),
        sa.Column("failed", sa.Boolean(), nullable=False),
        _text("reports"),
        _big("created_seq"),
        sa.PrimaryKeyConstraint("host", name="pk_lease_host"),
    )
    op.create_index("uq_lease_host_number", "lease_host", ["number"], unique=True)
