"""node.yaml: what is accepted, and the one line for what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.kernel.errors import BadInput
from homeostat.node import main, roles_of
from homeostat.node_settings import NodeSettings

GOOD = """
host: n1
state_dir: {folder}/n1
nats: {{url: "nats://127.0.0.1:4222", user: n1, password_file: {folder}/password}}
"""


def load(folder: Path, text: str) -> NodeSettings:
    path = folder / "node.yaml"
    path.write_text(text.format(folder=folder))
    return NodeSettings.load(path)


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert (settings.host, settings.heartbeat_s, settings.nats.ping_interval_s) == ("n1", 1.0, 2.0)
    assert roles_of(settings) == ()


def test_the_runner_is_started_with_the_same_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD + "runner: {{on_stop: leave, resources: []}}\n")
    (runner,) = roles_of(settings)
    assert runner.name == "runner"
    assert runner.argv[1:] == (
        "-m",
        "homeostat.resources.node_runner",
        "--config",
        str(tmp_path / "node.yaml"),
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "hearbeat_s: 1\n", "hearbeat_s: 1 is not accepted"),
        (GOOD + "heartbeat_s: soon\n", "heartbeat_s: 'soon' is not accepted"),
        (GOOD + "heartbeat_s: 0\n", "heartbeat_s: 0 is not accepted"),
        (GOOD.replace("host: n1", "host: n1.>"), r"host: 'n1.>' is not accepted"),
        (GOOD.replace("host: n1", ""), "host: 'a missing key' is not accepted"),
        (GOOD + "config_file: /etc/passwd\n", "config_file: '/etc/passwd' is not accepted"),
        ("host: [", "YAML is"),
        ("- 1", "YAML with the keys"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, text)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_a_password_that_cannot_be_read_names_its_file(tmp_path: Path, content: str | bytes | None) -> None:
    settings = load(tmp_path, GOOD)
    if content is not None:
        body = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "password").write_bytes(body)
    with pytest.raises(BadInput, match=r"nats\.password_file.*/password"):
        settings.nats.password()


def test_a_missing_file_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path / "none.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "n1").write_text("a file is in the way")
    (tmp_path / "password").write_text("x")
    (tmp_path / "node.yaml").write_text(GOOD.format(folder=tmp_path))
    ran = subprocess.run(
        [sys.executable, "-m", "homeostat.node", str(tmp_path / "node.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "state_dir" in ran.stderr
