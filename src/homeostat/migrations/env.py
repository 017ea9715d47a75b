"""Alembic's environment: runs revisions on the connection it is given, in that connection's transaction."""

from __future__ import annotations

import logging

from alembic import context

from homeostat.kernel.database import METADATA

logging.getLogger("alembic").setLevel(logging.WARNING)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
