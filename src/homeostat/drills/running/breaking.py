"""One fault of one run, from its plan to the proof that it is gone, by the verbs of a host's injector.

Invariant: its undo is in the ledger and the host's keeper has it before anything is done, and whatever
happens after `inject` was begun, `undo` says in the history what became of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from homeostat.drills.records.book import Book, now_ns
from homeostat.drills.records.clocks import Exchange, bracket
from homeostat.drills.records.facts import Broke, EffectSeen, Injected, Injecting, Undone
from homeostat.drills.records.ledger import Ledger
from homeostat.drills.running.stopping import Beside, NotBegun, Stopped, to_its_end
from homeostat.drills.transports.port import HostTransport
from homeostat.kernel.errors import GiveUp, HomeostatError, RetryLater

_UNDO_AGAIN_S = 1.0
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Late:
    """Who may do what the fault did, after its undo. `ask` says who; nobody must be for `stays_s`."""

    ask: Callable[[], Awaitable[str | None]]
    stays_s: float = 5.0


class Breaking:
    """The fault. `injected` and `undone_ns` say how far it is."""

    def __init__(self, transport: HostTransport, record: dict[str, Any]) -> None:
        self._transport, self.record = transport, record
        self.begun = self._undoing = False
        self.injected: Injected | None = None
        self.undone_ns: int | None = None
        self.exchanges: list[Exchange] = []

    @property
    def fault(self) -> str:
        """Its id at the keeper."""
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

    async def inject(self, book: Book, ledger: Ledger) -> Injected:
        """Do it, between stamps. Not cut short by who ends the run: it is undone after that."""
        return await to_its_end(self._inject(book, ledger))

    async def _inject(self, book: Book, ledger: Ledger) -> Injected:
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
        self.exchanges.append(Exchange(asked_ns, there_ns, now_ns()))

    def node_ns(self, at_ns: int) -> int:
        """The host's clock at a moment of ours, by the last exchange; not later than it really was."""
        last = self.exchanges[-1]
        return at_ns + last.there_ns - last.answered_ns

    async def clock_ns(self) -> int:
        """The host's own clock now."""
        return await self._transport.clock_ns()

    async def prove(self, book: Book) -> None:
        """Look for the effect. NotBegun, with the fact noted, when there is none."""
        await self._look(book, at_the_end=False)

    async def prove_to_the_end(self, book: Book) -> None:
        """Look once more before the undo: it held all along only when nobody has ended it.

        Frozen processes that were ended are no lack of effect: who is kept up may be started anew.
        """
        await self._look(book, at_the_end=True)

    async def _look(self, book: Book, *, at_the_end: bool) -> None:
        self.record = await self._transport.verb("prove", self.record)
        section = self.record["prove"]
        replaced = at_the_end and bool(section.get("gone")) and section["gone"] == section["not_stopped"]
        seen = EffectSeen(bool(section["proven"]) or replaced, section_words(section, "proven"))
        book.note(seen)
        if not seen.proven:
            raise NotBegun("effect", seen.seen, said=True)

    async def keep_alive(self, every_s: float, beside: Beside) -> None:
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
        self, book: Book, ledger: Ledger, within_s: float, *, expected: bool, late: Late | None = None
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

    async def undone_for_good(self, within_s: float, late: Late | None = None) -> tuple[Undone, str | None]:
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
    """What a verb found, in a line."""
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
