"""Subscriptions and notices of an older version: each URL is the first endpoint, each notice is for it."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from homeostat.components import load_schemas
from homeostat.kernel.database import open_engine
from homeostat.migrations import upgrade
from homeostat.notices import store
from homeostat.notices.model import Endpoint, NoticeFormat, NoticeState


def test_a_url_becomes_the_first_endpoint(database_url: str) -> None:
    load_schemas()
    engine = open_engine(database_url)
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.execute(
            text(
                "INSERT INTO subscription (name, owner, url, secret, key_id, created_ns, kinds, resources)"
                " VALUES ('old', 'blue', 'http://x/\"y\"', 's', 'k', 1, '', '')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO outbox (key, subscription, owner, fault, transition, queued_seq, queued_ns,"
                " trace, state, attempts, next_ns, reason)"
                " VALUES ('old:f:raised', 'old', 'blue', 'f', 'raised', 7, 1, 't', 'pending', 2, 1, '')"
            )
        )
    upgrade(database_url)
    with engine.connect() as connection:
        (row,) = store.subscriptions(connection)
        assert row.endpoints == (Endpoint(1, 'http://x/"y"', NoticeFormat.JSON),)
        assert row.expires_ns is None
        (notice,) = store.pending_of(connection, "old", 0, 10)
        assert (notice.destination, notice.attempts, notice.state) == ("old", 2, NoticeState.PENDING)
        assert store.with_pending(connection) == ("old",)
    engine.dispose()
