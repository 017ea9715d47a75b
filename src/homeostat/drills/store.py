"""The tables of drills: claims, runs with their reports, the halt. Changes are made here, not written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Index, Row, Table, Text, bindparam, delete, insert, select, update

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.drills.leader.runs import LAPSE_NS, Claim, Halt, RunSpan
from homeostat.kernel.database import BIG, METADATA
from homeostat.kernel.journal import EventIndex, RowChange, Seq

run_table = Table(
    "drill_run",
    METADATA,
    Column("run", Text, primary_key=True),
    Column("drill", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("hosts", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("seed", BIG, nullable=False),
    Column("owner", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("began_seq", BIG, nullable=False),
    Column("began_ns", BIG, nullable=False),
    Column("ended_seq", BIG),
    Column("ended_ns", BIG),
    Column("how", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("report", Text),
    Index("ix_drill_run_began_seq", "began_seq"),
    Index("ix_drill_run_drill", "drill", "began_seq"),
)
"""`hosts` and `resources` are JSON lists. `report` is as its schema says, None when none came."""

claim_table = Table(
    "drill_claim",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("began_seq", BIG, nullable=False),
    Column("renewed_ns", BIG, nullable=False),
)
"""One row a site, whoever leads: a second server's row of the same site is refused by the database.

`renewed_ns` is the leader's wall clock and for people; the deadline is kept on a monotonic clock.
"""

halt_table = Table(
    "drill_halt",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("by", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at_ns", BIG, nullable=False),
)
HALT_SCOPE = "drills"
"""Its only row."""

_SHORT = tuple(column for column in run_table.columns if column.name != "report")
_INSERT_RUN, _INSERT_CLAIM, _INSERT_HALT = insert(run_table), insert(claim_table), insert(halt_table)
_RENEW = (
    update(claim_table).where(claim_table.c.run == bindparam("renewing")).values(renewed_ns=bindparam("at"))
)
_FREE = delete(claim_table).where(claim_table.c.run == bindparam("gone"))
_END = (
    update(run_table)
    .where(run_table.c.run == bindparam("ending"))
    .values(ended_seq=bindparam("seq"), ended_ns=bindparam("at"), how=bindparam("way"))
)
_REPORT = (
    update(run_table)
    .where(run_table.c.run == bindparam("reported"))
    .values(verdict=bindparam("said"), report=bindparam("text"))
)
_RESUME = delete(halt_table).where(halt_table.c.scope == bindparam("scope_gone"))


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row without its report. `how` is running, reported or lapsed."""

    run: str
    drill: str
    suite: str
    site: str
    hosts: tuple[HostId, ...]
    resources: tuple[ResourceId, ...]
    seed: int
    owner: str
    by: str
    began_ns: int
    began_seq: Seq | EventIndex
    ended_seq: Seq | None = None
    ended_ns: int | None = None
    how: str = "running"
    verdict: str = ""

    def span(self, began: Seq) -> RunSpan:
        return RunSpan(self.run, self.owner, self.hosts, self.resources, began, self.ended_seq)


def begun(row: RunRow) -> tuple[RowChange, ...]:
    """A new run and its claim; Conflict when the site or the id is taken."""
    values = _fields(row) | {
        "hosts": orjson.dumps(row.hosts).decode(),
        "resources": orjson.dumps(row.resources).decode(),
        "report": None,
    }
    claim = {
        "site": row.site,
        "run": row.run,
        "owner": row.owner,
        "by": row.by,
        "began_seq": row.began_seq,
        "renewed_ns": row.began_ns,
    }
    return RowChange(_INSERT_CLAIM, (claim,)), RowChange(_INSERT_RUN, (values,))


def renewal(run: str, at_ns: int) -> RowChange:
    return RowChange(_RENEW, ({"renewing": run, "at": at_ns},))


def ended(run: str, at_ns: int, how: str, seq: EventIndex) -> tuple[RowChange, ...]:
    values = {"ending": run, "seq": seq, "at": at_ns, "way": how}
    return RowChange(_FREE, ({"gone": run},)), RowChange(_END, (values,))


def reported(run: str, verdict: str, report: str) -> RowChange:
    """The run's report, as text that is JSON."""
    return RowChange(_REPORT, ({"reported": run, "said": verdict, "text": report},))


def halted(halt: Halt) -> tuple[RowChange, ...]:
    """Nothing runs any more; a new reason replaces the old one."""
    row = {"scope": HALT_SCOPE, "by": halt.by, "owner": halt.owner, "why": halt.why, "at_ns": halt.at_ns}
    return resumed(), RowChange(_INSERT_HALT, (row,))


def resumed() -> RowChange:
    return RowChange(_RESUME, ({"scope_gone": HALT_SCOPE},))


def load_claims(connection: Connection, now_mono_ns: int) -> tuple[Claim, ...]:
    """What is claimed, with the longest deadline that each may have."""
    until_ns = now_mono_ns + LAPSE_NS
    rows = connection.execute(select(claim_table))
    return tuple(Claim(row.site, row.run, row.owner, row.by, until_ns) for row in rows)


def load_halt(connection: Connection) -> Halt | None:
    """Who halted all drills; None while they may run."""
    row = connection.execute(select(halt_table)).first()
    return None if row is None else Halt(row.by, row.owner, row.why, row.at_ns)


def load_spans(connection: Connection) -> Iterable[RunSpan]:
    columns = run_table.c
    query = select(
        columns.run, columns.owner, columns.hosts, columns.resources, columns.began_seq, columns.ended_seq
    )
    for run, owner, hosts, resources, began, over in connection.execute(query):
        yield RunSpan(
            run, owner, _hosts(hosts), _resources(resources), Seq(began), None if over is None else Seq(over)
        )


def load_run(connection: Connection, run: str) -> tuple[RunRow, str | None] | None:
    """One run and its report; None when there is none."""
    row = connection.execute(select(run_table).where(run_table.c.run == run)).one_or_none()
    return None if row is None else (_run(row), row.report)


def load_runs(
    connection: Connection, *, owner: str | None, drill: str | None, before: int | None, limit: int
) -> list[RunRow]:
    """The newest first, of one owner or of all (None), that began before an event."""
    query = select(*_SHORT).order_by(run_table.c.began_seq.desc()).limit(limit)
    if owner is not None:
        query = query.where(run_table.c.owner == owner)
    if drill is not None:
        query = query.where(run_table.c.drill == drill)
    if before is not None:
        query = query.where(run_table.c.began_seq < before)
    return [_run(row) for row in connection.execute(query)]


def load_drills(connection: Connection, owner: str | None) -> list[str]:
    query = select(run_table.c.drill).where(run_table.c.report.is_not(None)).distinct()
    if owner is not None:
        query = query.where(run_table.c.owner == owner)
    return sorted(connection.execute(query).scalars())


def load_reports(connection: Connection, owner: str | None, drill: str, limit: int) -> list[str]:
    columns = run_table.c
    query = select(columns.report).where(columns.drill == drill, columns.report.is_not(None))
    if owner is not None:
        query = query.where(columns.owner == owner)
    rows = connection.execute(query.order_by(columns.began_seq.desc()).limit(limit)).scalars()
    return list(rows)[::-1]


def _run(row: Row[Any]) -> RunRow:
    return RunRow(**_fields(row) | {"hosts": _hosts(row.hosts), "resources": _resources(row.resources)})


def _fields(row: RunRow | Row[Any]) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in _SHORT}


def _hosts(text: str) -> tuple[HostId, ...]:
    return tuple(HostId(each) for each in orjson.loads(text))


def _resources(text: str) -> tuple[ResourceId, ...]:
    return tuple(ResourceId(each) for each in orjson.loads(text))
