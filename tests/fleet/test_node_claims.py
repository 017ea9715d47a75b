"""Claims: the same work for the same request, whoever answers and whoever dies; done once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId, SetPointState
from homeostat.fleet.claims import ClaimDependencies, ClaimRegister, WorkClaim, WorkItem, claim_table
from homeostat.fleet.rpc import LeaderRpc, RpcCall
from homeostat.fleet.settings import FleetSettings
from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError, NotFound, StoreUnavailable
from homeostat.kernel.journal import Receipt, RowChange, Submission
from homeostat.server.assembly import unlisted_owners
from homeostat.server.replay import compare_with_tables
from real_parts import NatsServer, eventually
from store_parts import Store

LEADERS = Path(__file__).with_name("dying_leader.py")


@dataclass
class Toys:
    """Three toys; what is done is no work any more."""

    deadline_s: float = 60.0
    left: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    ended: list[str] = field(default_factory=list)

    def items(self, host: HostId) -> list[WorkItem]:
        return [WorkItem(each, {"for": host}) for each in self.left]

    def changes(self, claim: WorkClaim) -> tuple[RowChange, ...]:
        return ()

    def adopt(self, claim: WorkClaim) -> None:
        if claim.outcome:
            self.ended.append(claim.id)
        if claim.outcome == "done":
            self.left.remove(claim.item)


@dataclass
class Hands:
    """A clock that is set by hand; its two hands differ."""

    now_ns: int = 7_000_000_000

    def wall_ns(self) -> int:
        return 10**18 + self.now_ns

    def mono_ns(self) -> int:
        return self.now_ns


@dataclass
class Leader:
    """A register on a real store. `lost` is raised after the next commit, as when its answer is lost."""

    appender: Appender
    store: Store
    toys: Toys = field(default_factory=Toys)
    clock: Hands = field(default_factory=Hands)
    lost: HomeostatError | None = None
    register: ClaimRegister = field(init=False)

    def __post_init__(self) -> None:
        self.start(1)

    def start(self, epoch: int) -> None:
        """A leader that remembers nothing."""
        on = ClaimDependencies(self._append, self.store.readers, self.clock, epoch)
        self.register = ClaimRegister(on, {"toys": self.toys})

    async def _append(self, submission: Submission) -> Receipt:
        receipt = await self.appender.append(submission)
        if self.lost is not None:
            error, self.lost = self.lost, None
            raise error
        return receipt

    async def take(self, request: str, slots: int = 1, host: str = "n1", **more: Any) -> list[dict[str, Any]]:
        arguments = {"work": "toys", "slots": slots, **more}
        return await self.register.take(RpcCall(HostId(host), request, "claims.take", arguments))

    async def end(self, claim: str, outcome: str = "done", host: str = "n1") -> dict[str, Any]:
        arguments = {"claim": claim, "outcome": outcome}
        return await self.register.end(RpcCall(HostId(host), "r-end", "claims.end", arguments))

    async def expire(self, claim: str) -> None:
        """Let the loop run until this claim has ended."""
        loop = asyncio.create_task(self.register.expire())
        try:
            await eventually(lambda: self.toys.ended == [claim])
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    def kinds(self) -> list[str]:
        table = database.journal
        return [row.kind for row in self.store.rows(select(table.c.kind).order_by(table.c.seq))]


@asynccontextmanager
async def leading(store: Store) -> AsyncIterator[Leader]:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    try:
        yield Leader(appender, store)
    finally:
        await appender.close()


def items(claims: list[dict[str, Any]]) -> list[str]:
    return [each["item"] for each in claims]


async def test_the_same_request_gets_the_same_work_of_this_leader_and_of_the_next(store: Store) -> None:
    async with leading(store) as leader:
        first = await leader.take("r-1", slots=2)
        assert items(first) == ["a", "b"] and first[0]["epoch"] == 1
        assert await leader.take("r-1", slots=2) == first
        leader.start(epoch=2)
        assert await leader.take("r-1", slots=2) == first
        assert items(await leader.take("r-2", slots=2, host="n2")) == ["c"], (
            "what is claimed is nobody else's"
        )
        assert await leader.take("r-3") == [] and leader.kinds() == ["ClaimGiven"] * 3


async def test_requests_at_the_same_time_share_no_item(store: Store) -> None:
    async with leading(store) as leader:
        given = await asyncio.gather(*(leader.take(f"r-{number}") for number in range(5)))
        assert sorted(item for each in given for item in items(each)) == ["a", "b", "c"]


async def test_done_is_written_once_and_said_as_often_as_it_is_asked(store: Store) -> None:
    async with leading(store) as leader:
        (claim,) = await leader.take("r-1")
        done = {"claim": claim["claim"], "outcome": "done"}
        assert await asyncio.gather(*(leader.end(claim["claim"]) for _ in range(3))) == [done] * 3
        leader.start(epoch=2)
        assert await leader.end(claim["claim"]) == done
        assert await leader.end(claim["claim"], "failed") == done, "the first word counts"
        assert leader.kinds() == ["ClaimGiven", "ClaimEnded"] and leader.toys.left == ["b", "c"]


async def test_an_expired_claim_is_given_again_under_a_new_id(store: Store) -> None:
    async with leading(store) as leader:
        (first,) = await leader.take("r-1")
        leader.clock.now_ns += round(leader.toys.deadline_s * 1e9)
        await leader.expire(first["claim"])
        (second,) = await leader.take("r-2", host="n2")
        assert second["item"] == first["item"] and second["claim"] != first["claim"]
        with pytest.raises(GiveUp, match="expired after 60 s"):
            await leader.end(first["claim"])
        assert (await leader.end(second["claim"], host="n2"))["outcome"] == "done"


async def test_the_journal_is_followed_to_what_is_in_the_table(store: Store) -> None:
    async with leading(store) as leader:
        first, _ = await leader.take("r-1", slots=2)
        await leader.end(first["claim"])
        assert await difference(store) == ""
        await spoil(leader, first["claim"], outcome="failed")
        assert "outcome is 'failed' in the table and 'done' by the events" in await difference(store)
        await spoil(leader, first["claim"], outcome="", open_item="toys a")
        assert "open_item is 'toys a' in the table and None by the events" in await difference(store)


async def difference(store: Store) -> str:
    """What `journal verify` says."""
    return await store.readers.read(lambda connection: compare_with_tables(connection, lambda _: None)[1])


async def spoil(leader: Leader, claim: str, **columns: str) -> None:
    change = RowChange(update(claim_table).where(claim_table.c.id == claim).values(**columns))
    await leader.appender.append(Submission("test", changes=(change,)))


async def test_a_new_leader_gives_an_open_claim_its_whole_time_again(store: Store) -> None:
    async with leading(store) as leader:
        (claim,) = await leader.take("r-1")
        leader.clock.now_ns += round(leader.toys.deadline_s * 1e9) - 1
        leader.start(epoch=2)
        await leader.take("r-1")
        leader.clock.now_ns += round(leader.toys.deadline_s * 1e9) - 1
        assert (await leader.end(claim["claim"]))["outcome"] == "done"


async def test_a_lost_answer_of_the_store_loses_no_item_and_gives_none_twice(store: Store) -> None:
    async with leading(store) as leader:
        leader.lost = StoreUnavailable("the answer to the commit was lost")
        with pytest.raises(StoreUnavailable):
            await leader.take("r-1")
        assert items(await leader.take("r-2", slots=3)) == ["b", "c"]
        assert items(await leader.take("r-1")) == ["a"]
        leader.lost = StoreUnavailable("the answer to the commit was lost")
        with pytest.raises(StoreUnavailable):
            await leader.end("n1/r-1/0")
        assert leader.toys.left == ["a", "b", "c"], "nobody knows yet"
        assert (await leader.end("n1/r-1/0"))["outcome"] == "done"
        assert leader.toys.left == ["b", "c"]


async def test_what_is_not_yours_or_not_known_is_refused_by_name(store: Store) -> None:
    async with leading(store) as leader:
        (claim,) = await leader.take("r-1")
        with pytest.raises(NotFound):
            await leader.end(claim["claim"], host="n2")
        with pytest.raises(NotFound):
            await leader.end("no-such-claim")
        for wrong in ({"work": "games"}, {"slots": 0}, {"slots": 33}, {"more": 1}):
            with pytest.raises(BadInput, match=next(iter(wrong))):
                await leader.take("r-2", **wrong)
        with pytest.raises(BadInput, match="outcome"):
            await leader.end(claim["claim"], "expired")


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_leader_killed_between_commit_and_answer_gives_nothing_twice(
    store: Store, nats: NatsServer, tmp_path: Path, rounds: int
) -> None:
    """Two kills a round: after the commit of the claim, and after that of its end."""
    if store.engine.dialect.name == "postgresql":
        rounds //= 5
    lives = tmp_path / "lives"
    leaders = subprocess.Popen(  # noqa: ASYNC220 - a fork takes no time that matters here
        [sys.executable, str(LEADERS), store.url, nats.url, str(lives)]
    )
    bus = await Bus.connect(BusSettings(nats.url, "n1", "n1-secret", inbox_prefix="to.n1.inbox"))
    seen = 0

    async def heeded(epoch: int) -> bool:
        nonlocal seen
        seen = max(seen, epoch)
        return epoch >= seen

    try:
        rpc = LeaderRpc(HostId("n1"), "life-1", bus, heeded, repeat_s=0.05)
        await rpc.listen()
        for number in range(rounds):
            take = ("claims.take", {"work": "toys", "slots": 1}, 120.0, f"r-{number}")
            (claim,) = await rpc.ask(*take)
            assert claim["claim"] == f"n1/r-{number}/0" and claim["item"] == f"toy-{number}"
            assert claim["epoch"] < seen, "it was given by one that died, and answered by another"
            assert await rpc.ask(*take) == [claim]
            done = await rpc.ask("claims.end", {"claim": claim["claim"], "outcome": "done"}, 120.0)
            assert done == {"claim": claim["claim"], "outcome": "done"}
    finally:
        leaders.kill()
        leaders.wait()
        await bus.close()
    assert len(lives.read_text().splitlines()) == 2 * rounds + 1, "each commit was the last of its leader"
    table = database.journal
    kinds = [row.kind for row in store.rows(select(table.c.kind).order_by(table.c.seq))]
    assert kinds == ["ClaimGiven", "ClaimEnded"] * rounds


def test_a_server_that_lists_no_projects_says_so_with_the_remedy() -> None:
    (row,) = unlisted_owners(FleetSettings())
    assert (row.component, row.standing, row.value) == ("fleet", SetPointState.UNKNOWN, None)
    assert "list the projects" in row.detail
    assert unlisted_owners(FleetSettings(owners=["blue"])) == ()
    assert unlisted_owners(FleetSettings(owners=[])) == ()
