"""Makes the evidence: each variant of the cloud in turn, its drills round after round, a page after each run.

May be ended and begun again at any time: a run that has its report is not run again. What it started it ends:
a drill that runs is told to undo, and the cloud is taken down.
"""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import NoReturn

from homeostat.kernel.errors import AlreadyRunning
from homeostat.monitors.verdicts import Verdict
from testbed import readiness
from testbed.campaign import CASES, Case, Variant, is_enough, left, surprises
from testbed.drilling import Drilled, DrillFailed, Drilling
from testbed.evidence_page import page
from testbed.failures import TestbedFailed
from testbed.places import Places
from testbed.plan import Plan
from testbed.records import Record, keep, read_records, verdicts_of
from testbed.teardown import take_down
from testbed.up import Wishes, bring_up, is_up, only_one

Say = Callable[[str], None]
_RUN_WITHIN_S = 900.0
_WHOLE_WITHIN_S = 400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to gather, and where it goes: the folder, and a page of the same name beside it."""

    cases: tuple[Case, ...]
    runs: int
    to: Path
    network: str
    deadline_s: float

    @property
    def page(self) -> Path:
        return self.to.with_name(f"{self.to.name}.md")


def gather(places: Places, wanted: Wanted, say: Say) -> list[str]:
    """Run what is still to be run. What did not go as it has to, in words; empty when all did."""
    places.state.mkdir(parents=True, exist_ok=True)
    with _alone(places), ended_by_signals():
        if is_up(places):
            raise AlreadyRunning(
                "the testbed is up, and evidence wants fresh clouds: `python -m testbed down`"
            )
        return _Campaign(places, wanted, say).run()


def write_page(wanted: Wanted) -> None:
    """The table of everything that the folder has."""
    wanted.page.parent.mkdir(parents=True, exist_ok=True)
    wanted.page.write_text(page(CASES, read_records(wanted.to), wanted.to.name), encoding="utf-8")


class _Campaign:
    def __init__(self, places: Places, wanted: Wanted, say: Say) -> None:
        self._places, self._wanted, self._say = places, wanted, say
        self._drilling = Drilling(places.access / "site.yaml", places.evidence)
        self._troubles: list[str] = []

    def run(self) -> list[str]:
        todo = list(left(self._wanted.cases, self._wanted.runs, self._verdicts()))
        self._say(f"{len(todo)} runs are left; reports: {self._wanted.to}; samples: {self._places.evidence}")
        for variant, of_variant in groupby(todo, key=lambda each: each[0].variant):
            self._on(variant, list(of_variant))
        write_page(self._wanted)
        return [*self._troubles, *surprises(self._wanted.cases, self._verdicts())]

    def _on(self, variant: Variant, todo: list[tuple[Case, int]]) -> None:
        """All of one variant. A cloud that does not become whole again is replaced by a fresh one."""
        while todo:
            self._say(f"{variant.name}: {variant.differs}; {len(todo)} runs")
            before = len(todo)
            try:
                with cloud_of(
                    self._places, variant, self._wanted.network, self._wanted.deadline_s, self._say
                ) as plan:
                    while todo:
                        readiness.wait_until_whole(plan, _WHOLE_WITHIN_S, self._say)
                        self._one(plan, *todo.pop(0))
            except TestbedFailed as error:
                self._trouble(variant.name, error)
                if len(todo) == before:  # it did not even come up
                    return

    def _one(self, plan: Plan, case: Case, number: int) -> None:
        """One run of a case, with its repetitions. Nothing begins on a cloud that is not whole."""
        said = self._verdicts().get((case.id, number), [])
        while not is_enough(case, said):
            readiness.wait_until_whole(plan, _WHOLE_WITHIN_S, self._say)
            self._say(f"{case.id}, run {number} of {self._wanted.runs}")
            try:
                found = self._drilling.run(case.drill, seed=number, within_s=_RUN_WITHIN_S)
            except DrillFailed as error:
                self._trouble(f"{case.id}, run {number}", error)
                return
            for drilled in found:
                record = _record(case, number, len(said) + 1, drilled)
                keep(self._wanted.to, record, drilled.page)
                said.append(record.verdict)
                self._say(f"{case.id}, run {number}: {record.verdict} {'; '.join(record.report['because'])}")
        write_page(self._wanted)

    def _verdicts(self) -> dict[tuple[str, int], list[Verdict]]:
        return verdicts_of(read_records(self._wanted.to))

    def _trouble(self, where: str, error: TestbedFailed) -> None:
        self._say(f"{where}: {error}")
        self._troubles.append(f"{where}: {str(error).splitlines()[0]}")


def _record(case: Case, number: int, attempt: int, drilled: Drilled) -> Record:
    about = {"case": case.id, "variant": case.variant.name, "differs": case.variant.differs}
    return Record(case.id, number, attempt, drilled.report, {**about, **drilled.context})


@contextmanager
def cloud_of(places: Places, variant: Variant, network: str, deadline_s: float, say: Say) -> Iterator[Plan]:
    """A fresh cloud of that variant; nothing is left of it afterwards, whatever happens."""
    wishes = Wishes(
        network, variant.database_on, variant.vip_on, variant.checks, variant.not_restarted, deadline_s
    )
    try:
        began = time.monotonic()
        with only_one(places):
            plan = bring_up(places, wishes, say)
        say(f"{variant.name}: up after {time.monotonic() - began:.0f} s")
        yield plan
    finally:
        with only_one(places):
            take_down(places)
        say(f"{variant.name}: taken down")


def smoke(places: Places, network: str, deadline_s: float, say: Say) -> Drilled:
    """The plain cloud from what the cache has, keystone killed once on Node1, and everything down again."""
    case = next(each for each in CASES if each.drill == "keystone-down")
    with ended_by_signals(), cloud_of(places, case.variant, network, deadline_s, say) as plan:
        readiness.wait_until_whole(plan, _WHOLE_WITHIN_S, say)
        drilling = Drilling(places.access / "site.yaml", places.evidence)
        return drilling.run(case.drill, seed=1, within_s=_RUN_WITHIN_S)[-1]


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """One campaign at a time. The testbed's own lock stays free: a drill may switch nodes."""
    with places.evidence_lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"{places.evidence_lock}: evidence is being made already") from None
        yield


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM as a Ctrl-C, so that what was started is ended in order."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
