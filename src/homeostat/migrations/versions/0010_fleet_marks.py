"""Hosts that their cloud shows as down, and those whose guests it shows in error."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLUMNS = ("marked_ns", "error_ns")


def upgrade() -> None:
    """Add the columns."""
    for column in COLUMNS:
        op.add_column("node", sa.Column(column, BIG))


def downgrade() -> None:
    """Remove them."""
    for column in reversed(COLUMNS):
        op.drop_column("node", column)
