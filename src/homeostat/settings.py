"""The settings of a server: each room's own, composed. The node's are in node_settings.py.

One YAML file; environment variables HOMEOSTAT__API__PORT and the like win over it. Every field says its unit,
its formula, and what breaks when it is too small or too large. An unknown field is refused.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel.appender import AppenderSettings
from homeostat.kernel.bus import BusSettings
from homeostat.kernel.errors import BadInput
from homeostat.notices.settings import NoticesSettings


def secret_in(file: Path, field: str) -> str:
    """The secret in a file; BadInput names `field` when it cannot be read or is empty."""
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field, str(file), f"a readable file ({error})") from error
    if not secret:
        raise BadInput(field, str(file), "a file that is not empty")
    return secret


class NatsSettings(BaseModel):
    """Where NATS is. The password is in a file, never in the settings."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(pattern=r"^(nats|tls)://")] = "nats://127.0.0.1:4222"
    user: str = "server"
    password_file: Path | None = None
    ping_interval_s: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="seconds between pings; two unanswered ones end the connection. Too small: a busy NATS "
        "is left. Too large: a frozen one is not noticed.",
    )

    def bus(self, name: str) -> BusSettings:
        """What the bus needs, with the password read; BadInput when it cannot be."""
        password = None
        if self.password_file is not None:
            password = secret_in(self.password_file, "nats.password_file")
        return BusSettings(self.url, self.user, password, name, self.ping_interval_s)


class ApiSettings(BaseModel):
    """Where people and programs reach the server."""

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=1, le=65535)
    body_max_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        description="bytes of a request body. Too small: requests are refused (413). Too large: memory.",
    )
    admin_token_file: Path | None = Field(
        default=None, description="a file with the administrator's token; made valid at every start"
    )


class StoreSettings(BaseModel):
    """The one writer and its disk."""

    model_config = ConfigDict(extra="forbid")

    ballast_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="bytes held in a file beside a SQLite database and let go when the disk is full, so that "
        "what was begun can be written. Too small: a full disk stops the server in the middle of an act.",
    )
    payload_max_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        description="bytes of one event. Too small: events are refused. Too large: the journal is slow.",
    )
    stall_s: float = Field(
        default=10.0,
        gt=0,
        description="seconds that a commit may take before the store counts as unavailable. Too small: a "
        "slow disk stops the server. Too large: a dead database is noticed late.",
    )


class TermSettings(BaseModel):
    """How long a leader leads without renewing."""

    model_config = ConfigDict(extra="forbid")

    ttl_s: float = Field(
        default=6.0,
        ge=1,
        description="seconds. Renewed every third. Too small: a slow database deposes a healthy leader. Too "
        "large: a standby takes over late.",
    )


class ServerSettings(BaseSettings):
    """server.yaml."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="HOMEOSTAT__", env_nested_delimiter="__")

    state_dir: Path
    database_url: str = Field(pattern=r"^(sqlite|postgresql\+psycopg)://")
    nats: NatsSettings = NatsSettings()
    api: ApiSettings = ApiSettings()
    term: TermSettings = TermSettings()
    store: StoreSettings = StoreSettings()
    fleet: FleetSettings = FleetSettings()
    faults: FaultsSettings = FaultsSettings()
    notices: NoticesSettings = NoticesSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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

    def listeners(self) -> tuple[tuple[str, int], ...]:
        """Where this installation itself listens: the API, and NATS when its URL has an address, no name.

        A name is not looked up here: a server must start while its DNS does not answer.
        """
        nats = urlsplit(self.nats.url)
        host = "127.0.0.1" if nats.hostname == "localhost" else nats.hostname or ""
        api = (self.api.host, self.api.port)
        try:
            return api, (str(ip_address(host)), nats.port or 4222)
        except ValueError:
            return (api,)

    def appender_settings(self) -> AppenderSettings:
        """The writer's part. A PostgreSQL server's disk is not ours: no ballast there."""
        embedded = self.database_url.startswith("sqlite")
        return AppenderSettings(
            ballast=self.state_dir / "ballast" if embedded and self.store.ballast_bytes else None,
            ballast_bytes=self.store.ballast_bytes,
            payload_limit_bytes=self.store.payload_max_bytes,
            stall_s=self.store.stall_s,
        )
