"""A node's report of its machine, under virtual time: said until it is acknowledged, and when it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from homeostat.contracts.nouns import HostFacts, HostId
from homeostat.contracts.wire import HostFactsAcknowledged, HostFactsReport, Subjects, decode, encode
from homeostat.node.facts import LOOK_S, REPEAT_S, HostFactsReporter, read_host_facts

N1 = HostId("n1")
SMALL, LARGE = HostFacts(4, 8_000, 50, "x86_64"), HostFacts(4, 8_000, 90, "x86_64")
pytestmark = pytest.mark.looptime


@dataclass
class Machine:
    """A machine whose facts change, the server behind it, and when reports were heard."""

    has: HostFacts = SMALL
    epoch: int = 1
    answers: bool = True
    connected: bool = True
    reports: list[tuple[float, HostFactsReport]] = field(default_factory=list)
    reconnected: list[Callable[[], None]] = field(default_factory=list)
    hears: Callable[[str, bytes], None] = lambda _subject, _body: None

    async def look(self) -> HostFacts:
        return self.has

    async def heeded(self, epoch: int) -> bool:
        return epoch >= self.epoch

    def on_reconnect(self, told: Callable[[], None]) -> None:
        self.reconnected.append(told)

    async def subscribe(self, _pattern: str, hear: Callable[[str, bytes], None]) -> None:
        self.hears = hear

    async def publish(self, _subject: str, body: bytes) -> bool:
        report = decode(HostFactsReport, body)
        self.reports.append((asyncio.get_running_loop().time(), report))
        if self.answers:
            self.acknowledge(report)
        return True

    def acknowledge(self, report: HostFactsReport, epoch: int = 1) -> None:
        said = HostFactsAcknowledged(report.incarnation, report.number, epoch)
        self.hears(Subjects(N1).facts_acknowledged, encode(said))

    @property
    def numbers(self) -> list[int]:
        return [report.number for _, report in self.reports]


@asynccontextmanager
async def reporting(machine: Machine) -> AsyncIterator[HostFactsReporter]:
    reporter = HostFactsReporter(N1, "i1", machine, machine.heeded, machine.look)  # type: ignore[arg-type]
    await reporter.listen()
    tasks = [asyncio.create_task(reporter.run()), asyncio.create_task(reporter.hear())]
    try:
        yield reporter
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_acknowledged_is_said_again_only_when_it_changes_or_much_later() -> None:
    machine = Machine()
    async with reporting(machine):
        await asyncio.sleep(REPEAT_S - 1)
        assert [report.facts for _, report in machine.reports] == [SMALL]
        machine.has = LARGE
        await asyncio.sleep(LOOK_S + 1)
        assert [report.facts for _, report in machine.reports] == [SMALL, LARGE]
        assert machine.numbers == [1, 2]
        await asyncio.sleep(REPEAT_S + LOOK_S)
        assert machine.numbers == [1, 2, 2], "an older database would not ask"


async def test_without_an_answer_it_is_said_ever_more_rarely_and_at_once_after_a_reconnect() -> None:
    machine = Machine(answers=False)
    async with reporting(machine) as reporter:
        await asyncio.sleep(600)
        at_s = [said_s for said_s, _ in machine.reports]
        waits = [round(after - before, 1) for before, after in pairwise(at_s)]
        assert waits[:7] == [0.5, 1, 2, 4, 8, 16, 32] and set(waits[7:]) == {LOOK_S}
        before = len(machine.reports)
        for each in machine.reconnected:
            each()
        await asyncio.sleep(0.1)
        reporter.say_again()
        await asyncio.sleep(0.1)
        assert len(machine.reports) == before + 2


async def test_only_the_word_of_the_leader_about_the_newest_report_of_this_life_counts() -> None:
    machine = Machine(answers=False, epoch=7)
    async with reporting(machine):
        await asyncio.sleep(0.1)
        (_, first), *_ = machine.reports
        machine.acknowledge(first, epoch=6)
        machine.acknowledge(replace(first, incarnation="i0"), epoch=7)
        await asyncio.sleep(1)
        assert len(machine.reports) == 2
        machine.acknowledge(first, epoch=7)
        await asyncio.sleep(REPEAT_S / 2)
        assert len(machine.reports) == 2
        machine.has = LARGE
        await asyncio.sleep(LOOK_S)
        machine.acknowledge(machine.reports[-1][1], epoch=7)
        await asyncio.sleep(1)
        said = len(machine.reports)
        machine.acknowledge(first, epoch=7)  # it came late, and took the place of the newest
        await asyncio.sleep(0.1)
        assert machine.numbers[said:] == [2]


async def test_a_machine_has_what_its_kernel_says(tmp_path: Path) -> None:
    facts = read_host_facts(tmp_path)
    (total,) = [
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    ]
    assert facts.memory_mb == int(total.split()[1]) // 1024
    assert (facts.cpus, facts.architecture) == (os.cpu_count(), os.uname().machine)
    disk = os.statvfs(tmp_path)
    assert facts.disk_gb == disk.f_blocks * disk.f_frsize // 2**30
