"""node.yaml: what is accepted, and the one line for what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.kernel.config import load
from homeostat.kernel.errors import BadInput
from homeostat.node.main import node_roles
from homeostat.node.settings import NodeSettings

GOOD = """
host: n1
state_dir: {folder}/n1
nats: {{url: "nats://127.0.0.1:4222", user: n1, password_file: {folder}/password}}
"""


def loaded(folder: Path, text: str) -> NodeSettings:
    path = folder / "node.yaml"
    path.write_text(text.format(folder=folder))
    return load(NodeSettings, path)


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    settings = loaded(tmp_path, GOOD)
    assert (settings.host, settings.heartbeat_s, settings.nats.ping_interval_s) == ("n1", 1.0, 2.0)
    assert settings.runner.resources == ()


def test_the_runner_is_started_with_the_same_file(tmp_path: Path) -> None:
    settings = loaded(tmp_path, GOOD + "runner: {{on_stop: leave, resources: []}}\n")
    (role,) = node_roles(settings, tmp_path / "node.yaml")
    runner = role.command
    assert (runner.name, runner.stop_s) == ("runner", 10.0)
    assert runner.argv[1:] == (
        "-m",
        "homeostat.resources.node.main",
        "--config",
        str(tmp_path / "node.yaml"),
    )


RUNNER = """
runner:
  on_stop: {on_stop}
  resources:
    - id: web
      agent: ocf:homeostat:process
      owner: platform
      parameters: {{{{command: "serve --password hunter2"}}}}
      operations: {{{{start: {{{{timeout_s: 20}}}}, stop: {{{{timeout_s: {stop_s}}}}}}}}}
"""


@pytest.mark.parametrize(("on_stop", "stop_s"), [("stop", 75.0), ("leave", 10.0)])
def test_the_runner_has_time_for_its_slowest_resource(tmp_path: Path, on_stop: str, stop_s: float) -> None:
    settings = loaded(tmp_path, GOOD + RUNNER.format(on_stop=on_stop, stop_s=45))
    assert node_roles(settings, tmp_path / "node.yaml")[0].command.stop_s == stop_s


def test_a_complaint_about_a_resource_does_not_show_its_parameters(tmp_path: Path) -> None:
    text = GOOD + RUNNER.format(on_stop="stop", stop_s=-1)
    with pytest.raises(BadInput, match=r"^runner\.resources\.0\.operations\.stop\.timeout_s: -1 ") as caught:
        loaded(tmp_path, text)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BadInput, match=r"^runner\.resources\.0\.agent: nothing is given") as caught:
        loaded(tmp_path, text.replace("      agent: ocf:homeostat:process\n", ""))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "hearbeat_s: 1\n", "hearbeat_s: 1 is not accepted"),
        (GOOD + "heartbeat_s: soon\n", "heartbeat_s: 'soon' is not accepted"),
        (GOOD + "heartbeat_s: 0\n", "heartbeat_s: 0 is not accepted"),
        (GOOD.replace("host: n1", "host: n1.>"), r"host: 'n1.>' is not accepted"),
        (GOOD.replace("host: n1", ""), "host: nothing is given; "),
        (GOOD + "config_file: /etc/passwd\n", "config_file: '/etc/passwd' is not accepted"),
        ("host: [", "it must be YAML"),
        ("- 1", "it must be a mapping with host, state_dir, nats"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        loaded(tmp_path, text)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_a_password_that_cannot_be_read_names_its_file(tmp_path: Path, content: str | bytes | None) -> None:
    settings = loaded(tmp_path, GOOD)
    if content is not None:
        body = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "password").write_bytes(body)
    with pytest.raises(BadInput, match=r"nats\.password_file.*/password"):
        settings.nats.password()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "n1").write_text("a file is in the way")
    (tmp_path / "password").write_text("x")
    (tmp_path / "node.yaml").write_text(GOOD.format(folder=tmp_path))
    ran = subprocess.run(
        [sys.executable, "-m", "homeostat.node.main", str(tmp_path / "node.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "n1: cannot be used" in ran.stderr
