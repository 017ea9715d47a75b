"""`homeostat journal verify` and `export` on a copy of a real lab's database, sound and damaged."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from running_lab import Lab, eventually

from homeostat.components import catalogue
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import Readers, open_engine
from homeostat.server.replay import compare_with_tables
from homeostat.server.retention import Retention
from homeostat.server.settings import RetentionSettings

pytestmark = pytest.mark.e2e


def journal(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "homeostat.cli", "journal", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def original(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a lab in which a guest has died and was started again."""
    eventually(lab.all_up, 30, "everything is up")
    victim = lab.service("guest-n1-b")
    assert victim is not None
    before = len(lab.told("green", "resource/guest-n1-b"))
    lab.kill(victim)
    eventually(lambda: len(lab.told("green", "resource/guest-n1-b")) == before + 2, 20, "it was told")
    live = journal("verify", "--dir", str(lab.directory))
    assert live.returncode == 0, live.stderr
    copy = Path(tmp_path_factory.mktemp("journal")) / "homeostat.db"

    def settled() -> bool:
        source = sqlite3.connect(f"file:{lab.directory}/server/homeostat.db?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            (waiting,) = target.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone()
            (acting,) = target.execute("SELECT count(*) FROM action WHERE outcome IS NULL").fetchone()
        return not waiting and not acting

    eventually(settled, 10, "nothing is open in the copy")
    return copy


@pytest.fixture
def database(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged, with a server.yaml beside it."""
    copy = tmp_path / "homeostat.db"
    copy.write_bytes(original.read_bytes())
    settings = {"state_dir": str(tmp_path), "database_url": f"sqlite:///{copy}"}
    copy.with_name("server.yaml").write_text(yaml.safe_dump(settings))
    return copy


def verify(database: Path) -> subprocess.CompletedProcess[str]:
    return journal("verify", "--config", str(database.with_name("server.yaml")))


def damage(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement).rowcount >= 1, statement


@pytest.mark.seed("order journal verify: a full replay is what the tables hold")
def test_a_sound_journal_is_what_its_tables_hold(database: Path) -> None:
    done = verify(database)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("events 1 to ")
    assert done.stdout.endswith("the tables are what they say\n")
    told = journal("verify", "--config", str(database.with_name("server.yaml")), "--json")
    assert json.loads(told.stdout)["difference"] == ""
    damage(database, "DELETE FROM fault")
    told = journal("verify", "--config", str(database.with_name("server.yaml")), "--json")
    assert told.returncode == 6
    assert "is not in the table" in json.loads(told.stdout)["difference"]


@pytest.mark.seed("order journal verify: the first difference is named")
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM journal WHERE seq = 7", "event 8: follows 6; 1 numbers are missing"),
        ("UPDATE journal SET cause = seq WHERE seq = 9", "event 9: its cause 9 is not before it"),
        ("UPDATE fault SET state = 'open'", "state is 'open' in the table and 'cleared' by the events"),
        ("UPDATE fault SET owner = 'blue' WHERE owner = 'green'", "owner is 'blue' in the table"),
        ("DELETE FROM fault", "is not in the table; an event says so"),
        ("UPDATE outbox SET state = 'pending'", "state is 'pending' in the table and 'delivered' by the"),
        ("DELETE FROM outbox WHERE subscription = 'green'", "outbox green:"),
        ("UPDATE action SET outcome = 'failed'", "outcome is 'failed' in the table and 'ok' by the events"),
        ("UPDATE token SET role = 'admin' WHERE name = 'blue'", "token blue: role is 'admin' in the table"),
        (
            "INSERT INTO token SELECT 'x', 'y', role, owner, 1 FROM token WHERE name = 'admin'",
            "token x: is in the table; no event says so",
        ),
        ("DELETE FROM subscription WHERE name = 'blue'", "subscription blue: is not in the table"),
        ("DELETE FROM journal WHERE kind = 'FaultCleared'", "numbers are missing"),
    ],
)
def test_the_first_difference_is_named(database: Path, statement: str, says: str) -> None:
    damage(database, statement)
    engine = open_engine(f"sqlite:///{database}", read_only=True)
    try:
        with engine.connect() as connection:
            _, wrong = compare_with_tables(connection, lambda _: None)
    finally:
        engine.dispose()
    assert says in wrong and "\n" not in wrong


def test_a_difference_is_one_line_with_the_remedy(database: Path) -> None:
    damage(database, "DELETE FROM fault")
    done = verify(database)
    *progress, said = done.stderr.strip().splitlines()
    assert done.returncode == 6 and "an event says so; restore the database from a backup" in said
    assert all(line.startswith("event ") for line in progress), done.stderr


@pytest.mark.seed("order retention: what is left is sound")
def test_a_pruned_journal_is_sound_too(database: Path) -> None:
    async def prune() -> dict[str, int]:
        url = f"sqlite:///{database}"
        engine, reading = open_engine(url), open_engine(url, read_only=True)
        readers, clock = Readers(reading), SystemClock()
        appender = Appender(engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=clock)
        appender.start()
        try:
            settings = RetentionSettings(days=1e-9, pause_s=0.0)
            return await Retention(appender, readers, clock, settings).prune()
        finally:
            await appender.close()
            readers.close()
            engine.dispose()
            reading.dispose()

    counts = asyncio.run(prune())
    # Silences, drills and claims are what other tests of the same lab may have made.
    assert all(counts[kind] > 0 for kind in ("faults", "notices", "acts", "events")), counts
    done = verify(database)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith("events 1 to ")
    damage(database, "INSERT INTO outbox SELECT 'k', 's', 'p', 'f', 'raised', max(seq), 0, 't', 'delivered', "
           "1, 0, '', 1, 1 FROM journal")  # fmt: skip
    assert "outbox k: is in the table; no event says so" in verify(database).stderr


@pytest.mark.seed("order journal export: JSON lines, every event")
def test_export_writes_every_event_as_a_line(database: Path, tmp_path: Path) -> None:
    config = ("--config", str(database.with_name("server.yaml")))
    shown = journal("export", *config)
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT seq, kind, payload FROM journal ORDER BY seq").fetchall()
    assert [(each["seq"], each["kind"], each["payload"]) for each in lines] == [
        (seq, kind, json.loads(payload)) for seq, kind, payload in rows
    ]
    file = tmp_path / "events.jsonl"
    assert journal("export", *config, "--output", str(file), "--after", "10").returncode == 0
    assert file.read_text().splitlines() == shown.stdout.splitlines()[10:]
    again = journal("export", *config, "--output", str(file))
    assert again.returncode == 2
    assert "a new file" in again.stderr
