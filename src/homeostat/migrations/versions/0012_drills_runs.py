"""Drills: who has a site for itself, every run with its report, and whether all are halted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; no drill was known before."""
    op.create_table(
        "drill_run",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("drill", sa.Text, nullable=False),
        sa.Column("suite", sa.Text, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("hosts", sa.Text, nullable=False),
        sa.Column("resources", sa.Text, nullable=False),
        sa.Column("seed", BIG, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("began_seq", BIG, nullable=False),
        sa.Column("began_ns", BIG, nullable=False),
        sa.Column("ended_seq", BIG),
        sa.Column("ended_ns", BIG),
        sa.Column("how", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("report", sa.Text),
        sa.PrimaryKeyConstraint("run", name="pk_drill_run"),
    )
    op.create_index("ix_drill_run_began_seq", "drill_run", ["began_seq"])
    op.create_index("ix_drill_run_drill", "drill_run", ["drill", "began_seq"])
    op.create_table(
        "drill_claim",
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("began_seq", BIG, nullable=False),
        sa.Column("renewed_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_drill_claim"),
    )
    op.create_table(
        "drill_halt",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_drill_halt"),
    )
