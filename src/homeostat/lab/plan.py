"""The lab: its settings, state directory, hosts, services and ports, and the files that follow from them.

Pure: a plan in, plain dictionaries out (server.yaml, each node.yaml, and site.yaml: how drills reach the
hosts and what their services are). Not the place that writes them: `lab.preparation`. The same plan gives the
same files: they are written again at every start, so nobody edits them. What a drill may do to a host is not
in site.yaml but in that host's own node.yaml.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, Owner, ResourceId, ResourceKind

PROGRAM = (sys.executable, "-m", "homeostat.cli")
"""How a child runs our own command line."""


@dataclass(frozen=True, slots=True)
class UpSettings:
    """`state_dir` holds all state. `renew_ports` picks new ports for those that somebody else has taken.

    `program` is how a child runs our own command line.
    """

    state_dir: Path
    renew_ports: bool = False
    program: tuple[str, ...] = PROGRAM


class _Below:
    """A file or folder of a lab, by its path below the root."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, state: StateDirectory, _: type) -> Path:
        return state.root / self._path


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The layout of one lab, which has one owner. `root` is absolute."""

    root: Path

    lock_file = _Below("lock")
    lab_file = _Below("lab.json")
    credentials_file = _Below("credentials.json")
    client_file = _Below("client.json")
    children_file = _Below("children.json")
    heard_file = _Below("heard.jsonl")
    consumer_file = _Below("consumer.json")
    site_file = _Below("site.yaml")
    """What of this lab can be drilled, and how its hosts are reached."""
    balancer_lock_file = _Below("balancer.lock")
    logs = _Below("logs")
    doctor_monitor_log = _Below("logs/doctor_monitor.log")
    doctor_consumer_log = _Below("logs/doctor_consumer.log")
    nats = _Below("nats")
    nats_config_file = _Below("nats/nats.conf")
    server = _Below("server")
    server_config_file = _Below("server/server.yaml")
    server_local_file = _Below("server.local.yaml")
    """What a person wants otherwise in server.yaml; never written by us."""
    server_nats_password_file = _Below("server/nats.password")
    admin_token_file = _Below("server/admin.token")
    hosts = _Below("hosts")

    def host(self, host: HostId) -> Path:
        return self.hosts / host

    def off_file(self, host: HostId) -> Path:
        """While it is there the host is off: nothing of it is started."""
        return self.host(host) / "off"

    def node_config_file(self, host: HostId) -> Path:
        return self.host(host) / "node.yaml"

    def node_nats_password_file(self, host: HostId) -> Path:
        return self.host(host) / "nats.password"

    def resource_log(self, host: HostId, resource: str) -> Path:
        return self.host(host) / "logs" / f"{resource}.log"

    def ready_file(self, host: HostId, resource: str) -> Path:
        return self.host(host) / f"{resource}.ready"


HOSTS = (HostId("n1"), HostId("n2"), HostId("n3"))
EDGES = (HostId("edge1"), HostId("edge2"))
"""Where the balancers stand: no node process, no guests; the server does not know them."""
UP = HostId("up")
"""The machine itself, where `homeostat up` runs: the hosts' power is switched there."""
PROJECTS = (Owner("platform"), Owner("blue"), Owner("green"))
LOOPBACK = "127.0.0.1"

SUBSCRIPTIONS: Mapping[str, Owner] = {"on-call": INFRASTRUCTURE, **{str(owner): owner for owner in PROJECTS}}
"""Who hears: the name is the path at the consumer. `infrastructure` hears everything."""

_KINDS = (
    ("web-{host}", ResourceKind.SERVICE, PROJECTS[0]),
    ("guest-{host}-a", ResourceKind.GUEST, PROJECTS[1]),
    ("guest-{host}-b", ResourceKind.GUEST, PROJECTS[2]),
)


@dataclass(frozen=True, slots=True)
class LabResource:
    """One process that a node of the lab keeps up. A guest may run on any host; `host` is its home."""

    id: ResourceId
    host: HostId
    kind: ResourceKind
    owner: Owner

    @property
    def movable(self) -> bool:
        """Whether another host starts it when its own is dead."""
        return self.kind is ResourceKind.GUEST


RESOURCES = tuple(
    LabResource(ResourceId(name.format(host=host)), host, kind, owner)
    for host in HOSTS
    for name, kind, owner in _KINDS
)

PREFERRED_PORTS: Mapping[str, int] = {
    "api": 8700,
    "nats": 4222,
    "balancer": 8080,
    "consumer": 8790,
    **{resource.id: 8801 + at for at, resource in enumerate(RESOURCES)},
    **{f"machine-{host}": 8791 + at for at, host in enumerate(HOSTS)},
}
"""Every port of the lab by the name of its field in lab.json, and what it is when nobody else has it."""


@dataclass(frozen=True, slots=True)
class LabPlan:
    """Everything the settings files follow from. `ports` has the fields of PREFERRED_PORTS.

    `program` is how a child runs our own command line.
    """

    state: StateDirectory
    ports: Mapping[str, int]
    python: str
    program: tuple[str, ...] = PROGRAM

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['api']}"

    @property
    def nats_url(self) -> str:
        return f"nats://{LOOPBACK}:{self.ports['nats']}"

    @property
    def balancer_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['balancer']}"

    def hearing_url(self, subscription: str) -> str:
        return f"http://{LOOPBACK}:{self.ports['consumer']}/hear/{subscription}"


NODE_PROFILE, BALANCER_PROFILE = "node", "balancer"
"""The drills' names for what is no resource of a node."""


def node_argv(plan: LabPlan, host: HostId) -> tuple[str, ...]:
    return (*plan.program, "run", "node", "--config", str(plan.state.node_config_file(host)))


def address_argv(plan: LabPlan, host: HostId) -> tuple[str, ...]:
    """The command of what answers at a host's own address as long as the host is on."""
    port = ("--port", str(plan.ports[f"machine-{host}"]))
    return (plan.python, "-m", "homeostat.lab.service", "--name", f"machine {host}", "--host", host, *port)


def balancer_argv(plan: LabPlan, edge: HostId) -> tuple[str, ...]:
    """The command of an edge host's balancer. All have one lock, and who holds it has the address."""
    backends = [f"{each.id}={LOOPBACK}:{plan.ports[each.id]}" for each in web_services()]
    ready_file = str(plan.state.ready_file(edge, BALANCER_PROFILE))
    files = ("--lock", str(plan.state.balancer_lock_file), "--ready-file", ready_file)
    port = ("--port", str(plan.ports["balancer"]))
    return (plan.python, "-m", "homeostat.lab.balancer", *port, *files, *backends)


def edge_settings(plan: LabPlan, edge: HostId) -> dict[str, Any]:
    """node.yaml of an edge host: only what drills may do there, since no node process reads it."""
    return {
        "host": edge,
        "state_dir": str(plan.state.host(edge)),
        "drills": {
            "enabled": True,
            "injectors": ["node_kill", "node_freeze"],
            "profiles": {BALANCER_PROFILE: {"command_line": _exactly(balancer_argv(plan, edge))}},
        },
    }


def _power_program(plan: LabPlan) -> list[str]:
    return [plan.python, "-m", "homeostat.lab.power", "--dir", str(plan.state.root)]


def power_settings(plan: LabPlan) -> dict[str, Any]:
    """node.yaml of the machine where the hosts' power is: only how drills switch them off and on."""
    return {
        "host": UP,
        "state_dir": str(plan.state.host(UP)),
        "drills": {
            "enabled": True,
            "injectors": ["node_power"],
            "programs": {
                f"power-{what}": {"argv": [*_power_program(plan), what, "{host}"], "timeout_s": 20}
                for what in ("off", "on", "state")
            },
            "power": {host: {"answers_at": _answers_at(plan, host)} for host in HOSTS},
        },
    }


def _answers_at(plan: LabPlan, host: HostId) -> list[str]:
    """Where something of a host accepts connections while it is on. Its guests may be elsewhere."""
    mine = [each.id for each in RESOURCES if each.host == host and not each.movable]
    return [f"{LOOPBACK}:{plan.ports[name]}" for name in (f"machine-{host}", *mine)]


def _exactly(argv: tuple[str, ...]) -> str:
    return re.escape(" ".join(argv))


def web_services() -> tuple[LabResource, ...]:
    return tuple(each for each in RESOURCES if each.kind is ResourceKind.SERVICE)


def server_settings(plan: LabPlan) -> dict[str, Any]:
    """server.yaml. What is not said keeps the default of its component."""
    state = plan.state
    return {
        "state_dir": str(state.server),
        "database_url": f"sqlite:///{state.server / 'homeostat.db'}",
        "nats": {
            "url": plan.nats_url,
            "user": "server",
            "password_file": str(state.server_nats_password_file),
        },
        "api": {
            "host": LOOPBACK,
            "port": plan.ports["api"],
            "admin_token_file": str(state.admin_token_file),
        },
        "fleet": {
            "owners": list(PROJECTS),
            "hosts": [_host_settings(plan, host) for host in HOSTS],
            "fencing": {
                "driver": "command",
                "argv": [*_power_program(plan), "fence", "{host}"],
            },
            "gate": {"armed": ["recovery"]},
        },
        "faults": {"doctor_log_file": str(state.doctor_monitor_log)},
        "notices": {"allowed_networks": [f"{LOOPBACK}/32"]},
    }


def _host_settings(plan: LabPlan, host: HostId) -> dict[str, Any]:
    """All hosts of the lab share one kernel: that it refuses a connection says that the host is off."""
    return {
        "host": host,
        "address": LOOPBACK,
        "tcp_port": plan.ports[f"machine-{host}"],
        "probe": "tcp",
        "refused_means": "dead",
    }


def node_settings(plan: LabPlan, host: HostId) -> dict[str, Any]:
    """node.yaml of one host. A node asked to stop stops what it runs; one that is killed leaves it."""
    becomes = (plan.python, "-m", "homeostat.node.main", str(plan.state.node_config_file(host)))
    return {
        "host": host,
        "state_dir": str(plan.state.host(host)),
        "nats": {
            "url": plan.nats_url,
            "user": host,
            "password_file": str(plan.state.node_nats_password_file(host)),
        },
        "heartbeat_s": 1.0,
        "runner": {
            "on_stop": "stop",
            "ocf_root": "/usr/lib/ocf",
            "providers": ["homeostat"],
            "resources": [
                _resource_settings(plan, each, host)
                for each in RESOURCES
                if each.movable or each.host == host
            ],
        },
        "drills": {
            "enabled": True,
            "injectors": ["node_kill", "node_freeze", "node_cpu", "node_disk", "node_network"],
            "writable_paths": [str(plan.state.host(host))],
            "profiles": {
                **{each.id: {"resource": each.id} for each in RESOURCES if each.host == host},
                # The command line becomes the process that it starts.
                NODE_PROFILE: {"command_line": f"{_exactly(node_argv(plan, host))}|{_exactly(becomes)}"},
            },
        },
    }


MONITOR_S = 2
"""A service that is frozen is found by its monitor only. 9 monitors of 6 ms CPU each: 3 % of a core. Larger:
it is shown as up for longer. Smaller: CPU."""


def _resource_settings(plan: LabPlan, resource: LabResource, host: HostId) -> dict[str, Any]:
    """The same on every host that may run it, but for the paths."""
    state = plan.state
    ready_file = str(state.ready_file(host, resource.id))
    command = [plan.python, "-m", "homeostat.lab.service", "--name", resource.id, "--host", host]
    command += ["--port", str(plan.ports[resource.id]), "--ready-file", ready_file]
    return {
        "id": resource.id,
        "agent": "ocf:homeostat:process",
        "kind": resource.kind.value,
        "owner": resource.owner,
        **({"movable": True, "home": resource.host} if resource.movable else {}),
        "parameters": {
            "command": shlex.join(command),
            "ready_file": ready_file,
            "log_file": str(state.resource_log(host, resource.id)),
            "directory": str(state.host(host)),
            "stop_grace_s": "2",
        },
        "operations": {
            "start": {"timeout_s": 20},
            "stop": {"timeout_s": 20},
            "monitor": {"timeout_s": 10, "interval_s": MONITOR_S},
        },
    }


SITE_NAME = "lab"


def site_settings(plan: LabPlan) -> dict[str, Any]:
    """site.yaml. Every host is reached on this machine."""
    state, ports = plan.state, plan.ports
    reached = {host: {"config": str(state.node_config_file(host))} for host in (*HOSTS, *EDGES, UP)}
    powered = {
        host: {"probe": f"tcp://{LOOPBACK}:{ports[f'machine-{host}']}", "power": {"host": str(UP)}}
        for host in HOSTS
    }
    return {
        "site": SITE_NAME,
        "server": {"url": plan.api_url, "token_file": str(state.admin_token_file)},
        "hosts": reached | {host: reached[host] | powered[host] for host in HOSTS},
        "services": {
            "web": {
                "endpoint": plan.balancer_url,
                "hosts": {
                    each.host: {
                        "url": f"http://{LOOPBACK}:{ports[each.id]}",
                        "profile": each.id,
                        "resource": each.id,
                    }
                    for each in web_services()
                },
            },
            "balancer": {
                "endpoint": f"tcp://{LOOPBACK}:{ports['balancer']}",
                "holder": "listens",
                "hosts": {edge: {"profile": BALANCER_PROFILE} for edge in EDGES},
            },
            "node": {"hosts": {host: {"profile": NODE_PROFILE} for host in HOSTS}},
        },
    }
