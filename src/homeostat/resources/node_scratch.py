"""The runner's directory on its node: scratch space of the agents, and which act is running.

Below `<state_dir>/runner`: `rsctmp/` is the agents' HA_RSCTMP, `acts/<resource>.json` names the agent
process of a start or stop in flight, so that a runner that comes after a kill -9 waits for it instead of
running a second one beside it; `<resource>.out` and `.err` hold what the last action printed. After a reboot
`rsctmp/` and `acts/` are emptied, as OCF demands of its scratch space.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from homeostat.contracts.roles import pid_file_of, scratch_of
from homeostat.kernel.processes import Identity

_log = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ActInFlight:
    """The agent process of an act. `deadline_ns` is on CLOCK_BOOTTIME."""

    verb: str
    pid: int
    start_ticks: int
    deadline_ns: int

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_ticks)


class Scratch:
    """The directory `<state_dir>/runner`."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir.absolute() / "runner"
        self.rsctmp = scratch_of(state_dir)
        self._state_dir = state_dir
        self._acts = self._root / "acts"

    def prepare(self) -> None:
        """Make the directories; empty those of an earlier boot."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark, boot_id = self._root / "boot_id", _BOOT_ID.read_text()
        if mark.exists() and mark.read_text() != boot_id:
            shutil.rmtree(self.rsctmp, ignore_errors=True)
            shutil.rmtree(self._acts, ignore_errors=True)
        # 0755: a process of another user may need to find its own files in here.
        self._root.chmod(0o755)
        self.rsctmp.mkdir(mode=0o755, exist_ok=True)
        self._acts.mkdir(mode=0o700, exist_ok=True)
        mark.write_text(boot_id)

    def output_files(self, resource: str) -> tuple[Path, Path]:
        """Where standard output and standard error of a resource's actions go."""
        return self._root / f"{resource}.out", self._root / f"{resource}.err"

    def pid_file(self, resource: str) -> Path:
        """Where ocf:homeostat:process keeps its pid."""
        return pid_file_of(self._state_dir, resource)

    def begin_act(self, resource: str, act: ActInFlight) -> None:
        """Write down an act before it does anything. Atomic; need not survive a reboot, so no fsync."""
        path = self._acts / f"{resource}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(asdict(act)))
        fresh.replace(path)

    def act_in_flight(self, resource: str) -> ActInFlight | None:
        """What an earlier runner began and did not see the end of; None also for an unreadable record."""
        path = self._acts / f"{resource}.json"
        try:
            return ActInFlight(**orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, TypeError):
            _log.warning("%s: not readable; treated as absent", path)
            return None

    def end_act(self, resource: str) -> None:
        """Forget the act."""
        (self._acts / f"{resource}.json").unlink(missing_ok=True)
