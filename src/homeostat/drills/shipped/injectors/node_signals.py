"""Injectors that signal a whole set of processes, known by their identities: kill them, or freeze them.

Of a kill nothing is put back: that the service comes back by itself is what is measured. A balancer is
killed by its profile. Frozen processes (SIGSTOP) go on with the undo. The two stamps on CLOCK_BOOTTIME,
before and after the signals, bound the beginning of the outage.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import List

from homeostat.drills.shipped.injectors import matching
from homeostat.drills.shipped.injectors.record import InjectedFault, Section, keeper_errors
from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.keeper.machine import Process
from homeostat.kernel.errors import NotAllowed


@dataclass(frozen=True)
class SignalTarget:
    """Which processes, and what they get."""

    processes: matching.ProcessTarget
    signal: str
    gone_within_s: float = 0.0


class SignalInjector(ABC):
    """Signals the planned processes, between two stamps."""

    def probe(self, fault: InjectedFault) -> Section:
        """Whether the processes are there and may be signalled."""
        missing = matching.missing_permission(matching.match_processes(fault, self._target(fault).processes))
        return {"able": not missing, "missing": missing}

    def plan(self, fault: InjectedFault) -> Section:
        target = self._target(fault)
        found = matching.match_processes(fault, target.processes)
        for line in matching.missing_permission(found):
            raise NotAllowed(f"no {line}")
        does, undone_by = f"{target.signal} to {len(found)} processes", self._undone_by(found)
        return {"does": does, "matched": matching.shown(found), "undo": undone_by}

    def inject(self, fault: InjectedFault) -> Section:
        """Signal exactly the planned processes, between two stamps."""
        target = self._target(fault)
        found, number = matching.match_again(fault, target.processes), signal.Signals[target.signal]
        with keeper_errors():
            orders.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), self._steps(found))
            before_ns = machine.now_ns()
            # The youngest first: a worker rather than the master at whose end it goes by itself.
            hit = [machine.send(each, number) for each in sorted(found, key=lambda each: -each.start_ticks)]
            after_ns = machine.now_ns()
            orders.injected(fault.keeper, fault.id)
        return {"before_ns": before_ns, "after_ns": after_ns, "signalled": sum(hit), "of": len(hit)}

    @abstractmethod
    def _target(self, fault: InjectedFault) -> SignalTarget:
        """The processes to signal."""

    @abstractmethod
    def _undone_by(self, found: Sequence[Process]) -> List[str]:
        """For people. NotAllowed for processes that may not be hit."""

    @abstractmethod
    def _steps(self, found: Sequence[Process]) -> List[steps.Step]:
        """The undo that the keeper is armed with."""


class KillInjector(SignalInjector):
    """Kills them."""

    def prove(self, fault: InjectedFault) -> Section:
        """Those identities are gone. `gone_by_ns` is when that was first seen, not when it happened.

        All were there right before the first signal; one that was gone before its own went with the others.
        """
        target, injected = self._target(fault), fault.section("inject")
        found = [machine.process_in(each) for each in fault.section("plan")["matched"]]
        machine.within(target.gone_within_s, lambda: not any(map(machine.lives, found)))
        left = [each.pid for each in found if machine.lives(each)]
        return {
            "proven": not left and injected["signalled"] > 0,
            "gone_by_ns": None if left else machine.now_ns(),
            "left": left,
        }

    def _target(self, fault: InjectedFault) -> SignalTarget:
        words = fault.target
        number = words.one_of("signal", ("SIGKILL", "SIGTERM"), "SIGKILL")
        within_s = words.number("gone_within_s", 5.0, 0.1, 60)
        return SignalTarget(matching.process_target(words), number, within_s)

    def _undone_by(self, _found: Sequence[Process]) -> List[str]:
        return ["nothing: coming back is what is measured"]

    def _steps(self, _found: Sequence[Process]) -> List[steps.Step]:
        return [steps.step_nothing("coming back is what is measured")]


class FreezeInjector(SignalInjector):
    """Stops them until the undo."""

    def prove(self, fault: InjectedFault) -> Section:
        """All of those identities are in state T. `gone`: those that exist no more."""
        found = [machine.process_in(each) for each in fault.section("plan")["matched"]]
        fault.section("inject")
        machine.within(2.0, lambda: all(map(_stopped, found)))
        running = [each for each in found if not _stopped(each)]
        gone = [each.pid for each in running if not machine.lives(each)]
        pids = [each.pid for each in running]
        return {"proven": not running, "not_stopped": pids, "gone": gone, "at_ns": machine.now_ns()}

    def _target(self, fault: InjectedFault) -> SignalTarget:
        return SignalTarget(matching.process_target(fault.target), "SIGSTOP")

    def _undone_by(self, found: Sequence[Process]) -> List[str]:
        """NotAllowed for what somebody else has stopped: the undo would let it go on."""
        if stopped := [each.pid for each in found if _stopped(each)]:
            raise NotAllowed(f"process {stopped[0]} is stopped already, by somebody else; let it go on first")
        return [f"SIGCONT to {each.pid}, if it is still the same process" for each in found]

    def _steps(self, found: Sequence[Process]) -> List[steps.Step]:
        return [steps.step_cont(each) for each in found]


def _stopped(process: Process) -> bool:
    found = machine.stat_of(process.pid)
    return found is not None and found[0] == "T" and machine.lives(process)
