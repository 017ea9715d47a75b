"""Settings of hosts and nodes: patience with silence, outside probes, fencing, and the gate's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, model_validator

from homeostat.contracts.nouns import HOST_ID, INFRASTRUCTURE, OWNER, HostId, Owner
from homeostat.kernel.config import StrictSettings

RATE_MAX = 1000
"""Acts of one kind that are remembered for their rate, when they are limited to so many at most."""

HostName = Annotated[str, Field(pattern=HOST_ID)]
OwnerName = Annotated[str, Field(pattern=OWNER)]


class HostSettings(StrictSettings):
    """One host as seen from outside."""

    host: HostName = Field()
    """Its name, the one in its node.yaml"""

    address: str = Field(min_length=1)
    """IP address or name that the server probes"""

    tcp_port: int | None = Field(default=None, ge=1, le=65535)
    """A port on which the host itself listens, such as sshd's"""

    probe: Literal["auto", "icmp", "tcp"] = "auto"
    """Auto: icmp where this process may send it, else tcp"""

    refused_means: Literal["alive", "dead"] = "alive"
    """What a refused TCP connection says: a machine that refuses has a living kernel. `dead` where several
    hosts share one kernel, as in the lab."""

    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] | None = None
    """Where it stands, such as its rack: what a silence may name"""

    owners: list[OwnerName] | None = None
    """Projects whose resources its node may name, beside `infrastructure`; absent: as `fleet.owners` says.
    What else it names is refused, and a fault for administrators."""

    @model_validator(mode="after")
    def _tcp_has_a_port(self) -> HostSettings:
        if self.probe == "tcp" and self.tcp_port is None:
            raise ValueError("probe: tcp needs tcp_port")
        return self


class FencingSettings(StrictSettings):
    """How it is made sure that nothing runs on a dead host any more."""

    driver: Literal["manual", "command"] = "manual"
    """Manual: a person confirms; command: `argv` does it and exits 0"""

    argv: list[str] = Field(default=[])
    """The program and its arguments; `{host}` becomes the host's name"""

    deadline_s: float = Field(default=30.0, gt=0, le=600)
    """Seconds the command may take; then it is killed and the outcome is unknown. Too small: a slow power
    switch never gives a receipt. Too large: guests wait."""

    retry_s: float = Field(default=10.0, ge=0.1)
    """Seconds after a failed attempt before the next one"""

    @model_validator(mode="after")
    def _command_has_argv(self) -> FencingSettings:
        if self.driver == "command" and not self.argv:
            raise ValueError("driver: command needs argv")
        return self


class GateSettings(StrictSettings):
    """What stands before every act that does harm."""

    armed: list[str] = Field(default=[])
    """Components that act from the first start on, such as recovery; others observe until
    `homeostat arm COMPONENT`. What a person said later wins. `faults` and `resources`, its names until 0.1,
    arm recovery where both are listed."""

    dry_run: bool = False
    """Decide and write down everything, do nothing"""

    harm_max: int = Field(default=5, ge=1)
    """Hosts fenced in `harm_window_s`; nothing else counts. Too small: a dead rack is recovered slowly. Too
    large: a wrong decision does much before anybody looks."""

    harm_window_s: float = Field(default=60.0, gt=0)
    """Seconds"""

    mark_max: int = Field(default=50, ge=1, le=RATE_MAX)
    """Hosts marked down at the cloud in `mark_window_s`, and as many whose guests are marked in error. Both
    are taken back when the host is. Too small: the cloud starts guests on dead hosts. Too large: a wrong
    decision shows much as dead before anybody looks."""

    mark_window_s: float = Field(default=60.0, gt=0)
    """Seconds"""

    start_max: int = Field(default=50, ge=1, le=RATE_MAX)
    """Times in `start_window_s` that guests of a dead and fenced host are started elsewhere, up to 500 of
    one host at a time. Too small: guests wait though their host is fenced. Too large: a wrong receipt moves
    much before anybody looks."""

    start_window_s: float = Field(default=60.0, gt=0)
    """Seconds"""

    storm_percent: float = Field(default=30.0, gt=0, le=100)
    """Percent of the living, watched hosts that die within `storm_window_s` before the monitor is suspected
    and harm stops; one dead host is never a storm. Too small: a dead rack needs a person. Too large: a broken
    switch empties the cloud."""

    storm_window_s: float = Field(default=5.0, gt=0)
    """Seconds"""


class FleetSettings(StrictSettings):
    """Server side of hosts and nodes."""

    lost_after_s: float = Field(default=3.0, ge=0.5)
    """Seconds of silence before a node process is agent_lost. Formula: 3 heartbeats. Too small: a busy node
    is accused. Too large: nobody watches its resources and nobody knows."""

    sweep_s: float = Field(default=0.1, gt=0, le=1)
    """Seconds between two looks at who is silent. Too small: CPU. Too large: adds to lost_after_s."""

    inbox_max: int = Field(default=10000, ge=100)
    """Messages from nodes waiting to be decided; when full, further ones are dropped and sent again by
    their nodes. Too small: resends under load. Too large: old news after a stall."""

    hosts: list[HostSettings] = Field(default=[])
    """Hosts that the server probes from outside. One that is not listed is never host_down, only
    agent_lost."""

    probe_interval_s: float = Field(default=0.1, ge=0.01, le=60)
    """Seconds between two outside probes of one host. Too small: CPU, and a host that is busy looks dead.
    Too large: adds to the detection."""

    probe_timeout_s: float = Field(default=0.2, gt=0, le=60)
    """Seconds a probe waits for its answer. Formula: five times the round trip. Too small: a slow network
    looks dead. Too large: adds to the detection."""

    probe_failures: int = Field(default=3, ge=1)
    """Probes in a row that must fail. Too small: one lost packet is evidence. Too large: adds to the
    detection."""

    host_silent_after_s: float = Field(default=1.5, ge=0.2)
    """Seconds of silence of the agent before failing probes mean host_down. Formula: 1.5 heartbeats. Too
    small: a late heartbeat and a lost packet accuse a host. Too large: consumers hear late."""

    owners: list[OwnerName] | None = None
    """Projects whose resources any node may name, beside `infrastructure`, where `fleet.hosts.owners` does
    not say otherwise. Absent: any project, as before there was this setting: then whoever has the password of
    one node can invent a resource of any project on its host."""

    lone_witness_s: float = Field(default=15.0, ge=0.5, le=3600)
    """Seconds that the last witness of a host must be silent before host_down, when the other one has been
    gone for long: its agent while outside probes do not reach it, or its probes while its agent is lost or
    stopped. Formula: the longest pause that is no death. Too small: two small troubles fence a healthy host.
    Too large: a host that dies meanwhile is noticed late."""

    fencing: FencingSettings = FencingSettings()
    gate: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _hosts_are_distinct(self) -> FleetSettings:
        names = [each.host for each in self.hosts]
        if len(names) != len(set(names)):
            raise ValueError("a host is listed twice")
        return self


def owners_warning(fleet: FleetSettings) -> str:
    """Why a node may invent resources of projects that are not its own, and the remedy; empty: it may not."""
    if fleet.owners is not None:
        return ""
    return (
        "fleet.owners is not set: whoever has the password of one node can invent a resource of any project; "
        "list the projects there"
    )


@dataclass(frozen=True, slots=True)
class NodeOwners:
    """The projects that each node may name. `anywhere` None: any project."""

    anywhere: frozenset[Owner] | None = None
    by_host: Mapping[HostId, frozenset[Owner]] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: FleetSettings) -> NodeOwners:
        named = ((HostId(each.host), each.owners) for each in fleet.hosts)
        return cls(
            None if fleet.owners is None else frozenset(map(Owner, fleet.owners)),
            {host: frozenset(map(Owner, owners)) for host, owners in named if owners is not None},
        )

    def may_name(self, host: HostId, owner: Owner) -> bool:
        """Whether this node may say that it has or could run something of this owner."""
        owners = self.by_host.get(host, self.anywhere)
        return owners is None or owner == INFRASTRUCTURE or owner in owners
