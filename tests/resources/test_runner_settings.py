"""The `runner:` part of node.yaml: what is accepted, and one line for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from homeostat.kernel.config import load, validate
from homeostat.kernel.errors import BadInput
from homeostat.resources.ocf import AgentName
from homeostat.resources.settings import (
    NodeFile,
    RunnerSettings,
    check_installed,
    executable_of,
    offers_of,
    shipped_agents,
)

RESOURCE: dict[str, Any] = {
    "id": "web-n1",
    "agent": "ocf:homeostat:process",
    "kind": "service",
    "owner": "platform",
    "parameters": {"command": "sleep 9", "port": 8080, "verbose": True},
    "operations": {"start": {"timeout_s": 20}, "monitor": {"timeout_s": 10, "interval_s": 5}},
}


def node_yaml(resource: dict[str, Any] | None = None, **runner: Any) -> dict[str, Any]:
    runner = {"resources": [{**RESOURCE, **(resource or {})}], **runner}
    return {"host": "n1", "state_dir": "/tmp/n1", "nats": {"url": "x"}, "runner": runner}


def test_a_whole_file_is_read_and_numbers_reach_agents_as_text(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(node_yaml()))
    (resource,) = load(NodeFile, path).runner.resources
    assert resource.parameters == {"command": "sleep 9", "port": "8080", "verbose": "true"}
    assert resource.operations.stop.timeout_s == 20
    check_installed(load(NodeFile, path).runner)


def test_a_node_without_a_runner_part_runs_nothing() -> None:
    assert validate(NodeFile, {"host": "n1", "state_dir": "/x"}).runner.resources == ()


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (node_yaml({"id": "../etc"}), "runner.resources.0.id"),
        (node_yaml({"agent": "systemd:nginx"}), "agent"),
        (node_yaml({"agent": "ocf:homeostat:../../bin/sh"}), "agent"),
        (node_yaml({"kind": "lease"}), "runner.resources.0.kind"),
        (node_yaml({"colour": "blue"}), "runner.resources.0.colour"),
        (node_yaml({"pid_file": "run/x.pid"}), "resources.web-n1.pid_file"),
        (node_yaml({"parameters": {"CRM_meta_timeout": "1"}}), "resources.web-n1.parameters"),
        (node_yaml({"parameters": {"a b": "1"}}), "resources.web-n1.parameters"),
        (node_yaml({"parameters": {"a": ["1"]}}), "runner.resources.0.parameters.a"),
        (
            node_yaml({"operations": {"start": {"timeout_s": 0}}}),
            "runner.resources.0.operations.start.timeout_s",
        ),
        (
            node_yaml({"operations": {"stop": {"timeout_s": float("inf")}}}),
            "runner.resources.0.operations.stop.timeout_s",
        ),
        (
            node_yaml({"operations": {"monitor": {"interval_s": -1}}}),
            "runner.resources.0.operations.monitor.interval_s",
        ),
        (node_yaml({"operations": {"promote": {}}}), "runner.resources.0.operations.promote"),
        (node_yaml(on_stop="fence"), "runner.on_stop"),
        (node_yaml(resources=[RESOURCE, RESOURCE]), "resources"),
        ({"host": "n1"}, "state_dir"),
    ],
)
def test_a_bad_value_is_named(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as raised:
        validate(NodeFile, raw)
    assert raised.value.field == field
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_provider_that_this_node_does_not_allow_is_refused() -> None:
    with pytest.raises(BadInput, match=r"add heartbeat to runner\.providers"):
        validate(NodeFile, node_yaml({"agent": "ocf:heartbeat:Dummy"}))
    validate(NodeFile, node_yaml({"agent": "ocf:heartbeat:Dummy"}, providers=["heartbeat"]))


def test_parameters_are_never_shown() -> None:
    with pytest.raises(BadInput) as raised:
        validate(NodeFile, node_yaml({"parameters": {"password": ["hunter2"]}}))
    assert "hunter2" not in str(raised.value)
    with pytest.raises(BadInput) as raised:
        validate(NodeFile, node_yaml({"parameters": {"password": "hunter2\0"}}))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"!!python/object:os.system x"]
)
def test_a_file_that_is_not_a_mapping_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        load(NodeFile, path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(NodeFile, tmp_path / "none.yaml")


def test_the_shipped_agent_is_found_and_is_executable() -> None:
    path = executable_of(AgentName.parse("ocf:homeostat:process"), Path("/nowhere"))
    assert path == shipped_agents() / "homeostat" / "process"
    assert path.is_file() and path.stat().st_mode & 0o111


def test_an_agent_that_is_not_installed_is_named(tmp_path: Path) -> None:
    runner = node_yaml({"agent": "ocf:heartbeat:Nothing"}, providers=["heartbeat"], ocf_root=str(tmp_path))
    settings: RunnerSettings = validate(NodeFile, runner).runner
    with pytest.raises(BadInput, match=r"resource\.d/heartbeat/Nothing is not an executable file"):
        check_installed(settings)


def test_every_setting_says_what_it_is() -> None:
    schema = RunnerSettings.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    for model in models:
        for name, field in model.get("properties", {}).items():
            if name not in ("operations", "start", "stop", "monitor"):
                assert field.get("description"), name


def test_a_movable_guest_is_offered_with_its_home() -> None:
    guest = {"id": "g", "agent": "ocf:homeostat:process", "kind": "guest", "owner": "blue", "movable": True}
    settings = RunnerSettings(resources=({**RESOURCE}, {**guest, "home": "n2"}))  # type: ignore[arg-type]
    assert [(each.resource, each.home, each.owner) for each in offers_of(settings)] == [("g", "n2", "blue")]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"kind": "service", "movable": True}, "resources.web-n1.movable"),
        ({"kind": "guest", "home": "n2"}, "resources.web-n1.home"),
        ({"kind": "guest", "movable": True, "home": "n 2"}, "home"),
    ],
)
def test_what_cannot_move_says_so(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=field):
        validate(NodeFile, node_yaml(wrong))
