"""node.yaml: what a node process may know and do. Decided on the node, never by the server.

Every field has a unit in its name where it has one. A wrong file is one line: field, value, what would do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import BadInput

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""A host id is a token of a NATS subject: no dots, no wildcards, no spaces."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NatsSettings(_Section):
    """Where NATS is and this node's account there.

    `ping_interval_s` x 3 is how long a frozen NATS server goes unnoticed; below 2 s, thousands of nodes keep
    NATS busy with pings.
    """

    url: str
    user: str
    password_file: Path
    ping_interval_s: float = Field(default=2.0, ge=0.1, le=60)

    def password(self) -> str:
        """What is in `password_file`; BadInput when it cannot be read or is empty."""
        try:
            password = self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            accepted = f"a file that this user can read is ({error})"
            raise BadInput("nats.password_file", str(self.password_file), accepted) from error
        if not password:
            raise BadInput("nats.password_file", str(self.password_file), "a file with the password in it is")
        return password


class NodeSettings(_Section):
    """One node.

    heartbeat_s: well below the server's `lost_after_s` (a third), or a healthy node looks silent; smaller
        costs the server CPU for every node.
    role_stop_s: between SIGTERM and SIGKILL of a role. Below the longest stop of a resource, `on_stop: stop`
        is cut short; above, a hanging role delays the stop of the node.
    goodbye_s: how long a stopping node waits for the server to acknowledge its last observations.
    unacknowledged_max: transitions kept while the server is away, about 500 bytes each; beyond, the oldest
        are dropped and counted.
    """

    host: HostId = Field(pattern=NAME)
    state_dir: Path
    nats: NatsSettings
    heartbeat_s: float = Field(default=1.0, ge=0.05, le=60)
    role_stop_s: float = Field(default=30.0, gt=0)
    goodbye_s: float = Field(default=2.0, ge=0)
    unacknowledged_max: int = Field(default=10_000, ge=100)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    runner: dict[str, Any] | None = None
    config_file: Path = Field(exclude=True)

    @classmethod
    def load(cls, path: Path) -> NodeSettings:
        """The settings in a YAML file; BadInput names the first field that is wrong."""
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("--config", str(path), f"a readable file is ({error})") from error
        except yaml.YAMLError as error:
            raise BadInput("--config", str(path), f"YAML is ({' '.join(str(error).split())})") from error
        if not isinstance(content, dict):
            raise BadInput("--config", str(path), "YAML with the keys host, state_dir and nats is")
        if "config_file" in content:
            raise BadInput("config_file", content["config_file"], "no such key is known")
        try:
            return cls.model_validate({**content, "config_file": path.resolve()})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "node.yaml"
            value = "a missing key" if first["type"] == "missing" else first["input"]
            raise BadInput(where, value, f"{path}: {first['msg']}") from error
