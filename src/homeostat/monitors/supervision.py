"""Monitor processes: started, waited for, listened to, stopped; and never taken at their word.

Each monitor is a process of its own with its own file, and dies with us (PDEATHSIG). One that dies, falls
silent, freezes (also for a while: its own stamps show it) or does not say its last word is *lost*, and a
measurement with a lost monitor is an ERROR, whatever its samples say. Not the place of a verdict; a lost
monitor is never started again, since nobody could say what it missed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.files import write_json
from homeostat.kernel.processes import Identity, die_with_parent, identify, send_signal
from homeostat.monitors.node.command_sampler import CommandConfig
from homeostat.monitors.node.sampler import HEARTBEAT_S, SamplerConfig
from homeostat.monitors.outage import Sample, read_samples
from homeostat.monitors.shipped import statements
from homeostat.monitors.shipped.process_watch import WatchConfig

SILENCE_S = 4 * HEARTBEAT_S
"""No heartbeat for so long: frozen or dead. Smaller: a busy machine loses healthy monitors."""
START_S = 30.0
_LAST_WORDS_S = 0.2
_STOP_S = 3.0


class MonitorLoss(StrEnum):
    """Why a monitor is lost."""

    NOT_READY = "no clean baseline in time"
    DIED = "died"
    SILENT = "fell silent or was frozen"
    NONSENSE = "sent a line that cannot be read"
    DID_NOT_STOP = "did not end in time"


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """What to start. `stop_s`: between SIGTERM and SIGKILL; it may have to wait for its last probe."""

    name: str
    argv: tuple[str, ...]
    config_file: Path
    """Removed when the monitor ends."""
    file: Path
    stop_s: float
    brings: Literal["samples", "sightings"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one monitor brought. `lost` names why nothing may be concluded from it."""

    name: str
    samples: tuple[Sample, ...]
    ready: statements.ReadyStatement | None
    ended: statements.EndedStatement | None
    lost: MonitorLoss | None
    sightings: tuple[statements.Sighting, ...] = ()
    beats: tuple[statements.AliveStatement, statements.AliveStatement] | None = None
    """The first heartbeat after the baseline and the last one."""

    @property
    def cpu_ms_per_sample(self) -> float | None:
        """What one sample cost on a core, without start and end; None when it was too short to say."""
        if self.beats is None or self.beats[0].samples == self.beats[1].samples:
            return None
        first, last = self.beats
        return (last.cpu_ns - first.cpu_ns) / (last.samples - first.samples) / 1e6


_MODULES = {
    SamplerConfig: "node.sampler",
    CommandConfig: "node.command_sampler",
    WatchConfig: "shipped.process_watch",
}


def monitor_command(config: SamplerConfig | CommandConfig | WatchConfig, folder: Path) -> MonitorCommand:
    """The command of a monitor; its configuration, which may hold a token, is written for us alone."""
    path = folder / f"{config.checked().name}.monitor.json"
    write_json(path, asdict(config))
    argv = (sys.executable, "-m", f"homeostat.monitors.{_MODULES[type(config)]}", "--config", str(path))
    if isinstance(config, WatchConfig):
        return MonitorCommand(config.name, argv, path, Path(config.sightings_file), _STOP_S, "sightings")
    stop_s = config.deadline_ms / 1000 + _STOP_S
    return MonitorCommand(config.name, argv, path, Path(config.samples_file), stop_s, "samples")


class Monitors:
    """Several monitors for one measurement. To be used in the main thread, with `async with`."""

    def __init__(self, commands: Sequence[MonitorCommand], *, silence_s: float = SILENCE_S) -> None:
        self.lost_one = asyncio.Event()
        """Set as soon as any monitor is lost; the fault need not be injected any more."""
        self._supervised = [_Monitor(command, silence_s, self.lost_one.set) for command in commands]

    @property
    def lost(self) -> Mapping[str, MonitorLoss]:
        return {each.command.name: each.lost for each in self._supervised if each.lost is not None}

    @property
    def identities(self) -> Mapping[str, Identity]:
        """The process of each monitor, for who must not be hurt by a fault."""
        return {each.command.name: each.identity for each in self._supervised if each.identity is not None}

    async def __aenter__(self) -> Self:
        try:
            for each in self._supervised:
                await each.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def ready(self, within_s: float = START_S) -> bool:
        """Wait for all baselines: the barrier before a fault. False: the ones without are lost."""
        waits = [asyncio.create_task(each.ready_or_lost.wait()) for each in self._supervised]
        _, late = await asyncio.wait(waits, timeout=within_s) if waits else (set(), set())
        for wait in late:
            wait.cancel()
        for each in self._supervised:
            if each.ready is None:
                each.lose(MonitorLoss.NOT_READY)
        return not self.lost

    async def stop(self) -> tuple[Measurement, ...]:
        """End all of them in order and read what they brought."""
        await asyncio.gather(*(each.stop() for each in self._supervised))
        return tuple([await each.measurement() for each in self._supervised])

    async def _end(self) -> None:
        await asyncio.gather(*(each.kill() for each in self._supervised))


class _Monitor:
    """One monitor process and what it said."""

    def __init__(self, command: MonitorCommand, silence_s: float, note_loss: Callable[[], None]) -> None:
        self.command = command
        self.identity: Identity | None = None
        self.ready: statements.ReadyStatement | None = None
        self.ended: statements.EndedStatement | None = None
        self.lost: MonitorLoss | None = None
        self.ready_or_lost = asyncio.Event()
        self._silence_s, self._note_loss = silence_s, note_loss
        self._last: statements.Statement | None = None
        self._beats: tuple[statements.AliveStatement, statements.AliveStatement] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fork; in the main thread, since PDEATHSIG fires when the forking *thread* ends."""
        self.command.file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self.command.argv, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent()
        )
        self.identity = identify(self._process.pid)
        self._listening = asyncio.create_task(self._listen(), name=f"monitor {self.command.name}")

    def lose(self, why: MonitorLoss) -> None:
        """For good; the first reason stays."""
        if self.lost is None:
            self.lost = why
            self.ready_or_lost.set()
            self._note_loss()

    async def stop(self) -> None:
        """SIGTERM, the last word, SIGKILL after `stop_s`."""
        assert self._process is not None and self._listening is not None
        self._signal(signal.SIGTERM)
        _, running = await asyncio.wait({self._listening}, timeout=self.command.stop_s)
        if running:
            self.lose(MonitorLoss.DID_NOT_STOP)
        await self.kill()
        self._listening.result()

    async def kill(self) -> None:
        """At once; nothing when it is gone. Its configuration goes too."""
        self.command.config_file.unlink(missing_ok=True)
        if self._process is None or self._listening is None:
            return
        if self._process.returncode is None:
            if self._listening.done() and self.ended is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), _STOP_S)
            self._signal(signal.SIGKILL)
        await asyncio.wait({self._listening})
        await self._process.wait()

    async def measurement(self) -> Measurement:
        """What it brought; samples of a file that cannot be read make it lost too."""
        samples: tuple[Sample, ...] = ()
        sightings: tuple[statements.Sighting, ...] = ()
        try:
            match self.command.brings:
                case "samples":
                    samples = await asyncio.to_thread(read_samples, self.command.file)
                case "sightings":
                    sightings = await asyncio.to_thread(statements.read_sightings, self.command.file)
        except CorruptState:
            self.lose(MonitorLoss.NONSENSE)
        return Measurement(
            self.command.name, samples, self.ready, self.ended, self.lost, sightings, self._beats
        )

    def _signal(self, number: signal.Signals) -> None:
        if self.identity is not None:
            send_signal(self.identity, number)

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        reader = self._process.stdout
        while line := await self._line(reader):
            try:
                self._hear(statements.decode_statement(line))
            except CorruptState:
                self.lose(MonitorLoss.NONSENSE)
        if self.ended is None:
            self.lose(MonitorLoss.DIED)

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        """The next line; waiting too long for it makes it lost, and goes on."""
        next_line = asyncio.ensure_future(reader.readline())
        patience_s = START_S if self._last is None else self._silence_s
        try:
            for wait_s in (patience_s, _LAST_WORDS_S):  # the second: it may be we who slept
                done, _ = await asyncio.wait({next_line}, timeout=wait_s)
                if done:
                    return next_line.result()
            self.lose(MonitorLoss.SILENT)
            return await next_line
        finally:
            next_line.cancel()

    def _hear(self, statement: statements.Statement) -> None:
        before, self._last = self._last, statement
        if before is not None and statement.at_ns - before.at_ns > self._silence_s * 1e9:
            self.lose(MonitorLoss.SILENT)
        match statement:
            case statements.ReadyStatement():
                self.ready = statement
                self.ready_or_lost.set()
            case statements.EndedStatement():
                self.ended = statement
            case statements.AliveStatement() if self.ready is not None:
                self._beats = (self._beats or (statement, statement))[0], statement
            case statements.AliveStatement():
                pass
