"""Many seeds, in processes of their own: each process has one database in memory and reuses it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial

from homeostat.sim.disk import Disk
from homeostat.sim.parts import SimParts
from homeostat.sim.run import Verdict, run_seed

_CHUNK = 5
_disks: list[Disk] = []


def run_many(seeds: Iterable[int], *, processes: int, parts: SimParts | None = None) -> Iterator[Verdict]:
    """The verdicts, in the order of the seeds. Those of green runs come without their story."""
    if processes == 1:
        with closing(Disk.in_memory()) as disk:
            for seed in seeds:
                yield run_seed(seed, disk, parts)
        return
    # Not forked: a fork of a process that has threads may inherit a lock that nobody lets go.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        yield from pool.map(partial(_one, parts), seeds, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    disk = Disk.in_memory()
    _disks.append(disk)
    multiprocessing.util.Finalize(disk, disk.close, exitpriority=10)


def _one(parts: SimParts | None, seed: int) -> Verdict:
    verdict = run_seed(seed, _disks[0], parts)
    if verdict.green:
        verdict.story.lines.clear()
    return verdict
