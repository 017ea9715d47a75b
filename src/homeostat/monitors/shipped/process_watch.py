"""Monitor of a service's processes on their own host: which are alive, by exact identity.

    python -m homeostat.monitors.shipped.process_watch --config watch.json

Deaths come by pidfd at once, births by looking into /proc every period, with the kernel's own birth time. Its
sightings go into its own file; it speaks and ends as the sampler does. It never signals anybody, and does not
say whether a process *answers*: that is a sampler's result, at the host's own endpoint. Standard library
only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional

from homeostat.kernel.errors import BadInput, HomeostatError
from homeostat.kernel.processes import Identity, identify, read_stat
from homeostat.monitors.shipped.statements import (
    AliveStatement,
    EndedStatement,
    ProcessChange,
    ReadyStatement,
    Sighting,
    parse_config,
    say,
    sighting_line,
)

HEARTBEAT_NS = 500_000_000
BASELINE_LOOKS = 20
_YOUNG_NS = 2_000_000_000
"""A process may become another program so long after its birth (fork, then exec)."""
_ALL_AGAIN_NS = 1_000_000_000
_NS_PER_MS = 1_000_000
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class WatchConfig:
    """Whom to watch. Written as JSON with these names."""

    name: str
    cmdline: str
    """Regular expression, searched in the arguments joined by blanks; our own process never matches."""
    sightings_file: str
    period_ms: float = 20.0
    """Time between two looks; a process that lives shorter may not be seen."""
    at_least: int = 1
    """So many must be there before the watch says that it is ready."""

    def checked(self) -> WatchConfig:
        """Itself, or BadInput naming the field."""
        try:
            re.compile(self.cmdline)
        except re.error as error:
            raise BadInput("cmdline", self.cmdline, f"a regular expression ({error})") from None
        if not self.cmdline:
            raise BadInput("cmdline", self.cmdline, "a pattern that does not match everything")
        if not 1 <= self.period_ms <= 1000:
            raise BadInput("period_ms", self.period_ms, "1 to 1000, in ms")
        if self.at_least < 1:
            raise BadInput("at_least", self.at_least, "1 or more")
        return self


def parse_watch_config(text: str) -> WatchConfig:
    """The configuration in this JSON; BadInput names the first field that is wrong."""
    return parse_config(WatchConfig, text)


class ProcessWatch:
    """Looks, and remembers whom it saw.

    `leash_fd`: the watch ends when nobody holds its other end any more.
    """

    def __init__(
        self, config: WatchConfig, file: BinaryIO, voice_fd: int, leash_fd: Optional[int] = None
    ) -> None:
        self._config, self._file, self._voice_fd = config, file, voice_fd
        self._leash_fd = leash_fd
        self._pattern = re.compile(config.cmdline)
        self._present: dict[int, Identity] = {}
        self._dead: dict[Identity, int] = {}
        self._pidfds: dict[int, int] = {}
        self._known: dict[int, int] = {}
        self._poll = select.poll()
        if leash_fd is not None:
            self._poll.register(leash_fd, select.POLLIN)
        self._looked_ns = self._all_again_ns = 0
        self._looks = self._good_looks = 0
        self._lateness_max_ns = 0
        self._ready = False
        self.stopping = False

    def run(self) -> None:
        """Until SIGTERM: look, wait for a death or the next look, say something now and then."""
        period_ns = round(self._config.period_ms * _NS_PER_MS)
        due_ns = _now_ns()
        spoke_ns = 0
        while not self.stopping:
            self._await_deaths(due_ns)
            now_ns = _now_ns()
            if now_ns < due_ns:
                continue
            self._lateness_max_ns = max(self._lateness_max_ns, now_ns - due_ns)
            due_ns += ((now_ns - due_ns) // period_ns + 1) * period_ns
            self._look()
            if now_ns - spoke_ns >= HEARTBEAT_NS:
                spoke_ns = now_ns
                say(self._voice_fd, AliveStatement(now_ns, self._looks, time.process_time_ns()))
        for identity in self._dead:
            if _is_zombie(identity):
                self._note(self._looked_ns, ProcessChange.ZOMBIE, identity)
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            os.fsync(self._file.fileno())
        os.set_blocking(self._voice_fd, True)
        say(
            self._voice_fd,
            EndedStatement(_now_ns(), self._looks, 0, self._lateness_max_ns, time.process_time_ns()),
        )

    def _await_deaths(self, until_ns: int) -> None:
        wait_ms = max(0, -(-(until_ns - _now_ns()) // _NS_PER_MS))
        for handle, _ in self._poll.poll(wait_ms):
            if handle == self._leash_fd:
                self.stopping = True
                self._poll.unregister(handle)
            else:
                self._lose(self._pidfds[handle])

    def _look(self) -> None:
        """Everybody who is new, or young enough to have become somebody else."""
        began_ns = _now_ns()
        everybody = began_ns - self._all_again_ns >= _ALL_AGAIN_NS
        if everybody:
            self._all_again_ns = began_ns
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  50 times a second
        self._known = {pid: since for pid, since in self._known.items() if pid in pids}
        for pid in pids:
            since_ns = self._known.setdefault(pid, began_ns)
            if everybody or began_ns - since_ns < _YOUNG_NS:
                self._judge(pid)
        self._looks += 1
        self._looked_ns = began_ns
        enough = len(self._present) >= self._config.at_least
        self._good_looks = self._good_looks + 1 if enough else 0
        if not self._ready and self._good_looks >= BASELINE_LOOKS:
            self._ready = True
            now_ns = _now_ns()
            say(self._voice_fd,
                ReadyStatement(
                    now_ns, now_ns, os.getpid(), self._looks, 0, 0, self._lateness_max_ns,
                    time.process_time_ns(), "none",
                )
            )  # fmt: skip

    def _judge(self, pid: int) -> None:
        matches = pid != os.getpid() and self._pattern.search(command_line(pid)) is not None
        if pid in self._present:
            if not matches:
                self._lose(pid)
        elif matches:
            self._find(pid)

    def _find(self, pid: int) -> None:
        """Opened first, identified then: the handle and the identity are of one process."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        identity = identify(pid)
        if identity is None or identity in self._dead:
            os.close(handle)
            return
        self._present[pid] = identity
        self._pidfds[handle] = pid
        self._poll.register(handle, select.POLLIN)
        self._note(self._looked_ns, ProcessChange.PRESENT, identity)

    def _lose(self, pid: int) -> None:
        identity = self._present.pop(pid)
        handle = next(handle for handle, its in self._pidfds.items() if its == pid)
        self._poll.unregister(handle)
        os.close(handle)
        del self._pidfds[handle]
        self._dead[identity] = _now_ns()
        self._note(self._looked_ns, ProcessChange.GONE, identity)

    def _note(self, after_ns: int, change: ProcessChange, identity: Identity) -> None:
        born_ns = identity.start_ticks * _TICK_NS
        self._file.write(sighting_line(Sighting(after_ns, _now_ns(), change, identity, born_ns)).encode())


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def command_line(pid: int) -> str:
    """The arguments joined by blanks; empty for a zombie, a kernel thread and nobody."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _is_zombie(identity: Identity) -> bool:
    found = read_stat(identity.pid)
    return found is not None and found.state == "Z" and found.start_ticks == identity.start_ticks


def main() -> None:
    """The command: 0 after SIGTERM, 2 and one line when the configuration is not acceptable."""
    parser = argparse.ArgumentParser(prog="homeostat.monitors.shipped.process_watch", description="one watch")
    parser.add_argument("--config", type=Path, required=True, help="JSON, see WatchConfig")
    path = parser.parse_args().config
    try:
        config = parse_watch_config(path.read_text())
        with Path(config.sightings_file).open("ab", buffering=0) as file:
            os.set_blocking(sys.stdout.fileno(), False)
            watch = ProcessWatch(config, file, sys.stdout.fileno())

            def stop(_number: int, _frame: object) -> None:
                watch.stopping = True

            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            watch.run()
    except (HomeostatError, OSError) as error:
        print(f"homeostat: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
