"""The `ssh:` block of a host in the site file: how a host without a process of ours is reached. No I/O."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

KNOWN_HOSTS = Path("~/.ssh/known_hosts")


class SshHop(BaseModel):
    """One host on the way."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str = Field(min_length=1)
    """Name or address."""

    port: int = Field(default=22, ge=1, le=65_535)
    """Of its SSH server."""

    user: str = Field(min_length=1)
    """Who logs in."""

    key_file: Path | None = None
    """A private key without a passphrase. Without it: the agent's keys, else those in ~/.ssh."""

    known_hosts_file: Path | None = None
    """Its host key must be in there. Without it: ~/.ssh/known_hosts. No unknown host is ever talked to."""

    @property
    def known_hosts(self) -> Path:
        """The file that is used."""
        return (self.known_hosts_file or KNOWN_HOSTS).expanduser()

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.user}@{self.address}:{self.port}"


class SshAccess(SshHop):
    """A host without a process of ours."""

    jump: SshHop | None = None
    """The host through which it is reached."""

    sudo: bool = False
    """Whether everything there is run as root, by `sudo -n`."""

    sudo_program: str = Field(default="sudo", min_length=1)
    """Which sudo."""

    python: str = Field(default="python3", min_length=1)
    """Which python there; 3.9 at least."""

    permitted_file: Path = Path("/etc/homeostat/drills.json")
    """That host's own file that says what may be broken there. Without it nothing may."""
