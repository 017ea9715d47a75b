"""Claims: work that a node asks the leader for, held by one host until a deadline.

A component that has work registers a `WorkSource`; a node asks `claims.take` ("of this work, so many") and
reports `claims.end`. A claim is committed before it is answered, under the id of the request that asked for
it: a lost answer asked again, of the same leader or the next, gets the same work. It is not known here what
the work is, and nothing is done here.

Invariants (the database keeps the first two): an item has one open claim at most; the claims of one request
are written once; a claim ends once, and what is said of it later changes nothing; an item whose claim expired
is given again under a new id. A claim never ends for the leader before it ends for the node, which counts its
deadline from before it asked: a new leader gives every open claim its whole time again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import orjson
import structlog
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from sqlalchemy import Column, Connection, Double, Index, Row, Table, Text, bindparam, insert, select, update

from homeostat.contracts.events.fleet import ClaimEnded, ClaimGiven
from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Name
from homeostat.fleet.rpc import RpcCall
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import BIG, METADATA, Readers
from homeostat.kernel.errors import AlreadyDone, BadInput, Conflict, GiveUp, NotFound, RetryLater
from homeostat.kernel.journal import EventIndex, NewEvent, Receipt, RowChange, Seq, Submission
from homeostat.kernel.records import record_of, row_of

SLOTS_MAX = 32
"""Claims of one request."""
ARGUMENTS_BYTES_MAX = 8 * 1024
"""Of one piece of work: all of a request fit into one message."""
DONE, FAILED, EXPIRED = "done", "failed", "expired"
LOOP = "claims"

A = TypeVar("A", "TakeArguments", "EndArguments")

_log = structlog.get_logger("claims")

claim_table = Table(
    "fleet_claim",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("work", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("epoch", BIG, nullable=False),
    Column("deadline_s", Double, nullable=False),
    Column("given_seq", BIG, nullable=False),
    Column("given_ns", BIG, nullable=False),
    Column("open_item", Text, unique=True),
    Column("outcome", Text, nullable=False),
    Column("ended_ns", BIG),
    Index("ix_fleet_claim_host_request", "host", "request"),
)
"""`open_item` is work and item while the claim is open, else None: the database refuses a second one.
`arguments` is JSON. Times are the leader's wall clock, for people."""

_INSERT = insert(claim_table)
_END = (
    update(claim_table)
    .where(claim_table.c.id == bindparam("key"), claim_table.c.outcome == "")
    .values(open_item=None, outcome=bindparam("how"), ended_ns=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work: its name, the same for ever, and what the node needs to know to do it."""

    item: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkClaim:
    """One item given to one host. `outcome` is empty while it is open."""

    id: str
    work: str
    item: str
    host: HostId
    request: str
    arguments: Mapping[str, Any]
    epoch: int
    deadline_s: float
    given_seq: int = 0
    outcome: str = ""


class WorkSource(Protocol):
    """What a component that has work says of it. Called on the event loop; must not block."""

    @property
    def deadline_s(self) -> float:
        """How long a claim lasts."""

    def items(self, host: HostId) -> Iterable[WorkItem]:
        """What this host could do now, the most urgent first. Claimed items are left out by the caller."""

    def changes(self, claim: WorkClaim) -> tuple[RowChange, ...]:
        """The component's own rows, in the transaction in which a claim is given or ends."""

    def adopt(self, claim: WorkClaim) -> None:
        """A claim was given or ended, and that is committed."""


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class TakeArguments:
    """Of `claims.take`."""

    work: Name
    slots: int = Field(ge=1, le=SLOTS_MAX)


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class EndArguments:
    """Of `claims.end`."""

    claim: str = Field(max_length=400, pattern=r"^[^\x00]*$")
    outcome: str = Field(pattern=f"^({DONE}|{FAILED})$")
    reason: str = Field(default="", max_length=1000, pattern=r"^[^\x00]*$")


_TAKE, _FINISH = TypeAdapter(TakeArguments), TypeAdapter(EndArguments)


def choose_claims(
    call: RpcCall, asked: TakeArguments, source: WorkSource, taken: Callable[[str], bool], epoch: int
) -> tuple[WorkClaim, ...]:
    """The claims that this request gets: items that nobody has, in the source's order. Pure."""
    free = (each for each in source.items(call.host) if not taken(each.item))
    return tuple(
        WorkClaim(
            f"{call.host}/{call.request}/{number}",
            asked.work,
            each.item,
            call.host,
            call.request,
            each.arguments,
            epoch,
            source.deadline_s,
        )
        for number, each in enumerate(islice(free, asked.slots))
    )


@dataclass(frozen=True, slots=True)
class ClaimDependencies:
    """What the register stands on. `append` commits a submission."""

    append: Callable[[Submission], Awaitable[Receipt]]
    readers: Readers
    clock: Clock
    epoch: int


class ClaimRegister:
    """All claims of a server that leads. Used from one event loop."""

    def __init__(self, dependencies: ClaimDependencies, sources: Mapping[str, WorkSource]) -> None:
        """`sources` by the name of their work."""
        self._on, self._sources = dependencies, dict(sources)
        self._open: dict[str, tuple[WorkClaim, int]] = {}
        """By id: the claim, and when it expires on our monotonic clock."""
        self._items: set[tuple[str, str]] = set()
        """What is claimed, or about to be."""
        self._known = False
        self._loading = asyncio.Lock()
        self._changed = asyncio.Event()

    async def take(self, call: RpcCall) -> list[dict[str, Any]]:
        """`claims.take`: the claims of this request, open or ended; empty when there is no work.

        BadInput, StoreUnavailable and its like.
        """
        asked = _read(_TAKE, call.arguments)
        source = self._source(asked.work)
        await self._load()
        if given := await self._on.readers.read(lambda c: load_request(c, call.host, call.request)):
            return [_shown(each) for each in given]
        chosen = choose_claims(
            call, asked, source, lambda item: (asked.work, item) in self._items, self._on.epoch
        )
        for each in chosen:
            if len(orjson.dumps(each.arguments)) > ARGUMENTS_BYTES_MAX:
                raise GiveUp(
                    f"{each.work} {each.item}: its arguments have more than {ARGUMENTS_BYTES_MAX} bytes"
                )
        if chosen:
            await self._give(chosen, source)
        return [_shown(each) for each in chosen]

    async def end(self, call: RpcCall) -> dict[str, Any]:
        """`claims.end`: how the claim ended. Again gets the same. NotFound; GiveUp when it expired."""
        asked = _read(_FINISH, call.arguments)
        await self._load()
        claim = await self._on.readers.read(lambda c: load_claim(c, asked.claim))
        if claim is None or claim.host != call.host:
            raise NotFound(f"{call.host} has no claim {asked.claim}")
        if not claim.outcome:
            claim = await self._end(claim, asked.outcome, asked.reason)
        self._settle(claim)  # its end may have been committed without an answer of the store
        if claim.outcome == EXPIRED:
            raise GiveUp(
                f"claim {claim.id} expired after {claim.deadline_s:g} s; what was done does not count"
            )
        return {"claim": claim.id, "outcome": claim.outcome}

    async def expire(self) -> None:
        """End every claim whose time is over, for ever. A loop of its own; the store's errors."""
        await self._load()
        while True:
            self._changed.clear()
            now_ns = self._on.clock.mono_ns()
            for claim, until_ns in list(self._open.values()):
                if until_ns <= now_ns:
                    _log.warning("a claim expired", claim=claim.id, host=claim.host)
                    await self._end(claim, EXPIRED, f"not ended within {claim.deadline_s:g} s")
            next_ns = min((until_ns for _, until_ns in self._open.values()), default=None)
            wait_s = None if next_ns is None else max(0.0, (next_ns - self._on.clock.mono_ns()) / 1e9)
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _give(self, chosen: tuple[WorkClaim, ...], source: WorkSource) -> None:
        items = {(each.work, each.item) for each in chosen}
        self._items |= items
        try:
            receipt = await self._on.append(self._given(chosen, source))
        except Conflict as error:  # the same request, or another leader, was faster
            self._known = False
            self._items -= items
            raise RetryLater(f"the work was given meanwhile; ask again ({error})") from None
        except BaseException:  # whether it was committed is not known: the rows say
            self._known = False
            self._items -= items
            raise
        for each, seq in zip(chosen, receipt.seqs, strict=True):
            held = replace(each, given_seq=seq)
            self._hold(held)
            source.adopt(held)

    def _given(self, chosen: tuple[WorkClaim, ...], source: WorkSource) -> Submission:
        now_ns = self._on.clock.wall_ns()
        events = tuple(
            _event_of(
                each,
                ClaimGiven(each.id, each.work, each.item, each.host, each.epoch, each.deadline_s),
                now_ns,
            )
            for each in chosen
        )
        rows = tuple(_row(each, now_ns, EventIndex(index)) for index, each in enumerate(chosen))
        more = tuple(change for each in chosen for change in source.changes(each))
        return Submission(LOOP, events, (RowChange(_INSERT, rows), *more))

    async def _end(self, claim: WorkClaim, outcome: str, reason: str) -> WorkClaim:
        """The claim as it ended, by this or by whoever was faster."""
        ended, now_ns = replace(claim, outcome=outcome), self._on.clock.wall_ns()
        source = self._sources.get(claim.work)
        event = _event_of(claim, ClaimEnded(claim.id, claim.host, outcome, reason), now_ns)
        event = replace(event, cause=Seq(claim.given_seq), key=f"ended/{claim.id}")
        own = RowChange(_END, ({"key": claim.id, "how": outcome, "at": now_ns},))
        more = () if source is None else source.changes(ended)
        try:
            await self._on.append(Submission(LOOP, (event,), (own, *more)))
        except AlreadyDone:
            known = await self._on.readers.read(lambda c: load_claim(c, claim.id))
            assert known is not None, "its end is in the journal"
            ended = known
        self._settle(ended)
        return ended

    async def _load(self) -> None:
        """The open claims as the rows say, each with its whole time again, unless they are known."""
        async with self._loading:
            if self._known:
                return
            self._known = True  # what goes wrong from here on is looked at again
            try:
                found = await self._on.readers.read(lambda c: tuple(load_open(c)))
            except BaseException:
                self._known = False
                raise
            for claim in found:
                if claim.id not in self._open:
                    self._hold(claim)

    def _hold(self, claim: WorkClaim) -> None:
        self._open[claim.id] = (claim, self._on.clock.mono_ns() + round(claim.deadline_s * 1e9))
        self._items.add((claim.work, claim.item))
        self._changed.set()

    def _settle(self, claim: WorkClaim) -> None:
        """A claim has ended; its source hears it once, however many said so."""
        if self._open.pop(claim.id, None) is None:
            return
        self._items.discard((claim.work, claim.item))
        self._changed.set()
        if claim.work in self._sources:
            self._sources[claim.work].adopt(claim)

    def _source(self, work: str) -> WorkSource:
        if work not in self._sources:
            raise BadInput("work", work, f"accepted here: {', '.join(sorted(self._sources)) or 'nothing'}")
        return self._sources[work]


def load_request(connection: Connection, host: str, request: str) -> list[WorkClaim]:
    chosen = (claim_table.c.host == host) & (claim_table.c.request == request)
    rows = connection.execute(select(claim_table).where(chosen).order_by(claim_table.c.given_seq))
    return [_claim(row) for row in rows]


def load_claim(connection: Connection, claim: str) -> WorkClaim | None:
    """One claim; None when there is none."""
    row = connection.execute(select(claim_table).where(claim_table.c.id == claim)).one_or_none()
    return None if row is None else _claim(row)


def load_open(connection: Connection) -> Iterator[WorkClaim]:
    rows = connection.execute(select(claim_table).where(claim_table.c.open_item.is_not(None)))
    return (_claim(row) for row in rows)


def _event_of(claim: WorkClaim, event: object, at_ns: int) -> NewEvent:
    return NewEvent(event, f"claim/{claim.id}", at_ns, "server", f"claim/{claim.id}")


def _row(claim: WorkClaim, now_ns: int, seq: EventIndex) -> dict[str, object]:
    return row_of(claim) | {
        "arguments": orjson.dumps(claim.arguments).decode(),
        "given_seq": seq,
        "given_ns": now_ns,
        "open_item": f"{claim.work} {claim.item}",
        "ended_ns": None,
    }


def _claim(row: Row[Any]) -> WorkClaim:
    return replace(record_of(WorkClaim, row), arguments=orjson.loads(row.arguments))


def _shown(claim: WorkClaim) -> dict[str, Any]:
    """As a node gets it; the same whether it is asked once or again."""
    return {
        "claim": claim.id,
        "work": claim.work,
        "item": claim.item,
        "arguments": dict(claim.arguments),
        "epoch": claim.epoch,
        "deadline_s": claim.deadline_s,
    }


def _read(adapter: TypeAdapter[A], arguments: Mapping[str, Any]) -> A:
    try:
        return adapter.validate_python(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise BadInput(where, first.get("input"), first["msg"]) from None
