"""The tables of notices: subscription, outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "subscription",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("created_ns", BIG, nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("resources", sa.Text, nullable=False),
        sa.Column("minimum_severity", sa.Text),
        sa.PrimaryKeyConstraint("name", name="pk_subscription"),
    )
    op.create_table(
        "outbox",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("transition", sa.Text, nullable=False),
        sa.Column("queued_seq", BIG, nullable=False),
        sa.Column("queued_ns", BIG, nullable=False),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_ns", BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_outbox"),
    )
    op.create_index(
        "ix_outbox_state_subscription_queued_seq", "outbox", ["state", "subscription", "queued_seq"]
    )
    op.create_index("ix_outbox_owner_queued_seq", "outbox", ["owner", "queued_seq"])
    op.create_index("ix_outbox_fault", "outbox", ["fault"])
