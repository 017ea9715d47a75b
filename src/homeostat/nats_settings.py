"""Where NATS is and who we are there: the same for servers and nodes."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from homeostat.kernel.errors import BadInput


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
    """The password is in a file, never in the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: str = Field(default="nats://127.0.0.1:4222", pattern=r"^(nats|tls)://")
    """The address of a NATS server, or of one of a cluster."""

    user: str = "server"
    """The account: `server`, or the name of the host."""

    password_file: Path | None = None
    """A file with the account's password; none where NATS asks for none."""

    ping_interval_s: float = Field(default=0.5, ge=0.1, le=60)
    """Seconds between pings; a frozen NATS server goes unnoticed for three of them. Too small: a busy NATS is
    left. Too large: a frozen one is not noticed."""

    def password(self) -> str | None:
        """What is in `password_file`; BadInput when it cannot be read or is empty."""
        return None if self.password_file is None else secret_in(self.password_file, "nats.password_file")
