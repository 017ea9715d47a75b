"""Monitor process that probes one target at a fixed rate, whatever earlier probes do (open loop).

    python -m homeostat.monitors.node.sampler --config monitor.json

Its configuration is JSON with the names of a dataclass and no others. Its samples go into its own file, its
statements to standard output; it ends in order on SIGTERM, with all samples on disk. All moments are
CLOCK_BOOTTIME: the wall clock is never read. The schedule is a timerfd (absolute, to the nanosecond),
because an event loop's own timers know whole milliseconds only; Python has one from 3.13 on, until then it
is called in the C library. What is due while this process cannot run is not made up for: the next sample
says how late it is, and the others are counted as skipped. It concludes nothing (`outage`) and is started
and watched by `supervision`.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import uvloop

from homeostat.kernel.errors import BadInput, HomeostatError
from homeostat.monitors.node.prober import Prober, ProbeTarget, now_ns, tls_context
from homeostat.monitors.outage import ProbeAnswer, Sample, sample_line
from homeostat.monitors.shipped import statements

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_NS_PER_S = 1_000_000_000
_ONE = (1).to_bytes(8, "little")
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Ticks:
    """Readable once a tick is due; `fd` is for the event loop. To be closed."""

    __slots__ = ("_due_ns", "_period_ns", "fd")

    def __init__(self, first_ns: int, period_ns: int) -> None:
        """The first tick at `first_ns` of CLOCK_BOOTTIME, then one a period for ever."""
        self.fd = _checked(_libc.timerfd_create(time.CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC))
        setting = _Itimerspec(
            _Timespec(*divmod(period_ns, _NS_PER_S)), _Timespec(*divmod(first_ns, _NS_PER_S))
        )
        _checked(_libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None))
        self._due_ns, self._period_ns = first_ns, period_ns

    def take(self) -> tuple[int, int] | None:
        """When the earliest tick not yet taken was due, and how many more were missed; None too early."""
        try:
            told = os.read(self.fd, 8)
        except BlockingIOError:
            return None
        missed = 0 if told == _ONE else int.from_bytes(told, "little") - 1
        due_ns = self._due_ns
        self._due_ns = due_ns + self._period_ns + missed * self._period_ns
        return due_ns, missed

    def close(self) -> None:
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


HEARTBEAT_S = 0.5
_NS_PER_MS = 1_000_000
_PORTS = {"http": 80, "https": 443}
_NICENESS = -10
_GARBAGE_THRESHOLD = 50_000


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """What one monitor does. Written as JSON with these names."""

    name: str
    url: str
    """`http://host:port/path`, https, or `tcp://host:port`: a connection that stands is the answer."""
    samples_file: str
    period_ms: float = 20.0
    """Time between two probes. The bounds of an outage are at least twice this apart."""
    phase_ms: float = 0.0
    """Shift on the grid that all monitors share: N of them shifted by period/N are one, N times as dense."""
    deadline_ms: float = 1000.0
    """A probe without an answer by then is given up. More than the service ever needs."""
    late_ms: float = 0.0
    """A good answer after so long is late. 0: a tenth of the deadline, at least five periods and three of the
    longest round trips of the baseline (in which nothing is late)."""
    baseline_samples: int = 20
    """So many good samples in a row before the monitor says that it is ready."""
    fresh_every: int = 10
    """Every so many probes one goes on a new connection: kept ones must not hide a listener that is gone."""
    expected_status: tuple[int, int] = (200, 399)
    """From, to: what counts as a good answer."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of every request; may hold a token."""
    cacert: str | None = None
    """Of https: a file of the CAs that are believed, and no others; the system's when not given."""
    server_name: str | None = None
    """Of https: the name in the certificate, when it is not that in the URL. `Host` says it, too."""
    verify: bool = True
    """Of https: False believes anybody."""
    raised_priority: bool = True
    """SCHED_FIFO, else a lower nice value, where this machine permits it."""

    def checked(self) -> SamplerConfig:
        """Itself, or BadInput naming the field."""
        for name in ("period_ms", "deadline_ms"):
            if not 0 < getattr(self, name) <= 3_600_000:
                raise BadInput(name, getattr(self, name), "more than 0 and at most an hour, in ms")
        if self.late_ms < 0 or self.phase_ms < 0:
            raise BadInput("late_ms" if self.late_ms < 0 else "phase_ms", -1, "0 or more, in ms")
        for name in ("baseline_samples", "fresh_every"):
            if getattr(self, name) < 1:
                raise BadInput(name, getattr(self, name), "1 or more")
        parts = urlsplit(self.url)
        if parts.scheme not in (*_PORTS, "tcp") or not parts.hostname:
            raise BadInput("url", self.url, "http://host:port/path, https:// or tcp://host:port")
        if any("\n" in text or "\r" in text for pair in self.headers.items() for text in pair):
            raise BadInput("headers", "***", "one line each")
        return self

    def target(self) -> ProbeTarget:
        """Whom to ask, its name resolved once: a resolver's trouble is not the service's."""
        parts = urlsplit(self.url)
        try:
            port = parts.port or _PORTS.get(parts.scheme, 0)
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
            if not port:
                raise ValueError("no port")
        except (OSError, ValueError) as error:
            raise BadInput("url", self.url, f"a name that can be resolved and a port ({error})") from None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return ProbeTarget(
            address=str(found[0][4][0]),
            port=port,
            path=path if parts.scheme in _PORTS else None,
            host=f"{self.server_name}:{port}" if self.server_name else parts.netloc.rpartition("@")[2],
            headers=self.headers,
            expected=range(self.expected_status[0], self.expected_status[1] + 1),
            deadline_ns=round(self.deadline_ms * _NS_PER_MS),
            tls=tls_context(self.cacert, verify=self.verify) if parts.scheme == "https" else None,
            server_name=self.server_name or str(parts.hostname),
        )

    def late_ns(self, rho_ns: int) -> int:
        """From when on a good answer is late, given the longest round trip of the baseline."""
        late_ms = self.late_ms or max(self.deadline_ms / 10, 5 * self.period_ms, 3 * rho_ns / _NS_PER_MS)
        return round(late_ms * _NS_PER_MS)


def raise_priority() -> str:
    """As much as the machine permits: fifo, nice or none."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return "fifo"
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
        return "nice"
    except OSError:
        return "none"


class Sampler:
    """The schedule, the file and the statements of one monitor."""

    def __init__(self, config: SamplerConfig, priority: str, file: BinaryIO, voice_fd: int) -> None:
        self._config, self._priority, self._file, self._voice_fd = config, priority, file, voice_fd
        period_ns = round(config.period_ms * _NS_PER_MS)
        self._prober = Prober(config.target(), self._baseline)
        if config.late_ms:
            self._prober.late_ns = config.late_ns(0)
        self._loop = asyncio.get_running_loop()
        self._unwritten: list[Sample] = []
        self._stopping = asyncio.Event()
        self._asked = self._samples = self._skipped = 0
        self._good_in_a_row = self._rho_ns = self._lateness_max_ns = 0
        self._since_ns = 0
        phase_ns = round(config.phase_ms * _NS_PER_MS)
        first_ns = (now_ns() // period_ns + 1) * period_ns + phase_ns % period_ns
        self._ticks = Ticks(first_ns, period_ns)

    async def run(self) -> None:
        """Until SIGTERM; then every probe gets its end, the file is on disk and the last word is said."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._loop.add_reader(self._ticks.fd, self._tick)
        self._beat()
        await self._stopping.wait()
        self._loop.remove_reader(self._ticks.fd)
        self._ticks.close()
        while self._prober.under_way:
            self._prober.expire()
            await asyncio.sleep(self._config.period_ms / 1000)
        self._prober.close()
        self._write()
        os.fsync(self._file.fileno())
        ended = statements.EndedStatement(
            now_ns(), self._samples, self._skipped, self._lateness_max_ns, time.process_time_ns()
        )
        os.set_blocking(self._voice_fd, True)
        statements.say(self._voice_fd, ended)

    def _beat(self) -> None:
        self._write()
        statements.say(
            self._voice_fd, statements.AliveStatement(now_ns(), self._samples, time.process_time_ns())
        )
        if not self._stopping.is_set():
            self._loop.call_later(HEARTBEAT_S, self._beat)

    def _tick(self) -> None:
        taken = self._ticks.take()
        if taken is None:
            return
        due_ns, missed = taken
        if self._prober.waiting:
            self._prober.expire()
        self._asked += 1
        self._prober.ask(due_ns, fresh=self._asked % self._config.fresh_every == 0)
        self._skipped += missed

    def _baseline(self, sample: Sample) -> None:
        """Count towards the barrier; whatever is not good begins it anew."""
        self._unwritten.append(sample)
        if sample.answer is not ProbeAnswer.OK:
            self._good_in_a_row = self._rho_ns = 0
            return
        if not self._good_in_a_row:
            self._since_ns = sample.scheduled_ns
        self._good_in_a_row += 1
        self._rho_ns = max(self._rho_ns, sample.done_ns - sample.sent_ns)
        if self._good_in_a_row >= self._config.baseline_samples:
            self._prober.record = self._unwritten.append
            rho_ns, late_ns = self._rho_ns, self._config.late_ns(self._rho_ns)
            self._prober.late_ns = late_ns
            self._write()
            statements.say(self._voice_fd,
                statements.ReadyStatement(
                    now_ns(), self._since_ns, os.getpid(), self._samples, rho_ns, late_ns,
                    self._lateness_max_ns, time.process_time_ns(), self._priority,
                )
            )  # fmt: skip

    def _write(self) -> None:
        """Everything at once: a line costs less among others than each by itself."""
        new = self._unwritten
        if new:
            self._file.write("".join(map(sample_line, new)).encode())
            self._samples += len(new)
            late_ns = max([sample.sent_ns - sample.scheduled_ns for sample in new])
            self._lateness_max_ns = max(self._lateness_max_ns, late_ns)
            new.clear()


async def _sample(config: SamplerConfig, priority: str, file: BinaryIO) -> None:
    voice_fd = sys.stdout.fileno()
    os.set_blocking(voice_fd, False)
    sampler = Sampler(config, priority, file, voice_fd)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    await sampler.run()


class MonitorConfiguration(statements.Configuration, Protocol):
    """One of a monitor whose samples go into a file."""

    @property
    def samples_file(self) -> str: ...


C = TypeVar("C", bound=MonitorConfiguration)


def run_monitor(kind: type[C], program: str, run: Callable[[C, BinaryIO], None]) -> None:
    """The command of a monitor: 0 after SIGTERM, 2 and one line when its configuration is not acceptable."""
    parser = argparse.ArgumentParser(prog=program, description="one monitor")
    parser.add_argument("--config", type=Path, required=True, help=f"JSON, see {kind.__name__}")
    path = parser.parse_args().config
    try:
        config = statements.parse_config(kind, path.read_text())
        with Path(config.samples_file).open("ab", buffering=0) as file:
            run(config, file)
    except (HomeostatError, OSError) as error:
        print(f"homeostat: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(config: SamplerConfig, file: BinaryIO) -> None:
    priority = raise_priority() if config.raised_priority else "none"
    uvloop.run(_sample(config, priority, file))  # a fifth less CPU a sample than asyncio's own loop


def main() -> None:
    run_monitor(SamplerConfig, "homeostat.monitors.node.sampler", _run)


if __name__ == "__main__":
    main()
