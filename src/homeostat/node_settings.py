"""node.yaml: what a node process may know and do. Decided on the node, never by the server.

Every field has a unit in its name where it has one. A wrong file is one line: field, value, what would do.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import BadInput
from homeostat.resources.settings import RunnerSettings, complaint

STOP_MARGIN_S = 10.0
"""What a role gets for itself when it stops."""

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
    role_stop_s: between SIGTERM and SIGKILL of a role. Default: what the slowest resource may take, and 10 s.
        Smaller cuts an `on_stop: stop` short; larger lets a hanging role delay the stop of the node.
    goodbye_s: how long a stopping node waits for the server to acknowledge its last observations.
    unacknowledged_max: transitions kept while the server is away, about 500 bytes each; beyond, the oldest
        are dropped and counted.
    """

    host: HostId = Field(pattern=NAME)
    state_dir: Path
    nats: NatsSettings
    heartbeat_s: float = Field(default=1.0, ge=0.05, le=60)
    role_stop_s: float | None = Field(default=None, gt=0)
    goodbye_s: float = Field(default=2.0, ge=0)
    unacknowledged_max: int = Field(default=10_000, ge=100)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    runner: RunnerSettings = RunnerSettings()
    config_file: Path = Field(exclude=True)

    @property
    def runner_stop_s(self) -> float:
        """Seconds that the runner has to stop: a start that has just begun, and the stop after it."""
        if self.role_stop_s is not None:
            return self.role_stop_s
        each = [one.operations for one in self.runner.resources if self.runner.on_stop == "stop"]
        return STOP_MARGIN_S + max((one.start.timeout_s + one.stop.timeout_s for one in each), default=0.0)

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
            if first["type"] != "missing":
                raise complaint(error) from error
            # Not the input: that is everything around the missing key, secrets included.
            where = ".".join(str(part) for part in first["loc"])
            raise BadInput(where, None, f"{path} must have this key") from error
