"""Monitor process that runs one command after the other, as people do; each call is one sample (closed
loop).

    python -m homeostat.monitors.node.command_sampler --config monitor.json

A call is good when the command ends with 0. The next one begins when the last has ended, at least a period
after its beginning; one that has not ended by its deadline is killed with its whole process group. A closed
loop waits through an outage with the service, so its bounds are wide and it can only confirm (`outage`). It
speaks and writes as `node.sampler` does and is watched by the same `supervision`; the call that is under way
at SIGTERM has its end first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from homeostat.kernel.errors import BadInput
from homeostat.kernel.processes import die_with_parent
from homeostat.monitors.node.prober import now_ns
from homeostat.monitors.node.sampler import HEARTBEAT_S, run_monitor
from homeostat.monitors.outage import ProbeAnswer, Sample, sample_line
from homeostat.monitors.shipped import statements

_NS_PER_S = 1_000_000_000
_LAST_WORDS = 400
_TOLD = 3
"""So many failed calls are told in words; the next ones say the same."""
_ANOTHER_CLOUD = "OS_"
"""Variables of OpenStack's client begin so; those of who started us might name another cloud."""


@dataclass(frozen=True, slots=True)
class CommandConfig:
    """What one monitor does. Written as JSON with these names."""

    name: str
    argv: tuple[str, ...]
    samples_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside our own, without what of it is OpenStack's."""
    period_ms: float = 1_000.0
    """At least so long between the beginnings of two calls."""
    phase_ms: float = 0.0
    """So long after the start the first call begins."""
    deadline_ms: float = 30_000.0
    """A call that has not ended by then is killed. More than the command ever needs."""
    baseline_samples: int = 2
    """So many good calls in a row before the monitor says that it is ready."""

    def checked(self) -> CommandConfig:
        """Itself, or BadInput naming the field."""
        for name in ("period_ms", "deadline_ms"):
            if not 0 < getattr(self, name) <= 3_600_000:
                raise BadInput(name, getattr(self, name), "more than 0 and at most an hour, in ms")
        if self.phase_ms < 0:
            raise BadInput("phase_ms", self.phase_ms, "0 or more, in ms")
        if self.baseline_samples < 1:
            raise BadInput("baseline_samples", self.baseline_samples, "1 or more")
        if not self.argv or not self.argv[0] or not all(isinstance(word, str) for word in self.argv):
            raise BadInput("argv", self.argv, "a command and its words")
        return self


class CommandSampler:
    """The calls, the file and the statements of one monitor."""

    def __init__(self, config: CommandConfig, file: BinaryIO, voice_fd: int) -> None:
        self._config, self._file, self._voice_fd = config, file, voice_fd
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._over = False
        self._samples = self._good_in_a_row = self._rho_ns = self._since_ns = 0
        self._ready, self._told = False, 0

    async def run(self) -> None:
        """Until SIGTERM; the call under way has its end, the file is on disk and the last word is said."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._beat()
        await self._stopped_by(now_ns() + round(self._config.phase_ms * 1e6))
        while not self._stopping.is_set():
            sample = await self._call()
            self._note(sample)
            await self._stopped_by(sample.sent_ns + round(self._config.period_ms * 1e6))
        os.fsync(self._file.fileno())
        self._over = True
        os.set_blocking(self._voice_fd, True)
        statements.say(self._voice_fd, statements.EndedStatement(now_ns(), self._samples, 0, 0, _cpu_ns()))

    async def _stopped_by(self, at_ns: int) -> None:
        """Until then, or until it is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, at_ns - now_ns()) / _NS_PER_S):
                await self._stopping.wait()

    async def _call(self) -> Sample:
        with tempfile.TemporaryFile() as told:
            began_ns = now_ns()
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  a fork, whose end is awaited by its pidfd
                    self._config.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=told,
                    env=_environment(self._config.environment),
                    start_new_session=True,
                    preexec_fn=die_with_parent(),
                )
            except OSError as error:
                self._tell_before_ready(str(error))
                return Sample(began_ns, began_ns, now_ns(), ProbeAnswer.CLIENT_ERROR, True)
            ended = await self._ended(process.pid)
            done_ns = now_ns()
            # Its whole group, also what it left behind; the pid is its own until it is waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            if not ended:
                self._tell_before_ready(f"no end within {self._config.deadline_ms / 1000:g} s")
                return Sample(began_ns, began_ns, done_ns, ProbeAnswer.TIMEOUT, True)
            if code:
                self._tell_before_ready(f"ended with {code}: {_last_line(told)}")
            answer = ProbeAnswer.ERROR if code else ProbeAnswer.OK
            return Sample(began_ns, began_ns, done_ns, answer, True, abs(code))

    async def _ended(self, pid: int) -> bool:
        """Whether it ended within its deadline. It is not waited for here: its pid stays its own."""
        pidfd = os.pidfd_open(pid)
        end = asyncio.Event()
        self._loop.add_reader(pidfd, end.set)
        try:
            async with asyncio.timeout(self._config.deadline_ms / 1000):
                await end.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _note(self, sample: Sample) -> None:
        """Into the file, and towards the barrier; whatever is not good begins it anew."""
        self._file.write(sample_line(sample).encode())
        self._samples += 1
        if self._ready:
            return
        if sample.answer is not ProbeAnswer.OK:
            self._good_in_a_row = self._rho_ns = 0
            return
        if not self._good_in_a_row:
            self._since_ns = sample.scheduled_ns
        self._good_in_a_row += 1
        self._rho_ns = max(self._rho_ns, sample.done_ns - sample.sent_ns)
        if self._good_in_a_row >= self._config.baseline_samples:
            self._ready = True
            late_ns = round(self._config.deadline_ms * 1e6)
            statements.say(self._voice_fd,
                statements.ReadyStatement(
                    now_ns(), self._since_ns, os.getpid(), self._samples, self._rho_ns, late_ns,
                    0, _cpu_ns(), "none",
                )
            )  # fmt: skip

    def _beat(self) -> None:
        """Also while the last call has its end: who falls silent is lost."""
        if not self._over:
            statements.say(self._voice_fd, statements.AliveStatement(now_ns(), self._samples, _cpu_ns()))
            self._loop.call_later(HEARTBEAT_S, self._beat)

    def _tell_before_ready(self, why: str) -> None:
        """To people, who else would only see that there is no baseline. Afterwards it is an outage."""
        if not self._ready and self._told < _TOLD:
            self._told += 1
            command = " ".join(self._config.argv)
            print(f"homeostat: {self._config.name}: `{command}`: {why}", file=sys.stderr, flush=True)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_ANOTHER_CLOUD)}
    return ours | dict(more)


def _last_line(told: BinaryIO) -> str:
    size = told.seek(0, os.SEEK_END)
    told.seek(max(0, size - _LAST_WORDS))
    lines = told.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _cpu_ns() -> int:
    """Ours and that of every call so far: the client is the cost of this monitor."""
    calls = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + round((calls.ru_utime + calls.ru_stime) * 1e9)


async def _sample(config: CommandConfig, file: BinaryIO) -> None:
    voice_fd = sys.stdout.fileno()
    os.set_blocking(voice_fd, False)
    await CommandSampler(config, file, voice_fd).run()


def _run(config: CommandConfig, file: BinaryIO) -> None:
    asyncio.run(_sample(config, file))


def main() -> None:
    run_monitor(CommandConfig, "homeostat.monitors.node.command_sampler", _run)


if __name__ == "__main__":
    main()
