"""`python -m homeostat.sim --seed N` prints the history of one run; `--seeds A:B` runs many.

`--crowd N` shows in figures what becomes of N hosts when most of them fall silent, and when some die.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing

from homeostat.sim.database import SimDatabase
from homeostat.sim.run import RECOVERY_S, SimVerdict, run_large_fleet, run_many

_PROGRESS_SEEDS = 50


def main() -> int:
    """0 when every run is green."""
    parser = argparse.ArgumentParser(prog="python -m homeostat.sim", description=__doc__)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--seed", type=int, help="run this seed and print its history")
    wanted.add_argument(
        "--seeds", type=_range, metavar="A:B", help="run the seeds from A up to but not including B"
    )
    wanted.add_argument("--crowd", type=int, metavar="N", help="run the scenarios of a fleet of N hosts")
    parser.add_argument("--processes", type=int, default=2, help="number of processes [2]")
    given = parser.parse_args()
    if given.crowd is not None:
        return _print_crowd(given.crowd)
    if given.seed is not None:
        verdict = next(run_many([given.seed], processes=1))
        _print_run(verdict)
        return 0 if verdict.green else 1
    began_s = time.monotonic()
    red = 0
    verdicts = run_many(given.seeds, processes=given.processes)
    for done, verdict in enumerate(verdicts, 1):
        if done % _PROGRESS_SEEDS == 0:
            print(f"{done} of {len(given.seeds)}", file=sys.stderr, flush=True)
        if not verdict.green:
            red += 1
            print(red_line(verdict), flush=True)
    print(f"{len(given.seeds)} seeds, {red} red, {time.monotonic() - began_s:.1f} s")
    return 1 if red else 0


def _print_crowd(hosts: int) -> int:
    with closing(SimDatabase.in_memory()) as disk:
        crowd = run_large_fleet(hosts, disk)
    for name, figures in crowd.stories.items():
        print(f"{name}: {figures.hit} of {crowd.hosts} hosts")
        print(
            f"  declared down {figures.accused}, fenced {figures.fenced}, absent at the end {figures.absent}"
        )
        for reason, count in figures.refused.items():
            print(f"  a disruptive action was refused {count} times: {reason}")
        for (kind, transition), count in sorted(figures.told.items()):
            print(f"  notices that {kind} was {transition}: {count}")
        words = ", ".join(f"{count} {word}" for word, count in sorted(figures.sent.items()))
        print(f"  messages in the {RECOVERY_S:g} s after the return: {words}")
    for each in crowd.violations:
        print(each)
    print("red" if crowd.violations else "green")
    return 1 if crowd.violations else 0


def red_line(verdict: SimVerdict) -> str:
    """What a red run says: its seed, what is wrong, how to see it again."""
    wrong = "\n".join(f"  {each}" for each in verdict.violations)
    return f"seed {verdict.seed}\n{wrong}\n  replay: python -m homeostat.sim --seed {verdict.seed}"


def _print_run(verdict: SimVerdict) -> None:
    print(f"seed {verdict.seed}: {verdict.plan}")
    for line in verdict.story.lines:
        print(line)
    rest = "did not settle" if verdict.settled_s is None else f"settled at {verdict.settled_s:.1f} s"
    print(f"the cluster {rest}; {verdict.commits} commits")
    print("green" if verdict.green else red_line(verdict))


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


if __name__ == "__main__":
    sys.exit(main())
