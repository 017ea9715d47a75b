"""The injection of one fault, from its plan to the proof that it is gone, and the moments that follow from
it.

Invariant: its undo is in the ledger and the host's keeper has it before anything is done, and whatever
happens after `inject` was begun, `undo` says in the history what became of it.

When to operate and when the window ends is decided by pure functions. All moments are nanoseconds of the
monitors' clock; two clocks are never taken for one. Of an exchange with a host, `asked` and `answered` are
ours, `there` is the host's: its clock was ahead of ours by something between `there - answered` and `there -
asked`. Of several exchanges, the widest holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from homeostat.drills.actions import hold_ms
from homeostat.drills.model import Drill
from homeostat.drills.records.evidence import Ledger, RunRecorder
from homeostat.drills.records.facts import Broke, EffectSeen, Injected, Injecting, Undone
from homeostat.drills.running.cancellation import BackgroundTasks, NotBegun, Stopped, shielded
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.transports.port import HostTransport
from homeostat.kernel.errors import GiveUp, HomeostatError, RetryLater
from homeostat.monitors.outage import Outage

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ObservedEffect:
    """What one monitor has seen of the fault."""

    failed: bool
    """At least once since the fault."""
    out: bool
    """It is out now."""
    back_ns: int | None
    """When it was back for the last time; None when it never was out."""


NO_EFFECT = ObservedEffect(False, False, None)


def observed_effect(outage: Outage) -> ObservedEffect:
    """Of a sampler."""
    ends = [each.until_ns for each in outage.episodes]
    back = [end for end in ends if end is not None]
    return ObservedEffect(bool(ends), None in ends, max(back, default=None))


def may_operate(
    drill: Drill, injected_ns: int, undone_ns: int | None, felt: Sequence[ObservedEffect], known_until_ns: int
) -> bool:
    """Whether the specified operations say something by now (the two-phase rule).

    Where a failure was seen, once it is over. Where none was up to `known_until_ns`, once the proven fault
    had its time to be felt: a call that succeeds before that shows nothing.
    """
    if undone_ns is None or any(each.out for each in felt):
        return False
    if any(each.failed for each in felt):
        return True
    return known_until_ns >= injected_ns + drill.window.effect_within_ms * _NS_PER_MS


def hold_until_ns(drill: Drill, injected_after_ns: int) -> int:
    """When a fault that lasts has lasted as long as the drill asks."""
    return injected_after_ns + round(hold_ms(drill.fault) * _NS_PER_MS)


def window_end_ns(
    drill: Drill, injected_after_ns: int, undone_ns: int | None, felt: Sequence[ObservedEffect]
) -> int | None:
    """When everything has been well for `settle`; None while something is out or not undone."""
    if undone_ns is None or any(each.out for each in felt):
        return None
    latest = max(
        injected_after_ns + round(drill.window.effect_within_ms * _NS_PER_MS),
        hold_until_ns(drill, injected_after_ns),
        undone_ns,
        *(each.back_ns for each in felt if each.back_ns is not None),
    )
    return latest + round(drill.window.settle_ms * _NS_PER_MS)


def window_limit_ns(drill: Drill, injected_after_ns: int) -> int:
    """When it is over in any case."""
    return injected_after_ns + round(drill.window.longest_ms * _NS_PER_MS)


@dataclass(frozen=True, slots=True)
class ClockExchange:
    """One question for the time."""

    asked_ns: int
    there_ns: int
    answered_ns: int


def bracket(
    exchanges: Sequence[ClockExchange], called: tuple[int, int], there: tuple[int, int]
) -> tuple[int, int]:
    """Not before and not after, by our clock: what happened on the host between two of its moments.

    `called`: when we began to ask for it and when it was said to be done, which bounds it in any case.
    """
    ahead_least = min(each.there_ns - each.answered_ns for each in exchanges)
    ahead_most = max(each.there_ns - each.asked_ns for each in exchanges)
    before_ns = max(called[0], there[0] - ahead_most)
    after_ns = min(called[1], there[1] - ahead_least)
    # Stamps that contradict the call are not believed.
    return (before_ns, after_ns) if before_ns <= after_ns else called


_UNDO_AGAIN_S = 1.0
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class LateFenceCheck:
    """Who may do what the fault did, after its undo. `ask` says who; nobody must be for `stays_s`."""

    ask: Callable[[], Awaitable[str | None]]
    stays_s: float = 5.0


class FaultInjection:
    """The fault. `injected` and `undone_ns` say how far it is."""

    def __init__(self, transport: HostTransport, record: dict[str, Any]) -> None:
        self._transport, self.record = transport, record
        self.begun = self._undoing = False
        self.injected: Injected | None = None
        self.undone_ns: int | None = None
        self.exchanges: list[ClockExchange] = []

    @property
    def fault(self) -> str:
        return str(self.record["fault"])

    @property
    def stands(self) -> bool:
        """Whether there may be something to undo."""
        return self.begun and self.undone_ns is None

    async def plan(self) -> dict[str, Any]:
        """Exactly what will be hit; touches nothing. NotBegun when the host is not able to."""
        self.record = await self._transport.verb("probe", self.record)
        probe = self.record["probe"]
        if not probe["able"]:
            missing = "; ".join(map(str, probe["missing"]))
            raise NotBegun("probe", f"{self._transport.host} is not able to: {missing}")
        self.record = await self._transport.verb("plan", self.record)
        section: dict[str, Any] = self.record["plan"]
        return section

    async def inject(self, book: RunRecorder, ledger: Ledger) -> Injected:
        """Do it, between stamps. Not cut short by who ends the run: it is undone after that."""
        return await shielded(self._inject(book, ledger))

    async def _inject(self, book: RunRecorder, ledger: Ledger) -> Injected:
        await self._exchange()
        ledger.to_undo(self._transport.host, self.record)
        book.note(Injecting())
        self.begun = True
        began_ns = now_ns()
        self.record = await self._transport.verb("inject", self.record)
        done_ns = now_ns()
        await self._exchange()
        section = self.record["inject"]
        there = int(section["before_ns"]), int(section["after_ns"])
        before_ns, after_ns = bracket(self.exchanges, (began_ns, done_ns), there)
        self.injected = Injected(before_ns, after_ns, *there, hit_words(self._transport.host, self.record))
        book.note(self.injected)
        return self.injected

    async def _exchange(self) -> None:
        asked_ns = now_ns()
        there_ns = await self._transport.clock_ns()
        self.exchanges.append(ClockExchange(asked_ns, there_ns, now_ns()))

    def node_ns(self, at_ns: int) -> int:
        """The host's clock at a moment of ours, by the last exchange; not later than it really was."""
        last = self.exchanges[-1]
        return at_ns + last.there_ns - last.answered_ns

    async def prove(self, book: RunRecorder, *, at_the_end: bool = False) -> None:
        """Look for the effect. NotBegun, with the fact noted, when there is none.

        `at_the_end`: once more before the undo, since it held all along only when nobody has ended it. Frozen
        processes that were ended are no lack of effect then: who is kept up may be started anew.
        """
        self.record = await self._transport.verb("prove", self.record)
        section = self.record["prove"]
        replaced = at_the_end and bool(section.get("gone")) and section["gone"] == section["not_stopped"]
        seen = EffectSeen(bool(section["proven"]) or replaced, section_words(section, "proven"))
        book.note(seen)
        if not seen.proven:
            raise NotBegun("effect", seen.seen, said=True)

    async def keep_alive(self, every_s: float, beside: BackgroundTasks) -> None:
        """Renew the undo deadline until it is undone; ends the run when the fault is gone early."""
        while not self._undoing:
            try:
                await self._transport.renew(self.fault)
            except RetryLater:
                pass  # the host's keeper undoes it at its deadline; the undo will say so
            except HomeostatError as error:
                if not self._undoing:
                    beside.end(await self._gone_early(str(error)))
                return
            await asyncio.sleep(every_s)

    async def _gone_early(self, words: str) -> Exception:
        try:
            halted = bool((await self._transport.status())["halted"])
        except HomeostatError:
            halted = False
        host = self._transport.host
        return Stopped(f"host {host}", "it was halted there") if halted else NotBegun("fault", words)

    async def undo(
        self,
        book: RunRecorder,
        ledger: Ledger,
        within_s: float,
        *,
        expected: bool,
        late: LateFenceCheck | None = None,
    ) -> Undone:
        """Have it undone and look; both ways a fact. `expected`: the fault should still stand.

        `late` says who may still come and do what the fault did; until nobody is left it is undone again.
        """
        said, coming = await self.undone_for_good(within_s, late)
        if coming is not None and said.proven:
            said = replace(said, seen=f"{said.seen}; {coming}")
        early = self.record.get("undo", {}).get("reason")
        if expected and said.proven and early not in ("asked", None):
            book.note(
                Broke("fault", f"the keeper of {self._transport.host} undid it before its time: {early}")
            )
        book.note(said)
        self.undone_ns = now_ns()
        if said.proven:
            ledger.undone(self.fault, said.seen)
        return said

    async def undone_for_good(
        self, within_s: float, late: LateFenceCheck | None = None
    ) -> tuple[Undone, str | None]:
        """Undo it and look, again and again while somebody may do the same; and who still may, at the end."""
        self._undoing = True
        end_s, again = time.monotonic() + within_s, 0
        settled_s: float | None = None
        coming: str | None = None
        while True:
            said = await self._undo_once()
            again += "again" in self.record.get("undo", {})
            if late is not None:
                coming = "it is not proven yet" if not said.proven else await late.ask()
            now_s = time.monotonic()
            settled_s = now_s if coming is not None or settled_s is None else settled_s
            stays = late is None or now_s - settled_s >= late.stays_s
            if (said.proven and stays) or now_s >= end_s:
                break
            await asyncio.sleep(_UNDO_AGAIN_S)
        if again:
            said = replace(said, seen=f"{said.seen}; somebody did the same again: undone {again} more")
        return said, coming

    async def _undo_once(self) -> Undone:
        try:
            self.record = await self._transport.verb("undo", self.record)
            self.record = await self._transport.verb("verify_undone", self.record)
        except HomeostatError as error:
            return await self._unknown_there(error)
        section = self.record["verify_undone"]
        return Undone(bool(section["undone"]), undo_words(self.record))

    async def _unknown_there(self, error: HomeostatError) -> Undone:
        """A keeper that never was given the fault has nothing to undo: nothing is done before it has."""
        if isinstance(error, GiveUp):
            try:
                if self.fault not in (await self._transport.status())["open"]:
                    return Undone(True, f"the keeper of {self._transport.host} has no such fault")
            except HomeostatError:
                pass
        return Undone(False, str(error))


def hit_words(host: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The exact things that were hit, each in words."""
    plan, inject = record["plan"], record["inject"]
    if "signalled" in inject:
        hit = plan["matched"] if inject["signalled"] else []
        return tuple(f"{host}: pid {each['pid']} {str(each['command_line'])[:_SHOWN]}" for each in hit)
    return (f"{host}: {plan['does']}",)


def section_words(section: Mapping[str, Any], verdict: str) -> str:
    told = {
        name: value
        for name, value in section.items()
        if name != verdict and not name.endswith("_ns") and value not in ([], None, "")
    }
    words = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in told.items())
    return words or ("seen" if section[verdict] else "not seen")


def _plain(value: Any) -> str:
    """A value as people write it, not as Python does."""
    if isinstance(value, Mapping):
        return " ".join(f"{name.replace('_', ' ')} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " and ".join(map(_plain, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def undo_words(record: Mapping[str, Any]) -> str:
    """What became of the undo, in a line."""
    outcome, looked = record["undo"], record["verify_undone"]
    kinds = [str(each["step"]["kind"]) for each in outcome["steps"] if each["step"]]
    failed = [str(each["reason"]) for each in outcome["steps"] if each["result"] == "failed"]
    steps = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)) or "no steps"
    within = "within" if looked.get("within_deadline") else "NOT within"
    words = f"{steps}, {outcome['reason']}, {within} its deadline"
    return "; ".join([words, *failed])
