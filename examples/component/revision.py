"""The revision of the notes' table; in production a file of `homeostat/migrations/versions`."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "9001", "0017"  # the head of the history that it is added to


def upgrade() -> None:
    """Make the table."""
    op.create_table("note", sa.Column("host", sa.Text, primary_key=True), sa.Column("text", sa.Text))
