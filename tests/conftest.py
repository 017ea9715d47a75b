"""Fixtures of all tests, and the count of the engines that a run goes without."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engines import POSTGRESQL, names_an_engine, need, summary
from real_parts import NatsServer
from real_postgresql import PostgresqlCluster
from store_parts import Store

LONG_FOLDERS = {"drills", "e2e", "lab", "mutants", "server", "simulation"}
"""Their files take longest and come first, so that the workers end together."""


# A machine that is busy makes examples slow; that says nothing of what is tested. They are other ones in each
# run, so fifty of each do for one; EXAMPLES=1000 for a long look.
settings.register_profile(
    "homeostat",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("EXAMPLES", "50")),
)
settings.load_profile("homeostat")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `.ci/plain-user` and of the rotation in `.ci/run`."""
    words = "only the tests that name an engine, a browser or root"
    parser.addoption("--naming-engines", action="store_true", help=words)
    parser.addoption("--begin-at", metavar="WORD", help="begin at another test for each word, as a commit is")


def pytest_configure(config: pytest.Config) -> None:
    """Say that the main thread has no event loop, or looptime makes one for each sync test and drops it."""
    asyncio.set_event_loop(None)
    config.addinivalue_line("markers", "engine(names): runs against them; tests/engines.py lists all")


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what `--naming-engines` asks for, and put first what `--begin-at` does."""
    if config.getoption("--naming-engines"):
        chosen = [item for item in items if _names_an_engine(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen
    items.sort(key=lambda item: not LONG_FOLDERS & set(item.path.parts))
    word = config.getoption("--begin-at")
    if word and items:
        at = zlib.crc32(word.encode()) % len(items)
        items[:] = items[at:] + items[:at]


def _names_an_engine(item: pytest.Item) -> bool:
    tested = getattr(item, "function", None)
    text = inspect.getsource(inspect.unwrap(tested)) if tested is not None else ""
    return names_an_engine(item.get_closest_marker("engine") is not None, text)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out before anything is made for it."""
    need(*(name for mark in item.iter_markers("engine") for name in mark.args))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """At the very end, for else nobody reads it: what was left out, and the way to get it."""
    yield
    reports = terminalreporter.getreports("skipped")
    for line in summary(str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running NATS server with the users `server`, `n1` and `n2` (password: `<user>-secret`)."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The same, for all tests of a file."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlCluster]:
    """A PostgreSQL server of this test run."""
    cluster = PostgresqlCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(params=["sqlite", POSTGRESQL])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/homeostat.db"
    cluster: PostgresqlCluster = request.getfixturevalue("postgresql")
    return cluster.new_database()


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with our tables, to be copied."""
    file = tmp_path_factory.mktemp("schema") / "homeostat.db"
    Store(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", POSTGRESQL])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database with our schema, once on each engine."""
    if request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("sqlite_with_schema"), tmp_path / "homeostat.db")
        made = Store(f"sqlite:///{file}")
    else:
        cluster: PostgresqlCluster = request.getfixturevalue("postgresql")
        made = Store(cluster.database_with_schema())
    yield made
    made.close()
