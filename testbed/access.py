"""What somebody needs who uses or drills the cloud: clouds.yaml, hosts for SSH, endpoints, a site of drills.

Pure but `write_access`. Files name each other by absolute paths; those with a secret are 0600.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from homeostat.kernel.files import write_private
from testbed.balancing import STATS_PORT
from testbed.node_files import DISK
from testbed.places import Places
from testbed.plan import CONTROLLERS, NODE_1, NODES, REGION, Checks, Node, Plan
from testbed.services import APIS, KEYSTONE, Api, endpoints

CLOUD = "testbed"
MACHINE = "machine"
"""The machine itself as a host of the site: there the nodes' power is switched."""
_DOWN_AT_MOST = "30s"
"""What a drill does not mean may be out for so long: a busy machine lets a service wait for some seconds."""
BALANCER, DATABASE = "balancer", "database"
"""Services of the site that are no API."""
DATABASE_FOLDER = f"{DISK}/upper/var/lib/mysql"
"""/var/lib/mysql where it really lies: below the overlay, which has no device."""


def clouds(plan: Plan) -> dict[str, Any]:
    """clouds.yaml: `openstack --os-cloud testbed ...`."""
    auth = {
        "auth_url": plan.url(5000, "/v3"),
        "username": "admin",
        "password": plan.secrets.password,
        "project_name": "admin",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    return {"clouds": {CLOUD: {"auth": auth, "region_name": REGION, "identity_api_version": 3}}}


def inventory(plan: Plan, folder: Path) -> dict[str, Any]:
    """Every node and how it is reached, the address that moves, and each service with all its places."""
    return {
        "cloud": CLOUD,
        "clouds_file": str(folder / "clouds.yaml"),
        "vip": plan.vip,
        "vip_first_on": plan.vip_on,
        "database_on": plan.database_on,
        "checks": plan.checks.value,
        "hosts": {each.name: {"role": each.role.value, "ssh": _ssh(plan, each, folder)} for each in NODES},
        "services": {
            api.name: {
                "type": api.kind,
                "endpoint": url,
                "open": plan.url(api.port, api.open_path),
                "hosts": {each.name: _own_url(plan, each, api) for each in CONTROLLERS},
            }
            for api, url in endpoints(plan)
        },
    }


def _own_url(plan: Plan, node: Node, api: Api) -> str:
    return f"http://{plan.address(node)}:{api.port}{api.open_path}"


def _ssh(plan: Plan, node: Node, folder: Path) -> dict[str, Any]:
    return {
        "address": plan.address(node),
        "user": "root",
        "key_file": str(folder / "id"),
        "known_hosts_file": str(folder / "known_hosts"),
    }


def deviations(plan: Plan) -> list[str]:
    """In what this cloud is none that somebody would run; every report of a drill says it first."""
    found = [
        "nova's driver is its own fake one with a lasting id: no guest runs",
        "cinder's driver is the fake one of its tests: no volume holds data",
        "no packet of a guest flows: an Open vSwitch agent is only reported, so that ports are bound",
        "APIs run under uwsgi: their processes are found by whole command lines, not by name",
        "one RabbitMQ and one memcached, on no controller",
        f"one MariaDB, on {plan.database_on}",
        "glance's images and keystone's keys are in a folder of the machine that both controllers mount",
        "supervisord starts a dead program at its next tick of a second",
        "all nodes share one kernel, one clock and this machine's CPUs; Node1 has a CPU set of its own",
        "a node's disk is a file on the machine's own, and nothing throttles writes",
    ]
    if plan.checks is Checks.slow:
        found.append("the balancer checks slowly: inter 1s, fall 2, check timeout 2s")
    if plan.not_restarted:
        found.append(f"nobody starts again on {NODE_1.name}: {', '.join(plan.not_restarted)}")
    return found


def site(plan: Plan, folder: Path, client: Path) -> dict[str, Any]:
    """site.yaml: what drills may name. What may be broken is said in a file of each node's own."""
    services: dict[str, Any] = {
        api.name: {
            "endpoint": plan.url(api.port),
            "holder": "address",
            "uses": [DATABASE] if api is KEYSTONE else [KEYSTONE.name, DATABASE],
            "down_at_most": _DOWN_AT_MOST,
            "hosts": {
                each.name: {"profile": api.name, "url": f"http://{plan.address(each)}:{api.port}"}
                for each in CONTROLLERS
            },
        }
        for api in APIS
    }
    services[BALANCER] = {
        "endpoint": f"tcp://{plan.vip}:{KEYSTONE.port}",
        "holder": "address",
        "down_at_most": _DOWN_AT_MOST,
        "hosts": {
            each.name: {"profile": "haproxy", "url": f"http://{plan.address(each)}:{STATS_PORT}"}
            for each in CONTROLLERS
        },
    }
    # Without a URL: a busy disk below the only database is what a case is about, a dead host is refused.
    services[DATABASE] = {"hosts": {plan.database_on: {"profile": "mariadb", "data": DATABASE_FOLDER}}}
    return {
        "site": CLOUD,
        "cloud": {"name": CLOUD, "clouds_file": str(folder / "clouds.yaml"), "client": str(client)},
        "deviations": deviations(plan),
        "hosts": {
            MACHINE: {"config": str(folder / "machine.yaml")},
            **{
                each.name: {
                    "ssh": _ssh(plan, each, folder),
                    "probe": f"tcp://{plan.address(each)}:22",
                    "power": {"host": MACHINE},
                }
                for each in NODES
            },
        },
        "services": services,
        # On a busy machine a clean baseline takes its time, and denser samples would be the load.
        "drills": {"ready_within_s": 180, "denser_at_most": 0},
    }


def machine(plan: Plan, state: Path, command: Sequence[str]) -> dict[str, Any]:
    """node.yaml of the machine: who switches a node off and on, by `command`, the testbed's own."""
    of_host = {"power-off": "off", "power-on": "on", "power-state": "state"}
    return {
        "host": MACHINE,
        "state_dir": str(state / "drilled"),
        "drills": {
            "enabled": True,
            "injectors": ["node_power"],
            "programs": {
                name: {"argv": [*command, "node", verb, "{host}", "--state", str(state)], "timeout_s": 60}
                for name, verb in of_host.items()
            },
            "power": {each.name: {"answers_at": [f"{plan.address(each)}:22"]} for each in NODES},
        },
    }


def own_command() -> list[str]:
    """`python -m testbed` from anywhere."""
    repository = Path(__file__).resolve().parents[1]
    return ["/usr/bin/env", f"PYTHONPATH={repository}", sys.executable, "-m", "testbed"]


def known_hosts(plan: Plan, public_keys: dict[str, str]) -> str:
    """Each node by name and by address."""
    lines = []
    for each in NODES:
        kind, key, *_ = public_keys[each.name].split()
        lines.append(f"{each.name},{plan.address(each)} {kind} {key}\n")
    return "".join(lines)


def ssh_config(plan: Plan, folder: Path) -> str:
    """`ssh -F` this file, then a node's name."""
    head = f"""Host *
  User root
  IdentityFile {folder / "id"}
  IdentitiesOnly yes
  UserKnownHostsFile {folder / "known_hosts"}
  StrictHostKeyChecking yes
"""
    return head + "".join(f"Host {each.name}\n  HostName {plan.address(each)}\n" for each in NODES)


def write_access(plan: Plan, places: Places) -> None:
    """All of it into one folder."""
    folder, keys = places.access, places.keys
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    public = {each.name: (keys / f"{each.name}.pub").read_text() for each in NODES}
    for name in ("id", "id.pub"):
        shutil.copyfile(keys / name, folder / name)
        (folder / name).chmod(0o600)
    texts = {
        "clouds.yaml": yaml.safe_dump(clouds(plan), sort_keys=False),
        "inventory.yaml": yaml.safe_dump(inventory(plan, folder), sort_keys=False),
        "machine.yaml": yaml.safe_dump(machine(plan, places.state, own_command()), sort_keys=False),
        "site.yaml": yaml.safe_dump(site(plan, folder, places.client), sort_keys=False),
        "known_hosts": known_hosts(plan, public),
        "ssh_config": ssh_config(plan, folder),
    }
    for name, text in texts.items():
        write_private(folder / name, text.encode())
