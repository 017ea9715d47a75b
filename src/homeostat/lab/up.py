"""`homeostat up`: the embedded cluster as a list of children, and the files that they read.

This is where the lab meets the supervisor: the only module that knows both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from homeostat.kernel.files import write_json, write_private
from homeostat.kernel.processes import identify
from homeostat.lab.children import ChildSpec
from homeostat.lab.credentials import WEBHOOK_KEY_ID, Credentials, load_or_create
from homeostat.lab.leftovers import in_pid_files, marked
from homeostat.lab.local_settings import laid_over, read_local
from homeostat.lab.machines import HOST_MARK, is_on
from homeostat.lab.nats_config import NatsBinary, find_nats_server, nats_config
from homeostat.lab.plan import (
    BALANCER_PROFILE,
    EDGES,
    HOSTS,
    PREFERRED_PORTS,
    PROJECTS,
    UP,
    LabPlan,
    balancer_argv,
    edge_settings,
    node_argv,
    node_settings,
    power_settings,
    server_settings,
)
from homeostat.lab.ports import Claims, listens, settle_ports
from homeostat.lab.screen import Screen
from homeostat.lab.settings import StateDirectory, UpSettings
from homeostat.lab.site import site
from homeostat.lab.tenure import hold
from homeostat.lab.undoing import keep_again

_NODE_STOP_S = 45.0
"""Two resources one after the other may need 20 s each."""


def up(settings: UpSettings) -> int:
    """Start everything and keep it running until Ctrl-C or SIGTERM.

    The exit code: 0 stopped as asked, 1 not everything came up. Raises AlreadyRunning (the directory or a
    port is taken), CorruptState (a file of ours), BadInput (server.local.yaml), GiveUp.
    """
    state = StateDirectory(settings.state_dir.absolute())
    with Claims() as claims:
        return hold(state, partial(_prepare, settings, state, claims), Screen(sys.stdout.fileno()))


def _prepare(
    settings: UpSettings, state: StateDirectory, claims: Claims, screen: Screen
) -> Sequence[ChildSpec]:
    binary = find_nats_server()
    credentials = load_or_create(state.credentials_file, users=["server", *HOSTS], projects=PROJECTS)
    ours = partial(_belongs_here, state)
    ports = settle_ports(state.lab_file, PREFERRED_PORTS, claims, ours=ours, renew=settings.renew_ports)
    plan = LabPlan(state, ports, sys.executable, settings.program)
    for host in HOSTS:
        state.off_file(host).unlink(missing_ok=True)
    write_files(plan, credentials)
    screen.say(f"homeostat up: state in {state.root}; nats-server {binary.version} ({binary.path})")
    keep_again(state, screen.say)
    return children(plan, binary)


def _belongs_here(state: StateDirectory, pid: int) -> bool:
    identity = identify(pid)
    return identity in marked(state.root) or identity in in_pid_files(state.hosts)


def write_files(plan: LabPlan, credentials: Credentials) -> None:
    """Every settings and password file of the lab, 0600; the same plan gives the same files."""
    state = plan.state
    for directory in (
        state.nats,
        state.server,
        *(state.host(host) / "logs" for host in HOSTS),
        *map(state.host, (*EDGES, UP)),
    ):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(state.nats_config_file, nats_config(plan.ports["nats"], credentials.nats, HOSTS).encode())
    write_private(state.server_nats_password_file, credentials.nats["server"].encode())
    write_private(state.admin_token_file, credentials.admin_token.encode())
    wanted = laid_over(server_settings(plan), read_local(state.server_local_file))
    write_private(state.server_config_file, _yaml(wanted))
    for host in HOSTS:
        write_private(state.node_nats_password_file(host), credentials.nats[host].encode())
        write_private(state.node_config_file(host), _yaml(node_settings(plan, host)))
    for edge in EDGES:
        write_private(state.node_config_file(edge), _yaml(edge_settings(plan, edge)))
    write_private(state.node_config_file(UP), _yaml(power_settings(plan)))
    write_private(state.site_file, _yaml(site(plan)))
    write_json(state.consumer_file, {"keys": {WEBHOOK_KEY_ID: credentials.webhook_secret}})
    write_json(state.client_file, {"url": plan.api_url, "token": credentials.admin_token})


def children(plan: LabPlan, binary: NatsBinary) -> list[ChildSpec]:
    """The process tree. Stopped in this order: nodes, balancers, server, machines and consumer, NATS."""
    state, ports = plan.state, plan.ports
    ours = (plan.python, "-m")
    keys_and_log = ("--keys-file", str(state.consumer_file), "--heard-file", str(state.heard_file))
    doctor_log = ("--doctor-log", str(state.doctor_consumer_log))
    nodes = [
        ChildSpec(
            name=f"node-{host}",
            argv=node_argv(plan, host),
            after=("nats",),
            env={HOST_MARK: host},
            stop_wave=0,
            stop_deadline_s=_NODE_STOP_S,
            wanted=is_on(state, host),
        )
        for host in HOSTS
    ]
    machines = [
        ChildSpec(
            name=f"machine-{host}",
            argv=(*ours, "homeostat.lab.machine", "--host", host, "--port", str(ports[f"machine-{host}"])),
            env={HOST_MARK: host},
            ready=at_port(ports[f"machine-{host}"]),
            stop_wave=3,
            wanted=is_on(state, host),
        )
        for host in HOSTS
    ]
    balancers = [
        ChildSpec(
            name=f"balancer-{edge}",
            argv=balancer_argv(plan, edge),
            env={HOST_MARK: edge},
            ready=says_pid(state.ready_file(edge, BALANCER_PROFILE)),
            stop_wave=1,
        )
        for edge in EDGES
    ]
    return [
        ChildSpec(
            name="nats",
            argv=(str(binary.path), "-c", str(state.nats_config_file)),
            ready=at_port(ports["nats"]),
            stop_wave=4,
        ),
        ChildSpec(
            name="server",
            argv=(*plan.program, "run", "server", "--config", str(state.server_config_file)),
            ready=at_port(ports["api"]),
            after=("nats",),
            stop_wave=2,
            stop_deadline_s=15.0,
        ),
        *machines,
        *nodes,
        *balancers,
        ChildSpec(
            name="consumer",
            argv=(
                *ours,
                "homeostat.lab.consumer",
                "--port",
                str(ports["consumer"]),
                *keys_and_log,
                *doctor_log,
            ),
            ready=at_port(ports["consumer"]),
            shown_as="heard: ",
            stop_wave=3,
        ),
        ChildSpec(
            name="bootstrap",
            argv=(*ours, "homeostat.lab.bootstrap", "--dir", str(state.root)),
            env={"HOMEOSTAT_COLOUR": "1"} if _coloured() else {},
            after=("server", "consumer", *(each.name for each in (*balancers, *nodes))),
            once=True,
            shown_as="",
            stop_wave=0,
        ),
    ]


def at_port(port: int) -> Callable[[int], bool]:
    """A readiness check: the child itself listens there."""
    return partial(listens, port=port)


def says_pid(file: Path) -> Callable[[int], bool]:
    """A readiness check: the child has written its pid into the file."""

    def said(pid: int) -> bool:
        try:
            return file.read_text().strip() == str(pid)
        except OSError:
            return False

    return said


def _coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _yaml(value: object) -> bytes:
    import yaml  # 20 ms that only a start pays

    head = "# Written by `homeostat up` at every start; what you want goes into server.local.yaml.\n"
    return (head + yaml.safe_dump(value, sort_keys=False, width=1000)).encode()
