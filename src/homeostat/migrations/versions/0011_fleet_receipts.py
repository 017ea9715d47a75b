"""The time of a fenced host's receipt, and whether a person gave it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Of receipts that are there already nobody knows who gave them: a person may give one again."""
    op.add_column("node", sa.Column("fenced_ns", BIG))
    op.add_column("node", sa.Column("vouched", sa.Boolean(), nullable=False, server_default=sa.false()))
