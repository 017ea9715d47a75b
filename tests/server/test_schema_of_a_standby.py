"""A newer server that stands by leaves the schema to whoever leads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from homeostat.components import load_schemas
from homeostat.kernel import leadership as term
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import open_engine
from homeostat.server.settings import ServerSettings
from homeostat.server.store import open_store
from real_postgresql import PostgresqlCluster
from store_parts import until

OLD = "0006"


def version(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())


async def test_the_schema_waits_for_the_term(postgresql: PostgresqlCluster, tmp_path: Path) -> None:
    load_schemas()
    url = postgresql.new_database()
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
    epoch = term.acquire_term(engine, "the old leader", 60.0)
    assert epoch is not None
    nats = {"url": "nats://127.0.0.1:4222"}
    settings = ServerSettings.model_validate({"state_dir": tmp_path, "database_url": url, "nats": nats})
    standby = open_store(settings, SystemClock())
    with capture_logs() as said:
        opening = asyncio.create_task(standby.__aenter__())
        await until(lambda: any("standing by" in each["event"] for each in said))
    assert version(engine) == OLD
    term.release_term(engine, "the old leader", epoch)
    store = await opening
    assert version(engine) > OLD and store.leader.epoch > epoch
    await standby.__aexit__(None, None, None)
    engine.dispose()
