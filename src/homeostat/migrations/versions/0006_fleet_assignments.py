"""The host that a movable guest is assigned to, how often it moved, and the event of a host's receipt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """What ran before was fixed to its host."""
    op.add_column("resource", sa.Column("generation", BIG, nullable=False, server_default="0"))
    op.add_column("node", sa.Column("fenced_seq", BIG))
