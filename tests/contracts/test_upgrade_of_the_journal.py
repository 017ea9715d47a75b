"""A journal of version 0.1 is upgraded in place: its events stay, a cause may come again."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from homeostat.components import load_schemas
from homeostat.kernel import database
from homeostat.kernel.database import open_engine
from homeostat.migrations import upgrade

EVENT = (
    "INSERT INTO journal (seq, kind, version, subject, cause, trace, at_ns, origin, loop, payload)"
    " VALUES ({seq}, 'Seen', 1, 'a', {cause}, 't', 1000, 'o', 'faults', '{{}}')"
)


def test_events_of_before_are_kept_and_the_same_cause_may_come_again(database_url: str) -> None:
    load_schemas()
    engine = open_engine(database_url)
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0012")
        connection.execute(text(EVENT.format(seq=1, cause="NULL")))
        connection.execute(text(EVENT.format(seq=2, cause=1)))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(EVENT.format(seq=3, cause=1)))
    upgrade(database_url)
    with engine.begin() as connection:
        table = database.journal.c
        rows = connection.execute(select(table.seq, table.cause, table.trace, table.key).order_by(table.seq))
        assert [tuple(row) for row in rows] == [(1, None, "t", None), (2, 1, "t", None)]
        connection.execute(text(EVENT.format(seq=3, cause=1)))
        connection.execute(text("UPDATE journal SET key = 'k' WHERE seq = 2"))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("UPDATE journal SET key = 'k' WHERE seq = 3"))
    engine.dispose()
