"""A process to be killed: has a pool of workers whose work never ends."""

from __future__ import annotations

import asyncio
import sys

from homeostat.kernel.workers import Workers


async def main(marks: list[str]) -> None:
    async with Workers() as workers:
        work = [workers.run("worker_jobs:deaf_spin", mark, deadline_s=3600.0) for mark in marks]
        await asyncio.gather(*work)


asyncio.run(main(sys.argv[1:]))
