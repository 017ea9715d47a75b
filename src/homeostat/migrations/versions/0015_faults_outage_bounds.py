"""Bounds of outages, what took the place of a fault, and what of a dead host is right again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Of faults that are there already nobody knows the bounds; `outage_ms` stays as it was measured."""
    op.add_column("fault", sa.Column("superseded_by", sa.Text(), nullable=False, server_default=""))
    op.add_column("fault", sa.Column("outage_lower_ms", sa.Double()))
    op.add_column("fault", sa.Column("good_mono_ns", BIG))
    op.add_column("fault", sa.Column("bad_mono_ns", BIG))
    op.add_column("fault", sa.Column("restored", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("fault", sa.Column("remaining", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("outbox", sa.Column("part", sa.Integer(), nullable=False, server_default="0"))
