"""Hosts, resources, acts and faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("acked_seq", BIG, nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("joined_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_node"),
    )
    op.create_table(
        "resource",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since_ns", BIG, nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("pid", BIG),
        sa.PrimaryKeyConstraint("id", name="pk_resource"),
    )
    op.create_table(
        "action",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("owner_of_act", sa.Text(), nullable=False),
        sa.Column("deadline_s", sa.Double(), nullable=False),
        sa.Column("intended_seq", BIG, nullable=False),
        sa.Column("intended_ns", BIG, nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("took_ms", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_action"),
    )
    op.create_index("ix_action_outcome", "action", ["outcome"])
    op.create_table(
        "fault",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("raised_seq", BIG, nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("raised_ns", BIG, nullable=False),
        sa.Column("raised_mono_ns", BIG),
        sa.Column("up_ns", BIG),
        sa.Column("up_mono_ns", BIG),
        sa.Column("up_seq", BIG),
        sa.Column("cleared_ns", BIG),
        sa.Column("cleared_reason", sa.Text(), nullable=False),
        sa.Column("outage_ms", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_fault"),
    )
    op.create_index("ix_fault_state", "fault", ["state"])
    op.create_index("ix_fault_raised_seq", "fault", ["raised_seq"])
