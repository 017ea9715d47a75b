"""The settings of a server (server.yaml): its own, and a section for each component that has settings.

The node's are in node/settings.py.

One YAML file; environment variables HOMEOSTAT__API__PORT and the like win over it. Every field says its
unit, its formula, and what breaks when it is too small or too large. An unknown field is refused.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from homeostat.components import COMPONENTS, settings_sections
from homeostat.contracts.component import Component
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.appender import AppenderSettings
from homeostat.kernel.config import ListenerSettings, NatsSettings
from homeostat.kernel.connections import ConnectionLimits, connections_within
from homeostat.notices.settings import NoticesSettings

FOREIGN_CONNECTIONS_MAX = 200
"""Connections at once on a listener of a foreign protocol, kept free for each that is enabled."""
_FOREIGN_STRANGERS_MAX = 64


class ApiSettings(BaseModel):
    """Where people and programs reach the server."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = Field(default=8700, ge=1, le=65535)
    """The port to listen on."""

    body_max_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Bytes of a request body. Too small: requests are refused (413). Too large: memory."""

    metrics_open: bool = False
    """True: /metrics asks for no token. Numbers of the whole installation, nothing of a single guest; only
    where everybody who reaches this port may read them."""

    admin_token_file: Path | None = None
    """A file with the administrator's token; made valid at every start"""

    connections_max: int = Field(default=1000, ge=16)
    """Connections at once, of all callers; fewer where this process may not open so many files. Too small:
    callers are refused (503). Too large: memory."""

    connections_per_address: int = Field(default=200, ge=4)
    """Connections at once from one IPv4 address or one IPv6 /64. Too small: many callers behind one proxy are
    refused (429). Too large: one machine takes all places."""

    connections_unauthenticated: int = Field(default=256, ge=4)
    """Connections at once on which nobody has shown a token yet; above it the oldest without a complete
    request is closed. Too small: callers who come at the same moment are closed (503). Too large: whoever
    says nothing takes all places."""

    header_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds until the head of a request is there, then the connection is closed (408). Too small: slow
    lines are cut. Too large: who says nothing holds a connection for longer."""

    request_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds until the body of a request is there, and until a caller without a token has taken its answer.
    Too small: slow lines are cut. Too large: who sends a byte now and then holds a connection for longer."""

    descriptors_reserved: int = Field(default=256, ge=32)
    """Open files and sockets that connections never get: for NATS, the database, probes and notices, and
    two more for each of `notices.workers`. Too small: with many callers notices fail. Too large: fewer
    callers."""

    streams_per_token: int = Field(default=20, ge=1)
    """Open pages and readers of notices of one token. Too small: people close pages. Too large: one token
    takes the places of all."""

    streams_per_project: int = Field(default=50, ge=1)
    """Open pages and readers of notices of one project."""


class StoreSettings(BaseModel):
    """The one writer and its disk."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    ballast_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Bytes held in a file beside a SQLite database and let go when the disk is full, so that what was
    begun can be written. Too small: a full disk stops the server in the middle of an act."""

    payload_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Bytes of one event. Too small: events are refused. Too large: the journal is slow."""

    stall_s: float = Field(default=10.0, gt=0)
    """Seconds that a commit may take before the store counts as unavailable. Too small: a slow disk stops
    the server. Too large: a dead database is noticed late."""


class TermSettings(BaseModel):
    """How long a leader leads without renewing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    ttl_s: float = Field(default=6.0, ge=1)
    """Seconds. Renewed every third. Too small: a slow database deposes a healthy leader. Too large: a
    standby takes over late."""


class RetentionSettings(BaseModel):
    """How long history is kept."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    days: float = Field(default=90.0, gt=0, le=36_500)
    """Days after which events, and faults, notices and acts that are over, are removed; nothing that is open
    and nothing behind it. Too small: the story of a fault is gone when somebody asks. Too large: disk."""

    every_s: float = Field(default=3600.0, gt=0)
    """Seconds between two looks. Too small: reads for nothing. Too large: more to remove at once."""

    batch: int = Field(default=200, ge=1, le=10_000)
    """Rows in one commit. Too small: removal is slow. Too large: a fault waits for a commit of ours."""

    pause_s: float = Field(default=0.1, ge=0)
    """Seconds between two of these commits. Too small: the disk has no rest. Too large: removal is slow."""


class ServerSettings(BaseSettings):
    """server.yaml without the sections of components; a file is read with the model of `server_settings`."""

    model_config = SettingsConfigDict(
        extra="forbid", use_attribute_docstrings=True, env_prefix="HOMEOSTAT__", env_nested_delimiter="__"
    )

    state_dir: Path
    """Where the server keeps what is not in the database: the ballast."""

    database_url: str = Field(pattern=r"^(sqlite|postgresql\+psycopg)://")
    """sqlite:////absolute/path.db, or postgresql+psycopg://user@host/name."""

    nats: NatsSettings = NatsSettings()

    api: ApiSettings = ApiSettings()
    term: TermSettings = TermSettings()
    store: StoreSettings = StoreSettings()
    retention: RetentionSettings = RetentionSettings()
    fleet: FleetSettings = FleetSettings()
    notices: NoticesSettings = NoticesSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning or error."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, init_settings

    def listeners(self) -> list[tuple[str, int]]:
        """Host and port of what no webhook may reach: all of ours, and NATS where its address needs no
        lookup."""
        nats = urlsplit(self.nats.url)
        found = [(self.api.host, self.api.port)]
        found += [(each.host, each.port) for each in self.foreign_listeners()]
        with suppress(ValueError):
            found.append((str(ip_address(nats.hostname or "")), nats.port or 4222))
        return found

    def foreign_listeners(self) -> list[ListenerSettings]:
        """The listeners of components that are enabled, wherever in their sections they are."""
        sections = [getattr(self, name) for name in type(self).model_fields]
        found = [value for each in sections if isinstance(each, BaseModel) for _, value in each]
        return [each for each in found if isinstance(each, ListenerSettings) and each.enabled]

    def appender_settings(self) -> AppenderSettings:
        """The writer's part. A PostgreSQL server's disk is not ours: no ballast there."""
        embedded = self.database_url.startswith("sqlite")
        return AppenderSettings(
            ballast=self.state_dir / "ballast" if embedded and self.store.ballast_bytes else None,
            ballast_bytes=self.store.ballast_bytes,
            payload_limit_bytes=self.store.payload_max_bytes,
            stall_s=self.store.stall_s,
        )

    def connection_limits(self) -> ConnectionLimits:
        """As the settings say, with room for what this process needs itself. To be asked when it runs."""
        api = self.api
        reserved = api.descriptors_reserved + 2 * self.notices.workers + len(self.fleet.hosts)
        reserved += FOREIGN_CONNECTIONS_MAX * len(self.foreign_listeners())
        return ConnectionLimits(
            in_all=connections_within(api.connections_max, reserved),
            per_address=api.connections_per_address,
            strangers=api.connections_unauthenticated,
            header_s=api.header_timeout_s,
            request_s=api.request_timeout_s,
        )

    def foreign_limits(self) -> ConnectionLimits:
        """The same for a listener of a foreign protocol, which has fewer connections of its own."""
        limits = self.connection_limits()
        return replace(
            limits,
            in_all=FOREIGN_CONNECTIONS_MAX,
            per_address=min(limits.per_address, FOREIGN_CONNECTIONS_MAX),
            strangers=min(limits.strangers, _FOREIGN_STRANGERS_MAX),
        )

    def section(self, component: str) -> Any:
        return getattr(self, component)


@cache
def server_settings(components: tuple[Component, ...] = COMPONENTS) -> type[ServerSettings]:
    """The model of server.yaml with a section for each of these components that has settings."""
    sections: dict[str, Any] = {
        name: (model, model())
        for name, model in settings_sections(components).items()
        if name not in ServerSettings.model_fields
    }
    return create_model("ServerSettings", __base__=ServerSettings, __doc__="server.yaml.", **sections)
