"""The term: which server leads. One row with an epoch that only grows, and a file lock beside a SQLite file.

Appends read the row FOR SHARE and a takeover updates it, so that a takeover waits for the appends before it
and every append after it sees the new epoch. Expiry goes by the database's clock, never by a server's.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Double, Engine, case, cast, func, literal, or_, update
from sqlalchemy.dialects import postgresql, sqlite

from homeostat.kernel.database import term


def acquire(
    engine: Engine, holder: str, ttl_s: float, *, predecessor_is_dead: bool = False, at_least: int = 1
) -> int | None:
    """Take the term for `ttl_s` seconds: the new epoch, or None while another's has not run out.

    `predecessor_is_dead` is a proof, not a guess (we hold the file lock of its database). The same holder may
    take its own term again, and gets a new epoch. `at_least` (the time, say) keeps the epochs of a database
    that is new or was restored above those that nodes remember from the one before it.
    """
    with engine.begin() as connection:
        now = _now(connection)
        first = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(term)
        nobody = {"id": 1, "epoch": 0, "holder": "", "expires_at": 0.0}
        connection.execute(first.values(nobody).on_conflict_do_nothing(index_elements=["id"]))
        following = case((term.c.epoch >= at_least, term.c.epoch + 1), else_=at_least)
        # One statement: PostgreSQL waits for the row and then looks at the condition again.
        taken = (
            update(term)
            .where(term.c.id == 1)
            .where(or_(term.c.expires_at <= now, term.c.holder == holder, literal(predecessor_is_dead)))
            .values(epoch=following, holder=holder, expires_at=now + ttl_s)
            .returning(term.c.epoch)
        )
        return connection.execute(taken).scalar()


def renew(engine: Engine, holder: str, epoch: int, ttl_s: float) -> bool:
    """Keep the term for another `ttl_s` seconds from now; False when somebody took it."""
    with engine.begin() as connection:
        return _extend(connection, holder, epoch, _now(connection) + ttl_s)


def release(engine: Engine, holder: str, epoch: int) -> bool:
    """Let the term run out at once; False when somebody took it."""
    with engine.begin() as connection:
        return _extend(connection, holder, epoch, literal(0.0))


def _extend(connection: Connection, holder: str, epoch: int, until: ColumnElement[float]) -> bool:
    ours = (term.c.id == 1) & (term.c.epoch == epoch) & (term.c.holder == holder)
    return connection.execute(update(term).where(ours).values(expires_at=until)).rowcount == 1


def _now(connection: Connection) -> ColumnElement[float]:
    """The database's clock in seconds, read when the row is ours and not when we began to wait."""
    if connection.dialect.name == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
    return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0
