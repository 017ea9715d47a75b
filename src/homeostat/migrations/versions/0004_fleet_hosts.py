"""Dead hosts: when, with which receipt, and held by whom; armed rooms; whom a fault affects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("node", sa.Column("down_ns", BIG))
    op.add_column("node", sa.Column("fenced", sa.Text(), nullable=False, server_default=""))
    op.add_column("node", sa.Column("held", sa.Text(), nullable=False, server_default=""))
    op.add_column("fault", sa.Column("affected", sa.Text(), nullable=False, server_default="{}"))
    op.create_table(
        "arming",
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("armed", sa.Boolean(), nullable=False),
        sa.Column("since_ns", BIG, nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("room", name="pk_arming"),
    )
