"""What a drill asks of a host, however it is reached. No driver here.

Errors are the kernel's own, as the injector program means them by its exit code: NotFound, NotAllowed,
CorruptState, RetryLater, else GiveUp. A host that cannot be reached is RetryLater.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from homeostat.monitors.node_process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand

Verb = Literal["probe", "plan", "inject", "prove", "undo", "verify_undone"]


class HostTransport(Protocol):
    """One host."""

    host: str

    async def verb(self, verb: Verb, record: dict[str, Any]) -> dict[str, Any]:
        """The record of the fault with the section of that verb added, also when it says *not able*.

        `inject` is a process of its own on the host, and goes on when we die.
        """
        ...

    async def renew(self, fault: str) -> None:
        """Move the keeper's deadline on. GiveUp when the fault is over."""
        ...

    async def heal(self) -> list[dict[str, Any]]:
        """Have the host's keeper undo everything that is still broken; the outcomes."""
        ...

    async def status(self) -> dict[str, Any]:
        """Of its keeper: `keeper`, `open`, `halted`."""
        ...

    async def clock_ns(self) -> int:
        """CLOCK_BOOTTIME of that host."""
        ...

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        """Whether it holds the address: `listens`: a process of the profile does, on the endpoint's port;
        `address`: the host has the endpoint's address."""
        ...

    async def restart(self, profile: str, run: str) -> str:
        """Start a service that is down after `run`, by the program `restart-PROFILE` that the host's own file
        names; its name. NotAllowed when it names none, GiveUp when it fails."""
        ...

    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """The process watch there; what it saw ends up in `config.sightings_file`, its own in `folder`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
