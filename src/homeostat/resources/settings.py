"""The `runner:` part of node.yaml: what this host runs, and how long each action may take.

What a node may run is decided here, on the node, and nowhere else. Every complaint is a BadInput: field,
value, remedy; values of parameters are never shown, they may be secret.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

import homeostat
from homeostat.contracts.nouns import HOST_ID, OWNER, RESOURCE_ID, Owner, ResourceId, ResourceKind
from homeostat.contracts.wire import Candidate
from homeostat.kernel.errors import BadInput
from homeostat.resources.ocf import SHIPPED_PROVIDER, AgentName

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DAY_S = 86_400.0


def _as_text(value: object) -> object:
    """YAML's numbers and booleans as agents expect them."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return value


class OperationSettings(BaseModel):
    """One operation of a resource."""

    model_config = _STRICT
    timeout_s: float = Field(
        default=20.0,
        gt=0,
        le=_DAY_S,
        description="Seconds until the agent is killed with its process group. Too small: a slow but healthy "
        "action is cut off half done; keep it at or above what the agent's meta-data says, and above the "
        "guest's own shutdown time. Too large: a hung agent delays the next attempt by that long.",
    )


class MonitorSettings(OperationSettings):
    """The recurring check."""

    timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=_DAY_S,
        description="Seconds until a check without answer counts as down. Too small: a busy host looks dead "
        "and its resources are restarted. Too large: a hung service is noticed that much later.",
    )
    interval_s: float = Field(
        default=5.0,
        gt=0,
        le=_DAY_S,
        description="Seconds from the end of one check to the next. Too small: checks eat the CPU (2..90 ms "
        "each). Too large: what only a check can see stays unseen that long. A process that dies is seen at "
        "once whatever this says, if its pid file is known.",
    )


class OperationsSettings(BaseModel):
    """The operations the runner uses."""

    model_config = _STRICT
    start: OperationSettings = OperationSettings()
    stop: OperationSettings = OperationSettings()
    monitor: MonitorSettings = MonitorSettings()


class ResourceSettings(BaseModel):
    """One resource of this host."""

    model_config = _STRICT
    id: str = Field(
        pattern=RESOURCE_ID, description="Its name everywhere: journal, API, notices. Unique in the site."
    )
    agent: str = Field(description="ocf:PROVIDER:TYPE; the provider must be one of `providers`.")
    kind: ResourceKind = Field(default=ResourceKind.SERVICE, description="service or guest.")
    owner: str = Field(
        pattern=OWNER, description="The project that may read about it and is notified of its faults."
    )
    movable: bool = Field(
        default=False,
        description="Whether another host may run it when this one is dead. A movable guest is in the "
        "node.yaml of every host that may run it, and runs where the server says. Guests only.",
    )
    home: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,62})?$",
        description="The host that runs a movable guest at first. Default: the one with the fewest guests.",
    )
    parameters: dict[str, Annotated[str, BeforeValidator(_as_text), Field(max_length=100_000)]] = Field(
        default={}, description="The agent's parameters; see its meta-data."
    )
    pid_file: Path | None = Field(
        default=None,
        description="Where the agent or its service keeps the pid. Without it a death is seen by the next "
        "monitor only. ocf:homeostat:process needs none here.",
    )
    operations: OperationsSettings = OperationsSettings()

    @model_validator(mode="after")
    def _check(self) -> ResourceSettings:
        AgentName.parse(self.agent)
        for name, value in self.parameters.items():
            where = f"resources.{self.id}.parameters"
            if not _PARAMETER.fullmatch(name) or name.startswith("CRM_meta"):
                raise BadInput(where, name, "letters, digits, _ and -; CRM_meta is reserved")
            if "\0" in value:
                raise BadInput(f"{where}.{name}", "(hidden)", "no NUL character can reach an agent")
        if self.pid_file is not None and not self.pid_file.is_absolute():
            raise BadInput(f"resources.{self.id}.pid_file", str(self.pid_file), "write an absolute path")
        if self.movable and self.kind is not ResourceKind.GUEST:
            raise BadInput(f"resources.{self.id}.movable", "true", "only a resource of kind guest can move")
        if self.home and not self.movable:
            raise BadInput(f"resources.{self.id}.home", self.home, "only what is movable has a home")
        return self


class RunnerSettings(BaseModel):
    """The whole `runner:` part."""

    model_config = _STRICT
    on_stop: Literal["leave", "stop"] = Field(
        default="leave",
        description="What SIGTERM to the node does with its resources. leave: they go on and are found "
        "again. stop: each is stopped under its deadline first. kill -9 always leaves.",
    )
    ocf_root: Path = Field(default=Path("/usr/lib/ocf"), description="Where the system's OCF agents live.")
    providers: tuple[str, ...] = Field(
        default=(SHIPPED_PROVIDER,),
        description="Agent providers this node may run. Each is more code with our rights.",
    )
    stable_s: float = Field(
        default=10.0,
        ge=0,
        le=_DAY_S,
        description="Seconds a resource must be up before the next death counts as the first again (restart "
        "without delay). Too small: something that crashes all the time is restarted all the time. Too "
        "large: the second of two unrelated deaths is answered with a delay.",
    )
    backoff_most_s: float = Field(
        default=30.0,
        ge=1,
        le=_DAY_S,
        description="Longest pause between restarts in a row: 0, 1, 2, 4 ... this many seconds; also the "
        "pause after an error that a repeat is unlikely to cure. Too small: a hopeless resource keeps the "
        "host busy. Too large: it stays down that long after its cause has gone.",
    )
    resources: tuple[ResourceSettings, ...] = Field(default=(), description="What runs on this host.")

    @model_validator(mode="after")
    def _check(self) -> RunnerSettings:
        seen: set[str] = set()
        for resource in self.resources:
            if resource.id in seen:
                raise BadInput("resources", resource.id, "each id may appear once")
            seen.add(resource.id)
            provider = AgentName.parse(resource.agent).provider
            if provider not in self.providers:
                allowed = ", ".join(self.providers) or "none"
                raise BadInput(
                    f"resources.{resource.id}.agent",
                    resource.agent,
                    f"this node allows the providers: {allowed}; add {provider} to runner.providers",
                )
        return self


class NodeFile(BaseModel):
    """What the runner reads of node.yaml; the other parts belong to the node process."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    host: str = Field(pattern=HOST_ID)
    state_dir: Path
    runner: RunnerSettings = RunnerSettings()


def offers_of(settings: RunnerSettings) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(ResourceId(each.id), each.kind, Owner(each.owner), each.agent, each.home)
        for each in settings.resources
        if each.movable
    )


def shipped_agents() -> Path:
    """The directory of the product's own agents: inside the wheel, or beside `src` in a checkout."""
    package = Path(homeostat.__file__).resolve().parent
    inside = package / "ocf"
    return inside if inside.is_dir() else package.parents[1] / "ocf"


def executable_of(agent: AgentName, ocf_root: Path) -> Path:
    if agent.provider == SHIPPED_PROVIDER:
        return shipped_agents() / agent.provider / agent.type
    return ocf_root / "resource.d" / agent.provider / agent.type


def check_installed(settings: RunnerSettings) -> None:
    """BadInput for the first resource whose agent is not an executable file on this host."""
    for resource in settings.resources:
        path = executable_of(AgentName.parse(resource.agent), settings.ocf_root)
        if not (path.is_file() and os.access(path, os.X_OK)):
            remedy = f"{path} is not an executable file; install the agent or correct the name"
            raise BadInput(f"resources.{resource.id}.agent", resource.agent, remedy)
