"""The table of browser sessions. Hashes only: what a browser holds is in no table, no journal and no log."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Column, Connection, Table, Text, and_, bindparam, delete, insert, select

from homeostat.kernel.access import Caller, Role
from homeostat.kernel.database import BIG, METADATA, token
from homeostat.kernel.journal import Change
from homeostat.kernel.records import row_of

session_table = Table(
    "console_session",
    METADATA,
    Column("hash", Text, primary_key=True),
    Column("token", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("opened_ns", BIG, nullable=False),
    Column("expires_ns", BIG, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that was let in by a one-time link. Times are the server's wall clock."""

    hash: str
    token: str
    role: Role
    owner: str
    opened_ns: int
    expires_ns: int


def hash_secret(secret: str) -> str:
    """What the table keeps. The secret is 256 random bits, so one round is enough."""
    return hashlib.sha256(b"console session " + secret.encode(errors="surrogatepass")).hexdigest()


def insert_session(row: Session) -> Change:
    """A new session."""
    return Change(insert(session_table), (row_of(row),))


def remove_session(digest: str) -> Change:
    """The session ends with the commit; no error when there is none."""
    return Change(delete(session_table).where(session_table.c.hash == bindparam("gone")), ({"gone": digest},))


def remove_expired(now_ns: int) -> Change:
    """Sessions whose time is over are forgotten."""
    statement = delete(session_table).where(session_table.c.expires_ns <= bindparam("now"))
    return Change(statement, ({"now": now_ns},))


def find(connection: Connection, secret: str, now_ns: int) -> Caller | None:
    """Who sits at the browser.

    None when the session is not known or over, or when the token that opened it was revoked or changed since.
    """
    table = session_table.c
    query = (
        select(table.token, table.role, table.owner)
        .join(
            token, and_(token.c.name == table.token, token.c.role == table.role, token.c.owner == table.owner)
        )
        .where(table.hash == hash_secret(secret), table.expires_ns > now_ns)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Caller(row.token, Role(row.role), row.owner)
