"""The shipped agent ocf:homeostat:process, called as any OCF manager would call it."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from played_node import eventually

from engines import needs
from homeostat.kernel.processes import Identity, identify, is_alive, send_signal
from homeostat.resources.node.agents import recorded_identity
from homeostat.resources.settings import shipped_agents

AGENT = shipped_agents() / "homeostat" / "process"


class Instance:
    """One resource of the agent, in its own scratch directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rsctmp = directory / "rsctmp"
        self.ready = directory / "ready"
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HA_RSCTMP": str(self.rsctmp),
            "OCF_ROOT": "/usr/lib/ocf",
            "OCF_RESOURCE_INSTANCE": "r1",
            "OCF_RESKEY_command": "sleep 300",
            "OCF_RESKEY_CRM_meta_timeout": "20000",
        }
        self.seen: set[Identity] = set()

    def set(self, **parameters: object) -> None:
        self.env |= {f"OCF_RESKEY_{name}": str(value) for name, value in parameters.items()}

    def script(self, text: str) -> None:
        """Let the process be this shell script."""
        self.set(command=f"sh -c {shlex.quote(text)}")

    def does(self, verb: str) -> int:
        return self.ran(verb).returncode

    def ran(self, verb: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([AGENT, verb], env=self.env, capture_output=True, text=True, timeout=120)
        if (identity := recorded_identity(self.pid_file)) is not None:
            self.seen.add(identity)
        return done

    @property
    def pid_file(self) -> Path:
        return self.rsctmp / "homeostat-process-r1.pid"

    @property
    def process(self) -> Identity:
        identity = recorded_identity(self.pid_file)
        assert identity is not None and is_alive(identity)
        return identity


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path)
    yield made
    for identity in made.seen:
        if is_alive(identity):
            os.killpg(identity.pid, signal.SIGKILL)


def test_its_life(instance: Instance) -> None:
    assert instance.does("validate-all") == 0
    assert instance.does("monitor") == 7
    assert instance.does("stop") == 0
    assert instance.does("start") == 0
    first = instance.process
    assert (instance.does("monitor"), instance.does("start")) == (0, 0)
    assert instance.process == first
    assert os.getsid(first.pid) == first.pid
    assert instance.does("stop") == 0
    assert not is_alive(first)
    assert (instance.does("monitor"), instance.does("stop")) == (7, 0)
    left = [each.name for each in instance.rsctmp.iterdir()]
    assert left == [".homeostat-process-r1.spare"], "a block for the pid of the next start"


def test_a_start_and_a_monitor_cost_little(instance: Instance) -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(7):
        began = spent()
        assert instance.does("start") == 0 and instance.does("monitor") == 0
        took.append(spent() - began)
        assert instance.does("stop") == 0
    assert min(took) < 0.06  # 15 ms of the processor, which a busy machine does not make more


def test_death_is_not_running(instance: Instance) -> None:
    instance.does("start")
    send_signal(instance.process, signal.SIGKILL)
    eventually(lambda: instance.does("monitor") == 7, "not running")
    assert instance.does("start") == 0
    assert instance.does("monitor") == 0


def test_what_a_signal_stopped_is_an_error_until_it_goes_on(instance: Instance) -> None:
    instance.does("start")
    send_signal(instance.process, signal.SIGSTOP)
    eventually(lambda: instance.does("monitor") == 1, "an error")
    assert "is stopped by a signal" in instance.ran("monitor").stderr
    send_signal(instance.process, signal.SIGCONT)
    eventually(lambda: instance.does("monitor") == 0, "it runs")
    stopped = instance.process
    send_signal(stopped, signal.SIGSTOP)
    assert instance.does("stop") == 0
    assert not is_alive(stopped)


def test_a_zombie_is_not_running(instance: Instance, child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert identity is not None
    instance.rsctmp.mkdir()
    instance.pid_file.write_text(f"{identity.pid} {identity.start_ticks}\n")
    assert instance.does("monitor") == 0
    child.kill()
    eventually(lambda: identify(child.pid) is None, "a zombie")
    assert instance.does("monitor") == 7
    assert instance.does("stop") == 0


@pytest.mark.parametrize("content", ["{pid} 1", "{pid}", "", "0 0", "-1 5", "999999999 4", "; reboot", "a b"])
def test_a_stale_or_damaged_pid_file_is_not_running_and_hurts_nobody(
    instance: Instance, content: str, child: subprocess.Popen[bytes]
) -> None:
    instance.rsctmp.mkdir()
    instance.pid_file.write_text(content.format(pid=child.pid))
    assert instance.does("monitor") == 7
    assert instance.does("stop") == 0
    instance.pid_file.write_text(content.format(pid=child.pid))
    assert instance.does("start") == 0
    assert instance.process.pid != child.pid
    assert child.poll() is None


@pytest.mark.seed("004 B8: start returns when the resource is ready, not before")
def test_start_returns_when_ready_and_not_before(instance: Instance) -> None:
    instance.set(ready_file=instance.ready)
    instance.ready.touch()  # left over from an earlier life: start must not believe it
    instance.script(f"sleep 0.5; touch {instance.ready}; exec sleep 300")
    began = time.monotonic()
    assert instance.does("start") == 0
    assert time.monotonic() - began >= 0.5
    assert instance.does("monitor") == 0
    instance.ready.unlink()
    monitor = instance.ran("monitor")
    assert monitor.returncode == 1 and "is missing" in monitor.stderr
    assert instance.does("stop") == 0


def test_a_start_that_is_not_ready_in_time_says_so_before_it_would_be_killed(instance: Instance) -> None:
    instance.set(ready_file=instance.ready, CRM_meta_timeout=2000)
    start = instance.ran("start")
    assert start.returncode == 1 and "ocf-exit-reason:not ready after 1 s" in start.stderr
    assert instance.does("stop") == 0


@pytest.mark.parametrize("ready", [True, False])
def test_a_process_that_ends_before_it_is_ready_fails_the_start(instance: Instance, ready: bool) -> None:
    log = instance.directory / "log"
    instance.set(log_file=log)
    if ready:
        instance.set(ready_file=instance.ready)
    instance.script("echo cannot bind; exit 3")
    start = instance.ran("start")
    assert start.returncode == 1 and f"its output is in {log}" in start.stderr
    assert log.read_text() == "cannot bind\n"
    assert instance.does("monitor") == 7


@pytest.mark.seed("004 B4: report how it stopped, clean or forced")
def test_a_clean_stop_is_silent_and_a_forced_one_is_not(instance: Instance) -> None:
    instance.does("start")
    assert "ocf-exit-reason" not in instance.ran("stop").stderr
    instance.script("trap '' TERM; while :; do sleep 0.05; done")
    instance.set(stop_grace_s=1)
    instance.does("start")
    process = instance.process
    stop = instance.ran("stop")
    assert stop.returncode == 0
    assert "ocf-exit-reason:did not end within 1 s of SIGTERM: killed" in stop.stderr
    assert not is_alive(process)


@pytest.mark.seed("004 B3, B7: the forced end comes before the operation's own timeout")
@pytest.mark.parametrize(("timeout_ms", "killed_after_s"), [(3000, 1), (1000, 0)])
def test_the_kill_comes_before_the_timeout(instance: Instance, timeout_ms: int, killed_after_s: int) -> None:
    instance.script("trap '' TERM; while :; do sleep 0.05; done")
    instance.set(stop_grace_s=600)
    instance.does("start")
    instance.set(CRM_meta_timeout=timeout_ms)
    stop = instance.ran("stop")
    assert stop.returncode == 0
    assert f"did not end within {killed_after_s} s of SIGTERM: killed" in stop.stderr


def test_a_stop_is_over_when_nobody_is_left(instance: Instance) -> None:
    note = instance.directory / "child"
    instance.script(f"(trap '' TERM; echo $$ > /dev/null; exec sleep 300) & echo $! > {note}; wait")
    instance.set(stop_grace_s=1)
    instance.does("start")
    child = identify(int(eventually(lambda: note.exists() and note.read_text().strip(), "the child")))
    assert child is not None
    assert instance.does("stop") == 0
    assert not is_alive(child)


def test_what_a_dead_process_leaves_running_is_an_error_until_it_is_stopped(instance: Instance) -> None:
    note = instance.directory / "child"
    instance.script(f"sleep 300 & echo $! > {note}; wait")
    instance.does("start")
    child = identify(int(eventually(lambda: note.exists() and note.read_text().strip(), "the child")))
    assert child is not None
    parent = instance.process
    send_signal(parent, signal.SIGKILL)
    eventually(lambda: not is_alive(parent), "the parent is gone")
    monitor = instance.ran("monitor")
    assert monitor.returncode == 1 and f"left {child.pid} running" in monitor.stderr
    assert instance.does("stop") == 0
    assert not is_alive(child)
    assert instance.does("monitor") == 7


@pytest.mark.parametrize("name", ["INT", "SIGUSR1", "3"])
def test_the_stop_signal_is_a_setting_and_is_not_ignored_from_birth(instance: Instance, name: str) -> None:
    log = instance.directory / "log"
    instance.set(stop_signal=name, log_file=log, ready_file=instance.ready)
    trap = f"trap 'echo got it; exit 0' {name.removeprefix('SIG')}"
    instance.script(f"{trap}; touch {instance.ready}; while :; do sleep 0.02; done")
    assert instance.does("start") == 0
    assert instance.does("stop") == 0
    assert log.read_text() == "got it\n"


def test_directory_and_environment_reach_the_process(instance: Instance) -> None:
    log, environment = instance.directory / "log", instance.directory / "environment"
    environment.write_text("# a comment\nNAME=a 'b' $(c)\n\n1X=no\nnonsense\nLAST=end")
    instance.set(log_file=log, directory=instance.directory, environment_file=environment)
    instance.script('pwd; echo "$NAME|$LAST"; env | grep OCF_RESKEY; exec sleep 300')
    assert instance.does("start") == 0
    eventually(lambda: log.read_text().count("\n") >= 2, "its output")
    assert log.read_text() == f"{instance.directory}\na 'b' $(c)|end\n"


@needs("root")
def test_it_runs_as_another_user(instance: Instance) -> None:
    instance.set(user="nobody")
    assert instance.does("start") == 0
    status = Path(f"/proc/{instance.process.pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert instance.does("stop") == 0


@pytest.mark.parametrize(
    ("parameters", "code", "why"),
    [
        ({"command": ""}, 6, "command is missing"),
        ({"command": "no-such-program -x"}, 5, "'no-such-program' is not installed"),
        ({"stop_grace_s": "1.5"}, 6, "stop_grace_s"),
        ({"stop_signal": "TERM; reboot"}, 6, "stop_signal"),
        ({"directory": "/none"}, 2, "/none"),
        ({"environment_file": "/none"}, 2, "/none"),
        ({"user": "no-such-user"}, 2, "no-such-user"),
    ],
)
def test_what_cannot_work_is_refused(
    instance: Instance, parameters: dict[str, str], code: int, why: str
) -> None:
    instance.set(**parameters)
    for verb in ("validate-all", "start"):
        done = instance.ran(verb)
        assert done.returncode == code and f"{why}" in done.stderr
        assert done.stderr.startswith("ocf-exit-reason:")
    assert instance.does("monitor") == 7  # a probe must not fail for that
    assert instance.does("stop") == 0


def test_an_unknown_action_is_unimplemented(instance: Instance) -> None:
    assert instance.does("promote") == 3


def test_it_works_without_the_managers_timeout(instance: Instance) -> None:
    del instance.env["OCF_RESKEY_CRM_meta_timeout"]
    assert instance.does("start") == 0
    assert instance.does("monitor") == 0
    assert instance.does("stop") == 0


@needs("run-folder")
def test_it_works_without_a_scratch_directory_given(instance: Instance) -> None:
    del instance.env["HA_RSCTMP"]
    instance.env["OCF_RESOURCE_INSTANCE"] = f"homeostat-test-{os.getpid()}"
    pid_file = Path(f"/run/resource-agents/homeostat-process-homeostat-test-{os.getpid()}.pid")
    assert instance.does("start") == 0
    identity = recorded_identity(pid_file)
    assert identity is not None
    instance.seen.add(identity)
    assert instance.does("stop") == 0
    assert not pid_file.exists()


@needs("ocf-tester")
def test_ocf_tester_passes_it() -> None:
    directory = Path(tempfile.mkdtemp(prefix="ocf-tester-"))
    try:
        directory.chmod(0o755)  # the tester also calls it as nobody
        agent = directory / "process"
        shutil.copy(AGENT, agent)
        argv = ["ocf-tester", "-n", "tested", "-o", "command=sleep 300", str(agent)]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HA_RSCTMP": str(directory), "HOME": "/root"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "passed all tests" in done.stdout
        assert not list(directory.glob("*.pid"))
    finally:
        shutil.rmtree(directory)


@needs("ocf", "ocf-tester")
@pytest.mark.parametrize(
    ("schema", "option"), [("ra-api-1.dtd", "--dtdvalid"), ("metadata.rng", "--relaxng")]
)
def test_its_metadata_is_valid(schema: str, option: str) -> None:
    path = Path("/usr/share/resource-agents") / schema
    document = subprocess.run([AGENT, "meta-data"], capture_output=True, check=True).stdout
    argv = ["xmllint", "--noout", option, str(path), "-"]
    done = subprocess.run(argv, input=document, capture_output=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr.decode()
