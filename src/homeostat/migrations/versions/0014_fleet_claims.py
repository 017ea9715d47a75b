"""Claims of nodes on work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table; nothing was claimed before."""
    op.create_table(
        "fleet_claim",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("work", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("deadline_s", sa.Double, nullable=False),
        sa.Column("given_seq", BIG, nullable=False),
        sa.Column("given_ns", BIG, nullable=False),
        sa.Column("open_item", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("ended_ns", BIG),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_claim"),
        sa.UniqueConstraint("open_item", name="uq_fleet_claim_open_item"),
    )
    op.create_index("ix_fleet_claim_host_request", "fleet_claim", ["host", "request"])
