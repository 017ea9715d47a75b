"""The plan and the files that follow from it: pure, so tables."""

from __future__ import annotations

import shlex
from pathlib import Path

from homeostat.fleet.settings import FleetSettings, owners_warning
from homeostat.lab.bootstrap import ready_summary
from homeostat.lab.plan import (
    HOSTS,
    PREFERRED_PORTS,
    RESOURCES,
    SUBSCRIPTIONS,
    LabPlan,
    StateDirectory,
    node_settings,
    server_settings,
)
from homeostat.lab.preparation import find_nats_server, nats_config
from homeostat.resources.settings import RunnerSettings

PLAN = LabPlan(StateDirectory(Path("/lab")), PREFERRED_PORTS, "/opt/my python/bin/python")


def test_each_host_has_one_service_and_a_guest_of_each_tenant() -> None:
    for host in HOSTS:
        mine = [(each.id, each.kind.value, each.owner) for each in RESOURCES if each.host == host]
        assert mine == [
            (f"web-{host}", "service", "platform"),
            (f"guest-{host}-a", "guest", "blue"),
            (f"guest-{host}-b", "guest", "green"),
        ]


def test_no_two_fields_want_one_port() -> None:
    assert len(set(PREFERRED_PORTS.values())) == len(PREFERRED_PORTS) == 4 + len(RESOURCES) + len(HOSTS)


def test_a_node_knows_its_own_service_and_every_guest_and_stops_them_when_asked() -> None:
    settings = node_settings(PLAN, HOSTS[1])
    assert settings["host"] == "n2"
    assert settings["state_dir"] == "/lab/hosts/n2"
    assert settings["runner"]["on_stop"] == "stop"
    assert settings["runner"]["providers"] == ["homeostat"]
    resources = settings["runner"]["resources"]
    assert [each["id"] for each in resources if not each.get("movable")] == ["web-n2"]
    homes = {each["id"]: each["home"] for each in resources if each.get("movable")}
    assert homes == {each.id: each.host for each in RESOURCES if each.movable}
    assert len(homes) == 6
    RunnerSettings(**settings["runner"])


def test_a_guest_is_the_same_on_every_host_but_for_its_paths() -> None:
    for name in ("guest-n1-a", "guest-n3-b"):
        ports = set()
        for host in HOSTS:
            (guest,) = [
                each for each in node_settings(PLAN, host)["runner"]["resources"] if each["id"] == name
            ]
            command = shlex.split(guest["parameters"]["command"])
            ports.add(command[command.index("--port") + 1])
            assert command[command.index("--host") + 1] == host
            assert f"/hosts/{host}/" in guest["parameters"]["ready_file"]
        assert ports == {str(PREFERRED_PORTS[name])}


def test_the_command_survives_a_shell_and_says_where_the_service_listens() -> None:
    resource = node_settings(PLAN, HOSTS[0])["runner"]["resources"][0]
    command = shlex.split(resource["parameters"]["command"])
    assert command[:3] == ["/opt/my python/bin/python", "-m", "homeostat.lab.service"]
    assert command[command.index("--port") + 1] == str(PREFERRED_PORTS["web-n1"])
    assert command[command.index("--ready-file") + 1] == resource["parameters"]["ready_file"]
    assert resource["operations"]["monitor"] == {"timeout_s": 10, "interval_s": 2}
    assert all(isinstance(value, str) for value in resource["parameters"].values())


def test_the_server_gets_paths_of_secrets_not_secrets() -> None:
    settings = server_settings(PLAN)
    assert settings["database_url"] == "sqlite:////lab/server/homeostat.db"
    assert settings["nats"]["password_file"] == "/lab/server/nats.password"
    assert settings["api"] == {
        "host": "127.0.0.1",
        "port": 8700,
        "admin_token_file": "/lab/server/admin.token",
    }


def test_every_host_is_probed_from_outside_and_the_lab_may_act() -> None:
    fleet = server_settings(PLAN)["fleet"]
    assert [each["host"] for each in fleet["hosts"]] == list(HOSTS)
    assert len({each["tcp_port"] for each in fleet["hosts"]}) == len(HOSTS)
    assert fleet["gate"] == {"armed": ["recovery"]}
    settings = FleetSettings(**fleet)
    assert settings.fencing.driver == "command"
    assert "{host}" in settings.fencing.argv
    assert all(each.refused_means == "dead" for each in settings.hosts), "they share one kernel"


def test_every_project_hears_and_somebody_hears_everything() -> None:
    assert SUBSCRIPTIONS == {
        "on-call": "infrastructure",
        "platform": "platform",
        "blue": "blue",
        "green": "green",
    }


def test_nats_config_is_loopback_only_and_gives_each_node_its_own_subjects() -> None:
    text = nats_config(4222, {"server": "s" * 16, "n1": "a" * 16, "n2": "b" * 16}, HOSTS[:2])
    assert 'listen: "127.0.0.1:4222"' in text
    assert "jetstream" not in text.lower()
    assert 'user: "n1"' in text
    assert 'publish: ["node.n1.>"], subscribe: ["to.n1.>"]' in text
    assert 'publish: ["to.>"], subscribe: ["node.>"]' in text


def test_the_nats_server_of_the_wheel_is_found_and_says_its_version() -> None:
    binary = find_nats_server()
    assert binary.path.is_file()
    assert binary.version.startswith("v2.")


def test_the_summary_can_be_copied_from_another_directory() -> None:
    text = ready_summary(PLAN, coloured=False, here=Path("/elsewhere"))
    assert "kill -9 $(cat /lab/hosts/n1/web-n1.ready)" in text
    assert "HOMEOSTAT_DIR=/lab " in text
    assert "\033" not in text
    inside = ready_summary(
        LabPlan(StateDirectory(Path("/w/.homeostat")), PREFERRED_PORTS, "python"),
        coloured=True,
        here=Path("/w"),
    )
    assert "HOMEOSTAT_DIR" not in inside
    assert "cat .homeostat/hosts/n1/web-n1.ready" in inside


def test_the_projects_that_a_node_of_the_lab_may_name_are_listed() -> None:
    assert owners_warning(FleetSettings(**server_settings(PLAN)["fleet"])) == ""
