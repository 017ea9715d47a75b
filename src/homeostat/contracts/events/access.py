"""Who was let in. Neither a token nor its hash is ever in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import Owner


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A token of this name works from now on; one that had the name before does not."""

    VERSION: ClassVar[int] = 1
    token: str
    role: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """The token of this name does not work any more."""

    VERSION: ClassVar[int] = 1
    token: str


@dataclass(frozen=True, slots=True)
class ConsoleOpened:
    """Somebody with this token came in by a one-time link and has the dashboard in a browser."""

    VERSION: ClassVar[int] = 1
    token: str
    role: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class ConsoleClosed:
    """Somebody logged out of the dashboard. A session that is simply over leaves no event."""

    VERSION: ClassVar[int] = 1
    token: str


EVENTS = (TokenIssued, TokenRevoked, ConsoleOpened, ConsoleClosed)
