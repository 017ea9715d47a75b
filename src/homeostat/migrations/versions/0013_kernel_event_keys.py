"""The key that makes a re-run of an event harmless; until now its loop, cause, kind and subject were that.

Events of before have no key. SQLite can drop a constraint only by copying the table, so a journal of 10 GB
needs as much free space once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the key; the cause is free to be the true one from now on."""
    with op.batch_alter_table("journal") as journal:
        journal.drop_constraint("uq_journal_loop_cause_kind_subject", type_="unique")
        journal.add_column(sa.Column("key", sa.Text))
        journal.create_unique_constraint("uq_journal_loop_key", ["loop", "key"])
