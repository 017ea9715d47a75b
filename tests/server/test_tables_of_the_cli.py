"""Tables of the command line, from the answers of a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from homeostat.cli import app
from real_parts import NatsServer
from running_server import ADMIN, RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_nats: NatsServer) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), shared_nats) as running:
        yield running


def said(server: RunningServer, *words: str) -> Result:
    return CliRunner().invoke(app, words, env={"HOMEOSTAT_URL": server.url, "HOMEOSTAT_TOKEN": ADMIN})


def test_status_has_a_line_for_every_set_point(server: RunningServer) -> None:
    rows = server.client.call("GET", "/status")["items"]
    ended = said(server, "status")
    assert ended.exit_code in (0, 1), ended.output
    # The first line says what is wrong while the server hears no node.
    heading, *lines = ended.stdout.splitlines()
    titles = [each.strip() for each in heading.split("  ") if each.strip()]
    assert [each for each in titles if each != "project"] == ["set point", "target", "now", "state", "detail"]
    assert rows
    for row in rows:
        assert any(line.startswith(row["promise"]) and row["standing"] in line for line in lines), (
            row,
            lines,
        )


def test_arm_shows_and_changes_who_acts_and_refuses_a_name_of_0_1(server: RunningServer) -> None:
    assert "recovery   not armed: it only observes" in said(server, "arm").output
    refused = said(server, "arm", "faults")
    assert refused.exit_code != 0 and "which is armed as a whole: recovery" in refused.output
    assert said(server, "arm", "recovery").output == "recovery is armed: it acts\n"
    assert "recovery   armed: it acts" in said(server, "arm").output
    assert said(server, "arm", "faults", "--off").output == "recovery is not armed: it only observes\n"
