"""Leaders that die of kill -9 with their first commit, before they answer; each is followed by another.

Usage: dying_leader.py DATABASE_URL NATS_URL LIVES_FILE. Ends with its parent. The imports are made once, the
leaders are forked: two hundred of them would else take minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId
from homeostat.fleet.claims import DONE, ClaimDependencies, ClaimRegister, WorkClaim, WorkItem, claim_table
from homeostat.fleet.responder import LeaderEnd, RequestResponder
from homeostat.fleet.rpc import VerbTable
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import Readers, open_engine
from homeostat.kernel.journal import Receipt, RowChange, Submission
from homeostat.kernel.leadership import acquire_term
from homeostat.kernel.processes import die_with_parent


class Toys:
    """Work without end: toy-0, toy-1, and so on, but for what is done."""

    deadline_s = 600.0

    def __init__(self, done: set[str]) -> None:
        self._done = done

    def items(self, host: HostId) -> Iterable[WorkItem]:
        return (
            WorkItem(f"toy-{number}", {"number": number})
            for number in range(10_000)
            if f"toy-{number}" not in self._done
        )

    def changes(self, claim: WorkClaim) -> tuple[RowChange, ...]:
        return ()

    def adopt(self, claim: WorkClaim) -> None:
        if claim.outcome == DONE:
            self._done.add(claim.item)


async def lead(database_url: str, nats_url: str, lives: Path) -> None:
    """Answer until the first commit."""
    clock, engine = SystemClock(), open_engine(database_url)
    epoch = acquire_term(engine, "the leader", 600.0)
    assert epoch is not None, "the same holder may take its term again"
    with lives.open("a") as file:
        file.write(f"{epoch}\n")
    appender = Appender(engine, catalogue(), epoch=epoch, settings=AppenderSettings(), clock=clock)
    appender.start()

    async def append(submission: Submission) -> Receipt:
        await appender.append(submission)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")

    readers = Readers(open_engine(database_url, read_only=True), threads=1)
    query = select(claim_table.c.item).where(claim_table.c.outcome == DONE)
    done = await readers.read(lambda connection: set(connection.scalars(query)))
    register = ClaimRegister(ClaimDependencies(append, readers, clock, epoch), {"toys": Toys(done)})
    verbs = VerbTable()
    verbs.add("claims.take", register.take)
    verbs.add("claims.end", register.end)
    bus = await Bus.connect(BusSettings(nats_url, "server", "server-secret"))
    responder = RequestResponder(LeaderEnd(epoch), verbs.respond, bus)
    await responder.listen()
    await responder.run()


def main(database_url: str, nats_url: str, lives: str) -> None:
    """One leader after the other; an end that is no kill -9 ends all."""
    while True:
        prepare = die_with_parent()
        pid = os.fork()
        if pid == 0:
            prepare()
            asyncio.run(lead(database_url, nats_url, Path(lives)))
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit("a leader ended otherwise")


main(*sys.argv[1:])
