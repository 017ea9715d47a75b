"""homeostat check: against a database that a run left behind, whole and spoiled."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from homeostat.cli import app
from homeostat.sim.database import SimDatabase
from homeostat.sim.run import run_seed


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a simulated run's database, with its log beside it as below a running server."""
    folder = tmp_path_factory.mktemp("run") / "server"
    folder.mkdir()
    run_seed(3, SimDatabase(folder))
    return folder


@pytest.fixture
def directory(left_behind: Path, tmp_path: Path) -> Path:
    """A state directory with a copy of it."""
    shutil.copytree(left_behind, tmp_path / "server")
    return tmp_path


def checked(directory: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", "--dir", str(directory), *options])
    return result.exit_code, result.output


def test_a_good_database_is_called_good_and_left_alone(directory: Path) -> None:
    code, said = checked(directory, "--json")
    assert code == 0, said
    answer = json.loads(said)
    assert answer["violations"] == []
    assert answer["events"] > 20


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        ("DELETE FROM journal WHERE kind = 'ActionIntended'", "I1"),
        ("UPDATE outbox SET state = 'pending', queued_ns = 1", "I2"),
        ("DELETE FROM outbox", "I3"),
        ("UPDATE action SET outcome = NULL, intended_ns = 1", "I10"),
        ("DELETE FROM journal WHERE kind = 'FaultRaised'", "raised before cleared"),
        ("DELETE FROM journal WHERE kind = 'HostJoined'", "a host is accused"),
        ("DELETE FROM journal WHERE kind = 'HostDown'", "no disruptive action but through the gate"),
        ("UPDATE journal SET payload = replace(payload, '\"epoch\":1,', '\"epoch\":0,')", "no write under"),
    ],
)
def test_each_damage_is_named(directory: Path, spoil: str, name: str) -> None:
    database = sqlite3.connect(directory / "server" / "homeostat.db")
    database.execute(spoil)
    database.commit()
    database.close()
    code, said = checked(directory)
    assert code == 1
    assert any(line.startswith(name) for line in said.splitlines()), said


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    code, said = checked(tmp_path)
    assert code == 4
    assert "--dir" in said


def test_acts_whose_intent_no_disk_had_are_counted_and_named(directory: Path) -> None:
    assert "I1:" not in checked(directory)[1]
    database = sqlite3.connect(directory / "server" / "homeostat.db")
    (seq,) = database.execute("SELECT min(seq) FROM journal WHERE kind = 'ActionIntended'").fetchone()
    database.execute(
        "UPDATE journal SET payload = json_set(payload, '$.uncommitted', json('true')) WHERE seq = ?", (seq,)
    )
    database.commit()
    database.close()
    code, said = checked(directory)
    assert code == 0, "it is told, and no violation"
    assert said.startswith("I1: 1 act with an intent that was only in memory")
    assert f"(event {seq})" in said
    (act,) = json.loads(checked(directory, "--json")[1])["uncommitted"]
    assert act["event"] == seq and act["action"] in said
