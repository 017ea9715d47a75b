"""Hosts that their cloud shows as down, those whose guests it shows in error; faults found by their trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLUMNS = ("marked_ns", "error_ns")


def upgrade() -> None:
    for column in COLUMNS:
        op.add_column("node", sa.Column(column, BIG))
    op.create_index("ix_fault_trace", "fault", ["trace"])
