"""Silences; where a fault was when it was raised, and whether it flaps; how notices are grouped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table and the columns. What was there before is on no host and not grouped."""
    op.create_table(
        "silence",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.Column("begins_ns", BIG, nullable=False),
        sa.Column("ends_ns", BIG, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_silence"),
    )
    op.create_index("ix_silence_ends_ns", "silence", ["ends_ns"])
    op.add_column("subscription", sa.Column("group_by", sa.Text, nullable=False, server_default="none"))
    op.add_column("subscription", sa.Column("group_wait_ms", sa.Integer, nullable=False, server_default="0"))
    op.add_column("fault", sa.Column("flaps", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("fault", sa.Column("host", sa.Text, nullable=False, server_default=""))
