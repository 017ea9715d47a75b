"""Fixtures of every room. They are made of real_parts.py, real_postgresql.py and store_parts.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_parts import NatsServer
from real_postgresql import PostgresqlCluster, engines
from store_parts import Store


def pytest_configure() -> None:
    """Say that the main thread has no event loop, or looptime makes one for each sync test and drops it."""
    asyncio.set_event_loop(None)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running NATS server with the users `server`, `n1` and `n2` (password: `<user>-secret`)."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlCluster]:
    """A PostgreSQL server of this test run."""
    cluster = PostgresqlCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(params=engines())
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/homeostat.db"
    cluster: PostgresqlCluster = request.getfixturevalue("postgresql")
    return cluster.new_database()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A database with our schema, once on each engine."""
    made = Store(database_url)
    yield made
    made.close()
