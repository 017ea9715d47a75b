"""The services of the cloud: which there are, where they listen, and which program each is. Pure.

An API runs as it does in distributions: `uwsgi --ini /etc/nova/nova-api-uwsgi.ini`. Its name is found in
its command line, not in the name of its process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.plan import NODE_1, Node, Plan, Role

VENV = "/opt/openstack"
_BIN = f"{VENV}/bin"


@dataclass(frozen=True, slots=True)
class Api:
    """One HTTP service of both controllers. `project` names its folder in /etc and its user in keystone."""

    name: str
    project: str
    port: int
    module: str
    kind: str
    path: str = ""
    processes: int = 1
    open_path: str = "/"
    """Answers 200 to anybody. The root of some says 300 (which version?), which is no plain yes."""

    @property
    def ini(self) -> str:
        return f"/etc/{self.project}/{self.name}-uwsgi.ini"

    @property
    def command(self) -> str:
        return f"{_BIN}/uwsgi --ini {self.ini}"


_HEALTH = "/healthcheck"
APIS = (
    Api("keystone", "keystone", 5000, "keystone.wsgi.api", "identity", "/v3", processes=2, open_path="/v3"),
    Api("placement-api", "placement", 8778, "placement.wsgi.api", "placement"),
    Api("nova-api", "nova", 8774, "nova.wsgi.osapi_compute", "compute", "/v2.1", processes=2),
    Api("neutron-server", "neutron", 9696, "neutron.wsgi.api", "network", processes=2),
    Api("glance-api", "glance", 9292, "glance.wsgi.api", "image", open_path="/versions"),
    Api(
        "cinder-api",
        "cinder",
        8776,
        "cinder.wsgi.api",
        "block-storage",
        "/v3/%(project_id)s",
        open_path=_HEALTH,
    ),
    Api("heat-api", "heat", 8004, "heat.wsgi.api", "orchestration", "/v1/%(project_id)s", open_path=_HEALTH),
)
KEYSTONE = APIS[0]
AFTER_KEYSTONE = "/usr/local/sbin/after-keystone"
"""Holds a program back until keystone has answered once: several exit while it does not, again and again."""

L2_AGENT = "/usr/local/lib/testbed/l2_agent.py"
"""Inside the compute node: what stands in for a switch."""

STEADY_DRIVER = f"{VENV}/lib/python3.11/site-packages/nova/virt/steady_driver.py"
"""Inside the compute node: what stands in for a hypervisor. nova looks for drivers in this folder only."""

_ML2 = "/etc/neutron/plugins/ml2/ml2_conf.ini"


@dataclass(frozen=True, slots=True)
class Program:
    """Something that a supervisor keeps up."""

    name: str
    command: str
    stop_signal: str = "TERM"


def _openstack(name: str, project: str, *, more: str = "") -> Program:
    files = f"--config-file /etc/{project}/{project}.conf{more}"
    return Program(name, f"{AFTER_KEYSTONE} {_BIN}/{name} {files}")


_AGENTS = (
    _openstack("nova-conductor", "nova"),
    _openstack("nova-scheduler", "nova"),
    _openstack("neutron-rpc-server", "neutron", more=f" --config-file {_ML2}"),
    _openstack("cinder-scheduler", "cinder"),
    _openstack("heat-engine", "heat"),
)
_SSHD = Program("sshd", "/usr/sbin/sshd -D -e")
_DATABASE = Program(
    "mariadb",
    "/usr/sbin/mariadbd --user=mysql --bind-address=0.0.0.0 --max-connections=1000 --skip-name-resolve "
    "--innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=2 --character-set-server=utf8mb4",
)
_KEEPALIVED = (
    "/usr/sbin/keepalived --dont-fork --log-console --log-detail --use-file /etc/keepalived/vip.conf"
)


def programs(plan: Plan, node: Node) -> list[Program]:
    """What runs on a node, in the order of its start."""
    found = [_SSHD]
    if node.name == plan.database_on:
        found.append(_DATABASE)
    match node.role:
        case Role.infrastructure:
            found += [
                Program("rabbitmq", "/usr/local/sbin/run-rabbitmq"),
                Program("memcached", "/usr/bin/memcached -u nobody -l 0.0.0.0 -m 64"),
                _openstack("cinder-volume", "cinder"),
            ]
        case Role.controller:
            found += [
                Program("haproxy", "/usr/sbin/haproxy -W -db -f /etc/haproxy/haproxy.cfg", "USR1"),
                Program("keepalived", _KEEPALIVED),
                Program(KEYSTONE.name, KEYSTONE.command),
                *(Program(each.name, f"{AFTER_KEYSTONE} {each.command}") for each in APIS[1:]),
                *_AGENTS,
            ]
        case Role.compute:
            found += [
                _openstack("nova-compute", "nova"),
                Program("l2-agent", f"{AFTER_KEYSTONE} {_BIN}/python {L2_AGENT}"),
            ]
    return found


def is_restarted(plan: Plan, node: Node, program: Program) -> bool:
    """Whether the supervisor starts it again when it dies."""
    return node is not NODE_1 or program.name not in plan.not_restarted


def profiles() -> dict[str, str]:
    """Service -> regular expression of its whole command lines, and of no other service's.

    Some name their processes themselves, and `neutron-rpc-server` has a "neutron-server: rpc worker".
    """
    python = rf"{re.escape(_BIN)}/python[\d.]* "
    found = {each.name: python + re.escape(each.command) for each in APIS}
    found["neutron-server"] += r"|neutron-server: api worker.*"
    for agent in _AGENTS:
        command = re.escape(agent.command.removeprefix(f"{AFTER_KEYSTONE} "))
        found[agent.name] = rf"{python}{command}|{agent.name}: (master process|ServiceWrapper worker).*"
    found["neutron-rpc-server"] += r"|neutron-server: (rpc|periodic|service) worker.*"
    found["haproxy"] = r"/usr/sbin/haproxy .*"
    found["keepalived"] = r"/usr/sbin/keepalived .*"
    found["mariadb"] = r"/usr/sbin/mariadbd .*"
    return found


def endpoints(plan: Plan) -> Iterator[tuple[Api, str]]:
    """Each API and what the catalogue says of it."""
    for each in APIS:
        yield each, plan.url(each.port, each.path)
