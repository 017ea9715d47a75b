"""A process to be killed: appends without end from several callers, prints each receipt once it has it."""

from __future__ import annotations

import asyncio
import itertools
import sys

from homeostat.kernel import database
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import open_engine
from homeostat.kernel.journal import EventIndex, RowChange, Seq, Submission
from homeostat.migrations import upgrade
from store_parts import CATALOGUE, draft


async def call(appender: Appender, name: str) -> None:
    for number in itertools.count(1):
        subject = f"{name}-{number}"
        token = {
            "name": subject,
            "hash": subject,
            "role": "viewer",
            "owner": "test",
            "created_ns": EventIndex(1),
        }
        receipt = await appender.append(
            Submission(
                loop=name,
                events=(draft(subject), draft(subject, what="again", cause=EventIndex(0))),
                changes=(RowChange(database.token.insert(), (token,)),),
                cursor=Seq(number),
            )
        )
        print(subject, *receipt.seqs, flush=True)


async def main(url: str) -> None:
    upgrade(url)
    appender = Appender(
        open_engine(url), CATALOGUE, epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    async with asyncio.TaskGroup() as tasks:
        for name in "abcd":
            tasks.create_task(call(appender, name))


asyncio.run(main(sys.argv[1]))
