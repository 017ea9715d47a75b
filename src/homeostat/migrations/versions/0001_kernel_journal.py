"""The kernel's tables: journal, cursor, term, token."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "journal",
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("cause", BIG),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("loop", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_journal"),
        sa.UniqueConstraint("loop", "cause", "kind", "subject", name="uq_journal_loop_cause_kind_subject"),
    )
    op.create_index("ix_journal_subject_seq", "journal", ["subject", "seq"])
    op.create_index("ix_journal_cause", "journal", ["cause"])
    op.create_index("ix_journal_trace", "journal", ["trace"])
    op.create_table(
        "cursor",
        sa.Column("loop", sa.Text, nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.PrimaryKeyConstraint("loop", name="pk_cursor"),
    )
    op.create_table(
        "term",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_term"),
    )
    op.create_table(
        "token",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_token"),
        sa.UniqueConstraint("hash", name="uq_token_hash"),
    )
