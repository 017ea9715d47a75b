"""Settings of drills on a host: the `drills:` part of node.yaml, with the shipped process profiles.

The host decides here what may be broken on it, never the server. Off unless node.yaml says `enabled: true`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from homeostat.contracts.scratch import pid_file_of
from homeostat.drills.shipped import permissions as permitted
from homeostat.drills.shipped.permissions import FieldReader, HostPermissions, read_profiles
from homeostat.kernel.config import load

PROFILES = Path(__file__).with_name("profiles.yaml")


class InjectorKind(StrEnum):
    """What can be broken."""

    node_kill = "node_kill"
    node_freeze = "node_freeze"
    node_cpu = "node_cpu"
    node_disk = "node_disk"
    node_network = "node_network"
    node_power = "node_power"


class _DrillsPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ProfileSettings(_DrillsPart):
    """Which processes are a service: exactly one way to find them."""

    command_line: str | None = None
    """Regular expression for the whole command line, its words joined by blanks."""

    pid_file: Path | None = None
    """A file with the pid of the first process; its descendants belong to it."""

    cgroup: str | None = None
    """A cgroup with everything below it, as in /proc/PID/cgroup: `system.slice/nova-api.service`."""

    resource: str | None = None
    """A resource of this node's runner, by its pid file; its descendants belong to it."""

    shared: bool = False
    """Other services live in the same processes: hitting them needs `allow_collateral`."""

    @field_validator("command_line")
    @classmethod
    def _is_a_pattern(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                re.compile(given)
            except re.error as error:
                raise ValueError(f"it must be a regular expression: {error}") from error
        return given

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (self.command_line, self.pid_file, self.cgroup, self.resource)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("exactly one of command_line, pid_file, cgroup, resource must be given")
        return self

    def found(self) -> permitted.Profile:
        """The same for the injectors."""
        return permitted.Profile(self.command_line, self.pid_file, self.cgroup, self.resource, self.shared)


class ProgramSettings(_DrillsPart):
    """A program that may be run here for a host. In one process: whoever ends it ends all of it."""

    argv: tuple[str, ...] = Field(min_length=1)
    """The program and its words; `{host}` in a word stands for the host. No shell reads it."""

    timeout_s: float = Field(default=20.0, gt=0, le=120)
    """Seconds after which it is killed, and has failed. Too small: a slow switch is never seen to obey. Too
    large: a hanging one keeps the undo of other faults of this host waiting."""


class PoweredHostSettings(_DrillsPart):
    """A host whose power is switched here."""

    answers_at: tuple[str, ...] = Field(min_length=1)
    """`address:port` of what answers there while it is on; all of that is silent when it is off."""

    @field_validator("answers_at")
    @classmethod
    def _are_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            address, _, port = each.rpartition(":")
            if not address or not port.isdigit() or not 0 < int(port) < 65_536:
                raise ValueError(f"it must be address:port, not {each!r}")
        return given


class HostDrillSettings(_DrillsPart):
    """What this host permits."""

    enabled: bool = False
    """Whether anything may be broken here on purpose. Off: every injector refuses."""

    injectors: tuple[InjectorKind, ...] = ()
    """Which kinds: node_kill, node_freeze, node_cpu, node_disk, node_network, node_power."""

    writable_paths: tuple[Path, ...] = ()
    """Folders in which node_disk may write its file, of at most 2 GiB and a tenth of what is free."""

    profiles: dict[str, ProfileSettings] = Field(default_factory=dict)
    """Services by name; they win over shipped ones. Each has exactly one of `command_line` (a regular
    expression for the whole of it), `pid_file`, `cgroup`, `resource`; `shared: true` says that other services
    live in the same processes."""

    programs: dict[str, ProgramSettings] = Field(default_factory=dict)
    """Programs by name, for node_power: `power-off`, `power-on` (which must do no harm when it is on) and
    `power-state` (which prints `on` or `off`, and `off` only when nothing of it runs). `restart-PROFILE`
    starts what a drill's clean-up found to be down."""

    power: dict[str, PoweredHostSettings] = Field(default_factory=dict)
    """Other hosts whose power is switched here, for node_power."""


def keeper_folder(state_dir: Path) -> Path:
    """The folder of the undo keeper of the host with this state directory."""
    return state_dir.absolute() / "keeper"


class _Resource(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    id: str
    pid_file: Path | None = None


class _Runner(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    resources: tuple[_Resource, ...] = ()


class DrilledNodeSettings(BaseModel):
    """What injectors and keeper read of node.yaml; the other parts belong to the node process."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    host: str
    state_dir: Path
    drills: HostDrillSettings = HostDrillSettings()
    runner: _Runner = _Runner()

    @property
    def keeper(self) -> Path:
        """The state folder of this host's undo keeper."""
        return keeper_folder(self.state_dir)

    def permitted(self) -> HostPermissions:
        """The same for the injectors."""
        resources = self.runner.resources
        return HostPermissions(
            host=self.host,
            file="node.yaml",
            state_dir=self.state_dir,
            enabled=self.drills.enabled,
            injectors=tuple(map(str, self.drills.injectors)),
            writable_paths=self.drills.writable_paths,
            own={name: each.found() for name, each in self.drills.profiles.items()},
            programs={
                name: permitted.Program(each.argv, each.timeout_s)
                for name, each in self.drills.programs.items()
            },
            power={name: permitted.PoweredHost(each.answers_at) for name, each in self.drills.power.items()},
            shipped=read_profiles(FieldReader(shipped_profiles())),
            pid_files={each.id: each.pid_file or pid_file_of(self.state_dir, each.id) for each in resources},
        )


def shipped_profiles() -> dict[str, dict[str, Any]]:
    """The shipped profiles as they are written."""
    words: dict[str, dict[str, Any]] = yaml.safe_load(PROFILES.read_text())
    return words


def read_drilled_node(path: Path) -> DrilledNodeSettings:
    """The drills' view of node.yaml. BadInput in one line."""
    return load(DrilledNodeSettings, path)
