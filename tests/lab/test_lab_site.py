"""The lab as a site: exactly this file, and hosts whose own settings know what it names."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from homeostat.drills.node.settings import DrilledNodeSettings
from homeostat.kernel.config import validate
from homeostat.lab.plan import (
    EDGES,
    HOSTS,
    PREFERRED_PORTS,
    UP,
    LabPlan,
    StateDirectory,
    balancer_argv,
    edge_settings,
    node_argv,
    node_settings,
    power_settings,
    site_settings,
)

PLAN = LabPlan(
    StateDirectory(Path("/lab")), PREFERRED_PORTS, "/opt/python", ("/opt/python", "-m", "homeostat.cli")
)
GOLDEN = """
site: lab
server: {url: "http://127.0.0.1:8700", token_file: /lab/server/admin.token}
hosts:
  n1: {config: /lab/hosts/n1/node.yaml, probe: "tcp://127.0.0.1:8791", power: {host: up}}
  n2: {config: /lab/hosts/n2/node.yaml, probe: "tcp://127.0.0.1:8792", power: {host: up}}
  n3: {config: /lab/hosts/n3/node.yaml, probe: "tcp://127.0.0.1:8793", power: {host: up}}
  edge1: {config: /lab/hosts/edge1/node.yaml}
  edge2: {config: /lab/hosts/edge2/node.yaml}
  up: {config: /lab/hosts/up/node.yaml}
services:
  web:
    endpoint: "http://127.0.0.1:8080"
    hosts:
      n1: {url: "http://127.0.0.1:8801", profile: web-n1, resource: web-n1}
      n2: {url: "http://127.0.0.1:8804", profile: web-n2, resource: web-n2}
      n3: {url: "http://127.0.0.1:8807", profile: web-n3, resource: web-n3}
  balancer:
    endpoint: "tcp://127.0.0.1:8080"
    holder: listens
    hosts:
      edge1: {profile: balancer}
      edge2: {profile: balancer}
  node:
    hosts:
      n1: {profile: node}
      n2: {profile: node}
      n3: {profile: node}
"""


def drilled() -> dict[str, DrilledNodeSettings]:
    given = [node_settings(PLAN, host) for host in HOSTS]
    given += [*(edge_settings(PLAN, edge) for edge in EDGES), power_settings(PLAN)]
    return {each["host"]: validate(DrilledNodeSettings, each) for each in given}


def test_the_site_file() -> None:
    assert site_settings(PLAN) == yaml.safe_load(GOLDEN)
    assert yaml.safe_load(yaml.safe_dump(site_settings(PLAN), sort_keys=False)) == site_settings(PLAN)


def test_each_host_of_the_site_knows_the_profiles_that_it_is_asked_for() -> None:
    nodes, made = drilled(), site_settings(PLAN)
    assert set(made["hosts"]) == set(nodes)
    for service in made["services"].values():
        for host, there in service["hosts"].items():
            profile = nodes[host].drills.profiles[there["profile"]]
            assert there["profile"] == there.get("resource", profile.resource) or profile.command_line
    for host, how in made["hosts"].items():
        if "power" in how:
            power = nodes[how["power"]["host"]].drills
            assert host in power.power and set(power.programs) == {"power-off", "power-on", "power-state"}


def test_a_profile_is_one_command_and_nothing_that_looks_like_it() -> None:
    nodes = drilled()
    commands = {host: " ".join(node_argv(PLAN, host)) for host in HOSTS}
    commands |= {edge: " ".join(balancer_argv(PLAN, edge)) for edge in EDGES}
    assert commands["n2"] == "/opt/python -m homeostat.cli run node --config /lab/hosts/n2/node.yaml"
    for host, words in commands.items():
        pattern = nodes[host].drills.profiles["node" if host in HOSTS else "balancer"].command_line
        assert pattern is not None
        same = [other for other, theirs in commands.items() if re.fullmatch(pattern, theirs)]
        assert same == [host]
        assert not re.fullmatch(pattern, f"sh -c {words}") and not re.fullmatch(pattern, f"{words}.orig")


def test_a_host_is_off_when_its_machine_and_its_service_are_silent_its_guests_may_be_elsewhere() -> None:
    power = drilled()[UP].drills.power
    assert power["n2"].answers_at == ("127.0.0.1:8792", "127.0.0.1:8804")
    assert set(power) == set(HOSTS)
