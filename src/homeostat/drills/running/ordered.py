"""What a run is given: the parts that all runs of a site share, and what was ordered. Plain records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.model import Drill, Quiesce
from homeostat.drills.planning.asking import Asker
from homeostat.drills.planning.looking import Looking
from homeostat.drills.progress import Progress
from homeostat.drills.records.facts import LeftOut
from homeostat.drills.running.stopping import Stop
from homeostat.drills.site import Site
from homeostat.drills.transports.opening import Transports


@dataclass(frozen=True, slots=True)
class Parts:
    """What every run of a site shares. `runs`: the folder of their folders."""

    site: Site
    transports: Transports
    asker: Asker
    runs: Path
    stop: Stop
    progress: Progress

    @property
    def looking(self) -> Looking:
        return Looking(self.site, self.transports, self.asker)


@dataclass(frozen=True, slots=True)
class Ordered:
    """One run as it was ordered. `victim` None: the rule found none, for the reason in `unfit`."""

    drill: Drill
    victim: str | None
    seed: int
    suite: str | None = None
    strict_steps: bool = False
    quiesce: Quiesce | None = None
    denser: int = 0
    unfit: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    """Of the drill's file; `drill` is without it."""
