"""Access tokens: hashed, each with a role and a project, and the caller that a token stands for.

A token is 256 random bits, so one round of SHA-256 is enough and nothing can be guessed from timing; the
database never holds the token itself. Which project is for administrators only is decided in the
components.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, insert, select

from homeostat.kernel import database
from homeostat.kernel.errors import BadInput
from homeostat.kernel.journal import RowChange

_PREFIX = "hs_"
_table = database.token


class Role(StrEnum):
    """What a caller may do, most first."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `owner` is the caller's project; an administrator is not bound to it.

    `observes_only`: nobody knows who it is. It may hand in what it saw, and neither reads nor changes
    anything, whatever its role; what it says alone never leads to a disruptive action.
    """

    name: str
    role: Role
    owner: str
    observes_only: bool = False

    def may_read(self, owner: str) -> bool:
        return not self.observes_only and (self.role is Role.ADMIN or self.owner == owner)

    def may_write(self, owner: str) -> bool:
        """Whether this caller may change what belongs to `owner`; a viewer and a consumer never."""
        writes = self.role is Role.ADMIN or (self.role is Role.OPERATOR and self.owner == owner)
        return writes and not self.observes_only


def observer(listener: str) -> Caller:
    """The caller on a listener that asks for no token."""
    return Caller(f"listener/{listener}", Role.VIEWER, "", observes_only=True)


@dataclass(frozen=True, slots=True)
class Token:
    """A row: everything about a token but the token."""

    name: str
    hash: str
    role: Role
    owner: str
    created_ns: int


def new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """What the database keeps: SHA-256 as hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def insert_token(row: Token) -> RowChange:
    """A new token; the append fails with Conflict when the name is taken."""
    if not row.name.strip():
        raise BadInput("token.name", row.name, "a name")
    if not row.owner.strip():
        raise BadInput("token.owner", row.owner, "the name of a project")
    return RowChange(insert(_table), (asdict(row) | {"role": row.role.value},))


def remove_token(name: str) -> RowChange:
    """The token stops working with the commit; no error when there is none."""
    return RowChange(delete(_table).where(_table.c.name == bindparam("gone")), ({"gone": name},))


def replace_token(row: Token) -> tuple[RowChange, RowChange]:
    """The token of that name becomes this one, whether there was one or not."""
    return remove_token(row.name), insert_token(row)


def authenticate(connection: Connection, token: str) -> Caller | None:
    """Who holds this token, None for a token we do not know."""
    digest = hash_token(token)
    query = select(_table.c.name, _table.c.hash, _table.c.role, _table.c.owner).where(_table.c.hash == digest)
    row = connection.execute(query).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, digest) or row.role not in set(Role):
        return None
    return Caller(row.name, Role(row.role), row.owner)
