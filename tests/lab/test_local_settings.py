"""server.local.yaml is laid over the server.yaml that every start writes anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.kernel.config import load
from homeostat.kernel.errors import BadInput
from homeostat.lab.plan import HOSTS, PREFERRED_PORTS, PROJECTS, LabPlan, StateDirectory
from homeostat.lab.preparation import (
    load_or_create_credentials,
    merge_settings,
    read_local_settings,
    write_files,
)
from homeostat.server.settings import server_settings


def test_sections_are_merged_field_by_field_and_the_rest_replaced() -> None:
    ours = {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "kept": 0}
    theirs = {"a": {"c": {"e": 3}, "b": None}, "list": [3], "new": {"x": 1}}
    assert merge_settings(ours, theirs) == {
        "a": {"b": None, "c": {"d": 2, "e": 3}},
        "list": [3],
        "kept": 0,
        "new": {"x": 1},
    }
    assert ours == {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "kept": 0}


def test_what_a_person_wants_outlives_every_start_and_the_rest_stays_ours(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    credentials = load_or_create_credentials(
        state.credentials_file, users=["server", *HOSTS], projects=PROJECTS
    )
    plan = LabPlan(state, PREFERRED_PORTS, sys.executable)
    text = "faults: {flap_max: 3}\nfleet: {gate: {harm_max: 1}}\n"
    state.server_local_file.write_text(text)
    for _ in range(2):
        write_files(plan, credentials)
        settings = load(server_settings(), state.server_config_file)
        assert settings.faults.flap_max == 3
        assert (settings.fleet.gate.harm_max, settings.fleet.gate.armed) == (1, ["recovery"])
        assert settings.faults.doctor_log_file == state.doctor_monitor_log
        assert len(settings.fleet.hosts) == len(HOSTS)
    assert state.server_local_file.read_text() == text
    state.server_local_file.unlink()
    write_files(plan, credentials)
    assert load(server_settings(), state.server_config_file).faults.flap_max == 0


def test_none_or_an_empty_one_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "server.local.yaml"
    assert read_local_settings(file) == {}
    file.write_text("# nothing yet\n")
    assert read_local_settings(file) == {}


@pytest.mark.parametrize("body", [b"- a list\n", b"faults: {half\n", b"\xff\xfe\x00", b"words"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "server.local.yaml"
    file.write_bytes(body)
    with pytest.raises(BadInput, match=r"server\.local\.yaml"):
        read_local_settings(file)


def test_up_says_so_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "server.local.yaml"
    file.write_text("faults: {half\n")
    refused = subprocess.run(
        [sys.executable, "-m", "homeostat.cli", "up", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused
    assert str(file) in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
