"""Several endpoints of a subscription, its expiry, and which endpoint a notice is for."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Each URL becomes the first endpoint of its subscription."""
    op.add_column("subscription", sa.Column("endpoints", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("subscription", sa.Column("expires_ns", BIG))
    table = sa.table("subscription", sa.column("name"), sa.column("url"), sa.column("endpoints"))
    connection = op.get_bind()
    for name, url in connection.execute(sa.select(table.c.name, table.c.url)).all():
        endpoints = json.dumps([[1, url, "json"]])
        connection.execute(table.update().where(table.c.name == name).values(endpoints=endpoints))
    op.drop_column("subscription", "url")
    op.add_column("outbox", sa.Column("endpoint", sa.Integer(), nullable=False, server_default="1"))
    op.create_index("ix_outbox_subscription_queued_seq", "outbox", ["subscription", "queued_seq"])
    op.create_index("ix_outbox_queued_seq", "outbox", ["queued_seq"])
