"""What operations ask of a cloud, and what its words for a state mean. No I/O.

Every call blocks and ends within its time, with RetryLater when nobody knows what became of it (no answer, an
error of the service), GiveUp when the cloud says no, NotFound when there is no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from homeostat.drills.cloud_operation import What

SILENCE_S = 60.0
"""A request that is not answered for so long has no answer, whatever time its operation has left."""
Reached = Literal["active", "failed", "not yet"]
_ACTIVE = ("active", "available")
"""A volume is available, all else active; in whatever case the service writes it."""
_FAILED = ("error", "killed", "deleted", "pending_delete", "deactivated")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing to make. A server is made of `image` and `flavor`, by id, and without a network.

    `ram_mib`: of a flavor; it has a disk of 1 GiB and one core.
    """

    what: What
    name: str
    described: str
    content: Path | bytes = b""
    """Of an image."""
    image: str = ""
    flavor: str = ""
    ram_mib: int = 512


@dataclass(frozen=True, slots=True)
class State:
    """The service's own word, and what it says about a failure."""

    word: str
    fault: str = ""

    @property
    def reached(self) -> Reached:
        """Whether it is active, or never will be."""
        word = self.word.lower()
        if word in _ACTIVE:
            return "active"
        return "failed" if word in _FAILED or word.startswith("error") else "not yet"


@dataclass(frozen=True, slots=True)
class Token:
    """What a user asks with: for a project, if any, and until a Unix time, if the cloud says so."""

    token: str = field(repr=False)
    project_id: str | None
    expires_s: float | None


class Cloud(Protocol):
    """A user's own sight of a cloud."""

    def token(self, within_s: float) -> Token:
        """The one that it asks with."""
        ...

    def lacks(self, what: What, within_s: float) -> str | None:
        """Why there can be no such thing here: its service is not in the catalogue. Else None."""
        ...

    def create(self, wanted: Wanted, within_s: float) -> str:
        """Ask for it once; its id."""
        ...

    def state(self, what: What, id: str, within_s: float) -> State:
        """As it is now."""
        ...

    def delete(self, what: What, id: str, within_s: float) -> None:
        """Ask for its deletion once."""
        ...

    def ids(self, what: What, name: str, within_s: float) -> tuple[str, ...]:
        """Everything of that very name in the list."""
        ...

    def list(self, what: What, within_s: float) -> int:
        """The list as a user asks for it; how many its first page has."""
        ...

    def close(self) -> None:
        """Nothing more is asked."""
        ...
