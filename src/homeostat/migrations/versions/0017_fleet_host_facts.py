"""What each host has: processors, memory, disk, architecture."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Of hosts that are there already it is known when their nodes have said it."""
    op.add_column("node", sa.Column("cpus", BIG))
    op.add_column("node", sa.Column("memory_mb", BIG))
    op.add_column("node", sa.Column("disk_gb", BIG))
    op.add_column("node", sa.Column("architecture", sa.Text()))
