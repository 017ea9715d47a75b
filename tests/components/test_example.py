"""The example component is in every place once it is on the list, and gone without; its rows are kept."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from alembic.config import Config
from alembic.script import ScriptDirectory
from click.testing import Result
from examples.component.component import COMPONENT
from examples.component.revision import down_revision
from sqlalchemy import text
from typer.testing import CliRunner

from homeostat.cli import add_components
from homeostat.components import COMPONENTS, checkers, load_schemas
from homeostat.kernel.database import open_engine
from homeostat.kernel.errors import BadInput
from homeostat.migrations import upgrade
from homeostat.server.replay import compare_with_tables, unlisted_tables
from homeostat.sim.checkers import CheckerEvidence, read_database
from real_parts import NatsServer
from running_server import ADMIN, RunningServer

WITH_EXAMPLE = (*COMPONENTS, COMPONENT)
FOLDER = Path(__file__).parents[2] / "examples" / "component"
PROGRAM = Path(__file__).with_name("example_program.py")


@pytest.fixture
def revisions(tmp_path: Path) -> Path:
    """The example's revision, as it is."""
    folder = tmp_path / "revisions"
    folder.mkdir()
    shutil.copy(FOLDER / "revision.py", folder / "9001_notes.py")
    return folder


@pytest.fixture
def server(tmp_path: Path, nats: NatsServer, revisions: Path) -> Iterator[RunningServer]:
    """A server with the example; one note is too many."""
    running = RunningServer(tmp_path, nats, notes={"notes_max": 0})
    running.program = (str(PROGRAM), str(revisions))
    try:
        running.start()
        yield running
    finally:
        running.kill()


def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/homeostat.db"


def test_it_is_in_every_place(server: RunningServer, tmp_path: Path) -> None:
    app = typer.Typer()
    add_components(app, WITH_EXAMPLE)

    def said(*words: str) -> Result:
        return CliRunner().invoke(app, words, env={"HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN})

    assert said("note", "leave", "n1", "disk 3 clicks").exit_code == 0
    assert "disk 3 clicks" in said("note", "ls").output
    (row,) = [row for row in server.client.call("GET", "/status")["items"] if row["component"] == "notes"]
    assert (row["limit"], row["value"], row["standing"]) == (0, 1, "broken")
    assert 'homeostat_set_point_value{component="notes"' in server.get("/metrics")[1]

    refused = said("note", "wipe")
    assert refused.exit_code == 5 and "homeostat arm notes" in refused.stderr
    assert "notes is armed: it acts" in said("arm", "notes").output
    assert said("note", "wipe").exit_code == 0
    assert said("note", "leave", "n1", "disk 4 clicks").exit_code == 0

    assert "/console/notes" in visit(server, "/console/notes") and "disk 4 clicks" in visit(
        server, "/console/notes"
    )
    assert "<span>notes left: 1</span>" in visit(server, "/console/")
    left = visit(server, "/console/journal?kind=NoteLeft")
    assert "note about n1: disk 4 clicks" in left
    with open_engine(database(tmp_path), read_only=True).connect() as connection:
        wiped = connection.execute(text("SELECT seq FROM journal WHERE kind = 'NotesWiped'")).scalar()
    assert "admin wiped all notes" in said("explain", str(wiped)).output

    engine = open_engine(database(tmp_path), read_only=True)
    with engine.connect() as connection:
        assert compare_with_tables(connection, lambda _: None, WITH_EXAMPLE)[1] == ""
        assert unlisted_tables(connection, WITH_EXAMPLE) == {}
    evidence = CheckerEvidence(read_database(engine, WITH_EXAMPLE))
    assert [each for checker in checkers(WITH_EXAMPLE) for each in checker(evidence)] == []
    with open_engine(database(tmp_path)).begin() as connection:
        connection.execute(text("DELETE FROM journal WHERE kind = 'ComponentArmed'"))
        connection.execute(text("UPDATE note SET text = 'nothing'"))
    evidence = CheckerEvidence(read_database(engine, WITH_EXAMPLE))
    (violation,) = [each for checker in checkers(WITH_EXAMPLE) for each in checker(evidence)]
    assert str(violation).startswith("notes are wiped only when armed: notes")


def test_a_what_if_says_what_it_means_to_it(server: RunningServer, tmp_path: Path) -> None:
    server.client.call("PUT", "/notes/n1", {"text": "hands off"})
    server.kill()
    insert_host(tmp_path, "n1")
    server.start()
    answer = server.client.call("GET", "/what-if/host/n1")
    assert answer["exposed"] == [
        {"component": "notes", "subject": "host/n1", "owner": "infrastructure", "says": "hands off"}
    ]


def test_without_its_line_it_is_gone_and_its_rows_are_kept(
    server: RunningServer, tmp_path: Path, revisions: Path
) -> None:
    server.client.call("PUT", "/notes/n1", {"text": "hands off"})
    server.kill()
    engine = open_engine(database(tmp_path), read_only=True)
    with engine.connect() as connection:
        replay, wrong = compare_with_tables(connection, lambda _: None)
        assert (wrong, replay.unknown) == ("", 1)
        assert unlisted_tables(connection) == {"note": 1}
    config = tmp_path / "server.yaml"
    config.write_text(config.read_text().replace("notes:\n  notes_max: 0\n", ""))
    verify = [sys.executable, "-m", "homeostat.cli", "journal", "verify", "--config", str(config)]
    said = subprocess.run(verify, capture_output=True, text=True, check=True).stdout
    assert "1 of them are of a kind that this version cannot read" in said
    assert "table note: 1 rows kept of a component that is not installed" in said
    load_schemas()
    upgrade(database(tmp_path), (revisions,))  # its revision stays in the history
    with pytest.raises(BadInput):
        upgrade(database(tmp_path))


def test_its_revision_is_made_on_the_head_of_the_history() -> None:
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    assert [down_revision] == ScriptDirectory.from_config(config).get_heads()


def test_it_is_small() -> None:
    lines = 0
    for file in FOLDER.glob("*.py"):
        source = file.read_text()
        quoted = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node)
            for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
        }
        numbered = enumerate(source.splitlines(), 1)
        lines += sum(bool(line.strip()) and number not in quoted for number, line in numbered)
    assert lines < 150


def insert_host(tmp_path: Path, host: str) -> None:
    """A node that was there once."""
    row = {
        "host": host, "boot": "b", "incarnation": "i", "acked_seq": 0, "agent": "present", "joined_ns": 0,
        "fenced": "", "held": "", "vouched": False,
    }  # fmt: skip
    names = ", ".join(row)
    with open_engine(database(tmp_path)).begin() as connection:
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO node ({names}) VALUES ({values})"), row)


def visit(server: RunningServer, path: str) -> str:
    """A page, as the administrator's browser gets it."""
    import http.cookiejar
    import urllib.request

    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    browser.open(server.url + server.client.call("POST", "/console-links")["path"]).read()
    return str(browser.open(server.url + path).read().decode())
