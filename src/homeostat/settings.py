"""The settings of a server: each room's own, composed. The node's are in node_settings.py.

One YAML file; environment variables HOMEOSTAT__API__PORT and the like win over it. Every field says its unit,
its formula, and what breaks when it is too small or too large. An unknown field is refused.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.appender import AppenderSettings
from homeostat.nats_settings import NatsSettings
from homeostat.notices.settings import NoticesSettings


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
    """server.yaml."""

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
    faults: FaultsSettings = FaultsSettings()
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
        """Host and port of what no webhook may reach: our API, and NATS where its address needs no lookup."""
        nats = urlsplit(self.nats.url)
        found = [(self.api.host, self.api.port)]
        with suppress(ValueError):
            found.append((str(ip_address(nats.hostname or "")), nats.port or 4222))
        return found

    def appender_settings(self) -> AppenderSettings:
        """The writer's part. A PostgreSQL server's disk is not ours: no ballast there."""
        embedded = self.database_url.startswith("sqlite")
        return AppenderSettings(
            ballast=self.state_dir / "ballast" if embedded and self.store.ballast_bytes else None,
            ballast_bytes=self.store.ballast_bytes,
            payload_limit_bytes=self.store.payload_max_bytes,
            stall_s=self.store.stall_s,
        )
