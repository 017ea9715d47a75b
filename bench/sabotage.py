"""Eight spoiled drills: how often each tool says that all is well. Homeostat beside Chaos Toolkit.

    make bench B=sabotage       about four minutes; QUICK=1 makes it less than one on a quiet machine

Ours are the drills of `tests/drills/sabotages.py`, run by the program on a small real site. Beside it, on a site
of its own, Chaos Toolkit 1.19 with the same acts, a hypothesis that the first service answers, asked continuously,
and roll-backs always: what it can express. It needs root, for a small filesystem, a control group and another user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "drills"))
import sabotages
from drilled_site import DrilledSite, drilled_site, until
from outage import PEER_HOME, install_peer, say

RESULT = Path(__file__).parent / "results" / "sabotage.json"
QUICK = bool(os.environ.get("QUICK"))
REPEATS = 1 if QUICK else 3
FREQUENCY_S = 0.3
OUT_S = sabotages.OUT_S
NOT_EXPRESSIBLE = {"dead monitor": "its probes are threads of the tool: none of them can die alone"}
NO_PROCESS = "import sys; sys.exit('no process found')"
"""What `pkill` does with a pattern of nobody: it says so by its exit code."""


@contextmanager
def site() -> Iterator[DrilledSite]:
    """A small real site in a folder that another user may be let into."""
    root = Path(tempfile.mkdtemp(prefix="hd-"))
    try:
        with drilled_site(root) as made:
            yield made
    finally:
        shutil.rmtree(root)


def ours(name: str) -> str:
    """The verdict."""
    with site() as made:
        ran = sabotages.EIGHT[name](made)
    return str(ran.report.get("verdict", f"refused, exit {ran.code}"))


def pid_of(made: DrilledSite, host: str) -> int:
    """Of a host's service."""
    return int((made.root / host / "ready").read_text())


class Chaos:
    """One experiment of Chaos Toolkit."""

    def __init__(self, made: DrilledSite) -> None:
        self.site, self.journal = made, made.root / "journal.json"

    def run(self, argv: list[str], during: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
            lasts_s: float = 1.0) -> str:  # fmt: skip
        """`PASS` when it completed and saw no deviation; else what it says."""
        probe = {"type": "probe", "name": "answers", "tolerance": 200,
                 "provider": {"type": "http", "url": f"http://127.0.0.1:{self.site.ports['n1']}/", "timeout": 1}}  # fmt: skip
        act = {"type": "action", "name": "break",
               "provider": {"type": "process", "path": argv[0], "arguments": argv[1:]}}  # fmt: skip
        wait = {"type": "action", "name": "wait",
                "provider": {"type": "process", "path": "sleep", "arguments": [str(lasts_s)]}}  # fmt: skip
        given = {"version": "1.0.0", "title": "sabotage", "description": "bench", "rollbacks": [],
                 "steady-state-hypothesis": {"title": "up", "probes": [probe]}, "method": [act, wait]}  # fmt: skip
        path = self.site.root / "experiment.json"
        path.write_text(json.dumps(given))
        words = [str(PEER_HOME / "bin" / "chaos"), "--no-version-check", "--log-file", str(self.site.root / "chaos.log"),
                 "run", "--hypothesis-strategy", "continuously", "--hypothesis-frequency", str(FREQUENCY_S),
                 "--rollback-strategy", "always", "--journal-path", str(self.journal), str(path)]  # fmt: skip
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.site.root,
            env=os.environ | self.site.env, start_new_session=True,
        ) as tool:  # fmt: skip
            during(tool)
            code = tool.wait(120)
        said = json.loads(self.journal.read_text())
        if (code, said["status"], said["deviated"]) == (0, "completed", False):
            return "PASS"
        return "deviated" if said["deviated"] else str(said["status"])


def kill(pid: int) -> list[str]:
    """The act of most of them."""
    return ["kill", "-KILL", str(pid)]


def nothing(chaos: Chaos) -> str:
    """The pattern is of no process."""
    return chaos.run([sys.executable, "-c", NO_PROCESS])


def denied(chaos: Chaos) -> str:
    """Another user may not signal the service."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return chaos.run([*user, *kill(pid_of(chaos.site, "n1"))])


def wrong_host(chaos: Chaos) -> str:
    """The second host is hit, the first one asked."""
    return chaos.run(kill(pid_of(chaos.site, "n2")))


def zero_cores(chaos: Chaos) -> str:
    """One stressor a core, of none."""
    return chaos.run(
        ["sh", "-c", "for core in $CORES; do timeout 1 dd if=/dev/zero of=/dev/null & done; wait"]
    )


def full_disk(chaos: Chaos) -> str:
    """Writing ends at once: there is no room."""
    with sabotages.small_disk(chaos.site.root / "small") as folder:
        (folder / "filler").write_bytes(b"\0" * (63 << 20))
        return chaos.run(["dd", "if=/dev/zero", f"of={folder}/test.dbf", "bs=1M", "count=32"])


def frozen(chaos: Chaos) -> str:
    """The tool, which is the prober, stands still while the service is out."""
    chaos.site.returns_after("n1", OUT_S)
    victim = pid_of(chaos.site, "n1")

    def freeze(tool: subprocess.Popen[bytes]) -> None:
        until(lambda: not Path(f"/proc/{victim}").exists() or tool.poll() is not None, "the kill", 60)
        os.kill(tool.pid, signal.SIGSTOP)
        try:
            time.sleep(OUT_S + 1)
        finally:
            os.kill(tool.pid, signal.SIGCONT)

    return chaos.run(kill(victim), freeze, OUT_S + 2)


def clock(chaos: Chaos) -> str:
    """The wall clock is set back by a minute while the service is out."""
    chaos.site.returns_after("n1", OUT_S)
    victim = pid_of(chaos.site, "n1")

    def step(tool: subprocess.Popen[bytes]) -> None:
        until(lambda: not Path(f"/proc/{victim}").exists() or tool.poll() is not None, "the kill", 60)
        sabotages.step(chaos.site, -60)

    with sabotages.stepping(chaos.site):
        return chaos.run(kill(victim), step, OUT_S + 2)


THEIRS: dict[str, Callable[[Chaos], str]] = {
    "pattern matches nothing": nothing,
    "permission denied": denied,
    "wrong host": wrong_host,
    "zero cores": zero_cores,
    "full disk": full_disk,
    "frozen prober": frozen,
    "clock step of 60 s": clock,
}


def theirs(name: str) -> str:
    """What the peer says of it."""
    if name in NOT_EXPRESSIBLE:
        return "not expressible"
    with site() as made:
        return THEIRS[name](Chaos(made))


def several(who: str, tell: Callable[[str], str]) -> dict[str, Counter[str]]:
    """Every sabotage, several times."""
    found: dict[str, Counter[str]] = {name: Counter() for name in sabotages.EIGHT}
    for turn in range(REPEATS):
        for name in sabotages.EIGHT:
            verdict = tell(name)
            say(f"{who}, {turn + 1} of {REPEATS}: {name}: {verdict}")
            found[name][verdict] += 1
    return found


def words(found: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))


def main() -> None:
    """Run, print, write the result."""
    peer, load = install_peer(), os.getloadavg()[0]
    began_s = time.monotonic()
    with ThreadPoolExecutor(2) as both:
        one, other = both.submit(several, "homeostat", ours), both.submit(several, "chaos toolkit", theirs)
        mine, beside = one.result(), other.result()
    passed = sum(found["PASS"] for found in mine.values())
    rows = [
        {"what": name, "n": REPEATS, "homeostat": dict(mine[name]), "chaos_toolkit": dict(beside[name])}
        for name in sabotages.EIGHT
    ]
    result = {
        "name": "sabotage", "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {"quick": QUICK, "repeats": REPEATS, "peer": peer, "peer_frequency_s": FREQUENCY_S,
                 "not_expressible": NOT_EXPRESSIBLE},
        "machine": {"cores": os.cpu_count(), "load": round(load, 1)},
        "seconds": round(time.monotonic() - began_s, 1), "rows": rows,
        "passed": {"homeostat": passed, "chaos_toolkit": sum(found["PASS"] for found in beside.values())},
        "of": {"homeostat": len(rows) * REPEATS,
               "chaos_toolkit": (len(rows) - len(NOT_EXPRESSIBLE)) * REPEATS},
        "promises": [{"what": "PASS of a spoiled drill", "target": 0, "measured": passed, "met": passed == 0}],
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for name in sabotages.EIGHT:
        print(f"{name:28}{words(mine[name]):28}{words(beside[name])}")
    print(f"PASS: ours {result['passed']}, of {result['of']}; written to {RESULT}")


if __name__ == "__main__":
    main()
