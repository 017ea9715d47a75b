"""Every injector's six verbs as the processes that they are, and every way in which nothing may be broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from broken_host import OURS, BrokenHost, one_cpu, own_workers, state, until
from loop_disk import loop_disk

from engines import leave_out, needs
from homeostat.drills.shipped.injectors.node_cpu import CpuTime, busy_share, quota_cpus
from homeostat.drills.shipped.keeper import daemon, machine, orders, steps

AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
# Or it could not read an interpreter below /root.
AS_NOBODY += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
root_only = needs("root")
with_nft = needs("root", "nftables")


def undone(host: BrokenHost, plan: Path) -> None:
    assert host.good("undo", plan)["undone"]
    assert host.good("verify_undone", plan)["undone"]
    assert host.open_faults() == []


@pytest.mark.seed("order kill by exact identities, all of a set, between two stamps")
def test_a_whole_set_is_killed_and_similar_names_live(host: BrokenHost) -> None:
    victims = [host.victim(f"{OURS}-api") for _ in range(3)]
    bystanders = [
        host.victim(f"{OURS}-api-not"),
        host.victim(f"vim {OURS}-api"),
        host.start("dd", stderr=subprocess.DEVNULL),
    ]
    plan = host.order("node_kill", {"command_line": f"{OURS}-api 600"})
    assert host.good("probe", plan) == {"able": True, "missing": []}
    planned = host.good("plan", plan)
    assert {each["pid"] for each in planned["matched"]} == {victim.pid for victim in victims}
    assert all(victim.poll() is None for victim in victims)
    injected = host.good("inject", plan)
    assert injected["before_ns"] <= injected["after_ns"] and injected["signalled"] == injected["of"] == 3
    proof = host.good("prove", plan)
    assert proof["proven"] and proof["gone_by_ns"] > injected["before_ns"]
    assert [victim.wait(10) for victim in victims] == [-signal.SIGKILL] * 3
    undone(host, plan)
    assert all(bystander.poll() is None for bystander in bystanders)


def test_a_pid_file_means_its_process_and_all_below_it(host: BrokenHost) -> None:
    script = "import subprocess; subprocess.run(['/bin/sleep', '600'])"
    parent = host.start("/usr/bin/python3", "-c", script)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    child = int(until(children.read_text, "the child").split()[0])
    pid_file = host.root / "service.pid"
    pid_file.write_text(f"{parent.pid}\n")
    host.permit(profiles={"service": {"pid_file": str(pid_file)}})
    plan = host.order("node_kill", {"profile": "service", "signal": "SIGTERM"})
    planned = host.good("plan", plan)
    assert {each["pid"] for each in planned["matched"]} == {parent.pid, child}
    host.good("inject", plan)
    assert host.good("prove", plan)["proven"]
    assert machine.identify(child) is None


@pytest.mark.parametrize(
    ("signalled", "proven"), [pytest.param(2, True, marks=pytest.mark.slow), (1, True), (0, False)]
)
def test_who_went_with_the_others_is_gone_too(host: BrokenHost, signalled: int, proven: bool) -> None:
    """A balancer's worker ends when its master does: sometimes before its own signal."""
    for _ in range(2):
        host.victim(f"{OURS}-balancer")
    plan = host.order("node_kill", {"command_line": f"{OURS}-balancer 600"})
    host.good("plan", plan)
    assert host.good("inject", plan)["signalled"] == 2
    record = json.loads(plan.read_text())
    record["inject"]["signalled"] = signalled
    plan.write_text(json.dumps(record))
    assert host.run("prove", plan).section["proven"] is proven


def test_a_pid_file_older_than_its_process_is_a_reused_pid(host: BrokenHost) -> None:
    bystander = host.victim(f"{OURS}-bystander")
    pid_file = host.root / "service.pid"
    pid_file.write_text(f"{bystander.pid}\n")
    os.utime(pid_file, (1, 1))
    answer = host.run("plan", host.order("node_kill", {"pid_file": str(pid_file)}))
    assert (answer.code, bystander.poll()) == (4, None)


@pytest.mark.seed("order sabotage: a pattern that matches nothing is an error")
def test_a_pattern_that_matches_nothing_is_an_error(host: BrokenHost) -> None:
    for injector in ("node_kill", "node_freeze"):
        answer = host.run("plan", host.order(injector, {"command_line": f"{OURS}-nobody-has-this"}))
        assert answer.code == 4 and "nothing would be hit" in answer.error and answer.error.count("\n") == 1


def test_a_set_that_changed_since_the_plan_is_not_hit(host: BrokenHost) -> None:
    first = host.victim(f"{OURS}-api")
    plan = host.order("node_kill", {"command_line": f"{OURS}-api 600"})
    host.good("plan", plan)
    second = host.victim(f"{OURS}-api")
    answer = host.run("inject", plan)
    assert answer.code == 4 and "plan again" in answer.error
    assert first.poll() is None and second.poll() is None and host.open_faults() == []


@pytest.mark.seed("order shared processes are hit only with allow_collateral")
def test_shared_processes_need_a_word(host: BrokenHost) -> None:
    victim = host.victim(f"{OURS}-apache")
    host.permit(
        profiles={
            "keystone": {"command_line": f"{OURS}-apache .*"},
            "horizon": {"command_line": f"{OURS}-apache 600"},
        }
    )
    answer = host.run("plan", host.order("node_kill", {"profile": "keystone"}))
    assert answer.code == 5 and "allow_collateral" in answer.error and "horizon" in answer.error
    host.permit(profiles={"keystone": {"command_line": f"{OURS}-apache .*", "shared": True}})
    assert host.run("plan", host.order("node_kill", {"profile": "keystone"})).code == 5
    host.good("plan", host.order("node_kill", {"profile": "keystone", "allow_collateral": True}))
    assert victim.poll() is None


def test_who_asks_init_and_the_keeper_are_never_hit(host: BrokenHost) -> None:
    life = daemon.start(host.keeper)
    folder = str(host.keeper)
    for pattern in (
        rf".*/keeper keep --state {folder} .*",
        r".*homeostat\.drills\.node\.injector plan .*",
    ):
        answer = host.run("plan", host.order("node_kill", {"command_line": pattern}))
        assert answer.code == 5 and "would be hit" in answer.error
    assert orders.status(host.keeper)["keeper"]["pid"] == life["pid"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and write."""
    folder = Path(tempfile.mkdtemp(prefix="hd-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@root_only
@pytest.mark.seed("order sabotage: permission denied")
def test_without_permission_nothing_is_hit_and_the_reason_is_said(open_folder: Path) -> None:
    host = BrokenHost(open_folder)
    host.permit(writable_paths=["/root"])
    victim = host.victim(f"{OURS}-api")
    try:
        for injector, target, word in (
            ("node_kill", {"command_line": f"{OURS}-api 600"}, "no permission to signal"),
            ("node_freeze", {"command_line": f"{OURS}-api 600"}, "no permission to signal"),
            ("node_network", {"does": "cut", "ports": [1]}, "CAP_NET_ADMIN"),
            ("node_network", {"does": "latency", "device": "lo"}, "CAP_NET_ADMIN"),
            ("node_disk", {"folder": "/root"}, "/root"),
        ):
            answer = host.run("plan", host.order(injector, target), AS_NOBODY)
            assert answer.code in (2, 5) and word in answer.error and answer.error.count("\n") == 1, answer
        assert state(victim) == "S"
    finally:
        host.end()


@pytest.mark.seed("order what may be broken is decided on the node: off unless its file says on")
def test_a_node_decides_what_may_be_broken(host: BrokenHost) -> None:
    victim = host.victim(f"{OURS}-api")
    plan = host.order("node_kill", {"command_line": f"{OURS}-api 600"})
    host.good("plan", plan)
    for permitted, word in (
        ({"enabled": False}, "drills.enabled"),
        ({"injectors": ["node_cpu"]}, "node_cpu"),
    ):
        host.permit(**permitted)
        for verb in ("probe", "plan", "inject"):
            answer = host.run(verb, plan)
            assert answer.code == 5 and word in answer.error
    host.config.write_text(json.dumps({"host": "n1", "state_dir": str(host.root / "state")}))
    assert host.run("inject", plan).code == 5
    host.permit()
    orders.halt(host.keeper)
    answer = host.run("inject", plan)
    assert answer.code == 5 and "resume" in answer.error
    assert victim.poll() is None


def test_frozen_processes_go_on_after_the_undo(host: BrokenHost) -> None:
    victims = [host.victim(f"{OURS}-api") for _ in range(2)]
    bystander = host.victim(f"{OURS}-api-not")
    plan = host.order("node_freeze", {"command_line": f"{OURS}-api 600"})
    for verb in ("probe", "plan", "inject", "prove"):
        host.good(verb, plan)
    assert [state(each) for each in (*victims, bystander)] == ["T", "T", "S"]
    early = host.run("verify_undone", plan)
    assert (early.code, early.section["undone"]) == (1, False)
    undone(host, plan)
    assert [state(each) for each in victims] == ["S", "S"]
    assert host.run("prove", plan).code == 1


def test_what_somebody_else_has_stopped_is_left_alone(host: BrokenHost) -> None:
    victim = host.victim(f"{OURS}-api")
    victim.send_signal(signal.SIGSTOP)
    until(lambda: state(victim) == "T", "the stop")
    answer = host.run("plan", host.order("node_freeze", {"command_line": f"{OURS}-api 600"}))
    assert answer.code == 5 and "stopped already" in answer.error


@pytest.mark.seed("order CPU: one pinned worker an allowed processor, proven from /proc/stat")
def test_a_processor_is_full_while_its_worker_lives(host: BrokenHost) -> None:
    cpu = one_cpu()
    plan = host.order("node_cpu", {"cpus": [cpu], "window_s": 0.5})
    for verb in ("probe", "plan", "inject"):
        host.good(verb, plan)
    (worker,) = own_workers(plan)
    assert os.sched_getaffinity(worker.pid) == {cpu}
    proof = host.run("prove", plan)
    (core,) = proof.section["cores"]
    assert core["worker_s"] > 0 and (core["busy"] >= 0.95) == (proof.code == 0) == proof.section["proven"]
    undone(host, plan)
    assert not machine.lives(worker)
    assert host.run("prove", plan).section["proven"] is False


def test_all_allowed_processors_are_meant_when_none_is_named(host: BrokenHost) -> None:
    planned = host.good("plan", host.order("node_cpu", {}))
    assert planned["cpus"] == planned["allowed"] == sorted(os.sched_getaffinity(0))


@pytest.mark.seed("order sabotage: zero cores")
def test_no_processor_is_an_error(host: BrokenHost) -> None:
    for cpus in ([], [4000]):
        answer = host.run("plan", host.order("node_cpu", {"cpus": cpus}))
        assert answer.code == 2 and answer.error.startswith("homeostat: target.cpus")


def test_the_quota_of_a_cgroup_is_seen_in_both_versions(tmp_path: Path) -> None:
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    inner = mount / "a" / "b"
    inner.mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("4:cpu,cpuacct:/a/b\n0::/a/b\n")
    (proc / "mountinfo").write_text(f"30 1 0:1 / {mount} rw - cgroup2 cgroup2 rw\n")
    assert quota_cpus(proc) is None
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert quota_cpus(proc) == 1.5
    (proc / "mountinfo").write_text(f"30 1 0:1 / {mount} rw - cgroup cgroup rw,cpu,cpuacct\n")
    (inner / "cpu.cfs_quota_us").write_text("-1\n")
    assert quota_cpus(proc) is None
    (inner / "cpu.cfs_quota_us").write_text("50000\n")
    (inner / "cpu.cfs_period_us").write_text("100000\n")
    assert quota_cpus(proc) == 0.5


def test_stolen_time_is_not_idle_and_no_time_is_not_busy() -> None:
    assert busy_share(CpuTime(10, 100), CpuTime(15, 200)) == 0.95
    assert busy_share(CpuTime(10, 100), CpuTime(10, 100)) == 0.0


@pytest.mark.seed("order disk: bounded file, direct writes, proven from /proc/diskstats, removed by inode")
def test_a_disk_is_written_and_its_file_removed(host: BrokenHost) -> None:
    target = {"folder": str(host.root), "size_mib": 4, "floor_mib": 64, "window_s": 0.3}
    plan = host.order("node_disk", target)
    for verb in ("plan", "inject"):
        host.good(verb, plan)
    record = json.loads(plan.read_text())
    path = Path(record["plan"]["path"])
    assert path.stat().st_ino == record["inject"]["inode"]
    proof = host.run("prove", plan).section
    assert proof["written_bytes"] > 0
    assert proof["proven"] == ("device" in proof and proof["busy"] >= 0.9 and proof["writes"] > 0)
    assert path.stat().st_size <= 4 << 20
    (worker,) = own_workers(plan)
    undone(host, plan)
    assert not path.exists() and not machine.lives(worker)


def test_a_file_that_took_the_place_of_ours_stays(host: BrokenHost) -> None:
    plan = host.order("node_disk", {"folder": str(host.root), "size_mib": 1, "floor_mib": 64})
    host.good("plan", plan)
    host.good("inject", plan)
    path = Path(json.loads(plan.read_text())["plan"]["path"])
    theirs = host.root / "theirs"
    theirs.write_text("somebody's")
    theirs.replace(path)
    undone(host, plan)
    assert path.read_text() == "somebody's"


def test_a_disk_is_written_only_where_the_node_permits(
    host: BrokenHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (host.root / "link").symlink_to(elsewhere)
    for folder in (elsewhere, host.root / "link", host.root / ".." / elsewhere.name):
        answer = host.run("plan", host.order("node_disk", {"folder": str(folder)}))
        assert answer.code == 5 and "writable_paths" in answer.error


@pytest.fixture
def small_disk(host: BrokenHost) -> Iterator[Path]:
    """A filesystem of 64 MiB with a device of its own."""
    with loop_disk(host.root / "small") as found:
        if found is None:
            leave_out("loop-disk")
        yield found


@pytest.mark.seed("order sabotage: full disk")
def test_a_full_disk_is_an_error_before_during_and_after_the_plan(host: BrokenHost, small_disk: Path) -> None:
    target = {"folder": str(small_disk), "floor_mib": 32, "window_s": 0.2}
    early, late = host.order("node_disk", target), host.order("node_disk", target)
    for plan in (early, late):
        host.good("plan", plan)
    host.good("inject", early)
    assert host.run("prove", early).section["device"].startswith("loop")
    (small_disk / "filler").write_bytes(b"\0" * (40 << 20))
    (worker,) = own_workers(early)
    until(lambda: not machine.lives(worker), "the writer to give way")
    after = host.run("prove", early)
    assert (after.code, after.section["proven"]) == (1, False)
    for verb in ("inject", "plan"):
        answer = host.run(verb, late)
        assert answer.code == 3 and "do not fit" in answer.error
    undone(host, early)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.seed("order disk: bounded file, direct writes, proven from /proc/diskstats, removed by inode")
def test_a_folder_without_a_device_proves_no_busy_disk(host: BrokenHost) -> None:
    with in_memory(host.root / "memory") as folder:
        plan = host.order("node_disk", {"folder": str(folder), "floor_mib": 32, "window_s": 0.2})
        probe = host.run("probe", plan)
        assert (probe.code, probe.section["able"]) == (1, False)
        assert "is tmpfs, with no device in /proc/diskstats" in probe.section["missing"][0]
        for verb in ("plan", "inject"):
            host.good(verb, plan)
        proof = host.run("prove", plan)
        assert (proof.code, proof.section["proven"]) == (1, False)
        assert proof.section["written_bytes"] > 0, "it wrote; that is no proof"
        undone(host, plan)
        assert list(folder.iterdir()) == []


@contextmanager
def in_memory(point: Path) -> Iterator[Path]:
    """A tmpfs of 64 MiB."""
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "hd", str(point)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        leave_out("mount")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", 7000))
print("ready", flush=True)
while True: server.accept()[0].close()
"""
CONNECT = """
import socket, sys
socket.create_connection(("127.0.0.1", 7000), 0.3).close()
"""


def reaches(netns_of: int) -> bool:
    argv = ["nsenter", f"--net=/proc/{netns_of}/ns/net", "/usr/bin/python3", "-c", CONNECT]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def server_apart(host: BrokenHost) -> subprocess.Popen[bytes]:
    """A server in a network namespace of its own."""
    script = f"ip link set lo up && exec -a {OURS}-server /usr/bin/python3 -c '{SERVE}'"
    server = host.start("unshare", "--net", "bash", "-c", script, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return server


@with_nft
@pytest.mark.seed("order network cut by our own table, undone by its name")
def test_a_port_is_cut_in_one_namespace_and_back(host: BrokenHost) -> None:
    server = server_apart(host)
    inside = ["nsenter", f"--net=/proc/{server.pid}/ns/net"]
    subprocess.run([*inside, "nft", "add", "table", "inet", "theirs"], check=True)
    target = {
        "does": "cut",
        "namespace_of": {"command_line": f"{OURS}-server .*"},
        "ports": [7000],
        "window_s": 0.2,
    }
    plan = host.order("node_network", target)
    for verb in ("probe", "plan"):
        host.good(verb, plan)
    assert reaches(server.pid)
    host.good("inject", plan)
    quiet = host.run("prove", plan)
    assert (quiet.code, quiet.section["proven"]) == (1, False) and "no packet" in quiet.section["reason"]
    assert not reaches(server.pid)
    assert host.good("prove", plan)["packets"] > 0
    undone(host, plan)
    assert reaches(server.pid)
    tables = subprocess.run([*inside, "nft", "list", "tables"], check=True, capture_output=True, text=True)
    assert tables.stdout.split("\n") == ["table inet theirs", ""]


@with_nft
def test_a_namespace_that_is_gone_takes_the_cut_with_it(host: BrokenHost) -> None:
    server = server_apart(host)
    plan = host.order("node_network", {"does": "cut", "namespace_of": {"command_line": f"{OURS}-server .*"}})
    host.good("plan", plan)
    host.good("inject", plan)
    server.kill()
    server.wait()
    undone(host, plan)


@needs("root", "iptables")
def test_a_chain_of_iptables_is_removed_with_its_jumps_and_no_other(host: BrokenHost) -> None:
    apart = host.start("unshare", "--net", "/bin/sleep", "600")
    until(
        lambda: Path(f"/proc/{apart.pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino,
        "apart",
    )
    netns = Path(f"/proc/{apart.pid}/ns/net").stat().st_ino
    for words in (
        "-N theirs",
        "-A INPUT -j theirs",
        "-N hd_ours",
        "-A hd_ours -p tcp -j DROP",
        "-I INPUT -j hd_ours",
    ):
        steps.run_tool(netns, "iptables", "-w", "5", *words.split())
    step = steps.step_chain(netns, "iptables", "hd_ours")
    assert steps.verify_step(step)["undone"] is False
    assert steps.undo_step(step)["result"] == "undone"
    assert steps.undo_step(step)["result"] == "already"
    left = steps.run_tool(netns, "iptables", "-S")
    assert left is not None and "hd_ours" not in left and "-A INPUT -j theirs" in left


@needs("root", "iproute2")
def test_a_discipline_is_removed_by_its_handle_and_no_other(host: BrokenHost) -> None:
    apart = host.start("unshare", "--net", "/bin/sleep", "600")
    until(
        lambda: Path(f"/proc/{apart.pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino,
        "apart",
    )
    netns = Path(f"/proc/{apart.pid}/ns/net").stat().st_ino
    words = ["qdisc", "add", "dev", "lo", "root", "handle", "8a01:", "pfifo", "limit", "9"]
    steps.run_tool(netns, "tc", *words)
    theirs, ours = steps.step_qdisc(netns, "lo", "8a02:"), steps.step_qdisc(netns, "lo", "8a01:")
    assert steps.undo_step(theirs)["result"] == "already"
    assert steps.verify_step(ours)["undone"] is False
    assert steps.undo_step(ours)["result"] == "undone"
    assert steps.undo_step(steps.step_qdisc(netns, "gone0", "8a01:"))["result"] == "already"


@root_only
def test_latency_is_injected_or_what_is_missing_is_named(host: BrokenHost) -> None:
    server_apart(host)
    target = {
        "does": "latency",
        "namespace_of": {"command_line": f"{OURS}-server .*"},
        "device": "lo",
        "delay_ms": 5,
    }
    plan = host.order("node_network", target)
    probed = host.run("probe", plan)
    if probed.code != 0:
        assert "netem" in probed.section["missing"][0]
        answer = host.run("plan", plan)
        assert answer.code == 5 and "sch_netem" in answer.error
        return
    for verb in ("plan", "inject"):
        host.good(verb, plan)
    netns = json.loads(plan.read_text())["plan"]["netns"]
    shown = steps.run_tool(netns, "tc", "qdisc", "show", "dev", "lo")
    assert shown is not None and "delay 5ms" in shown
    undone(host, plan)


def test_a_wrong_word_is_one_line(host: BrokenHost) -> None:
    for injector, target in (
        ("node_kill", {"command_line": "("}),
        ("node_kill", {"profile": "no-such"}),
        ("node_kill", {"comand_line": "x"}),
        ("node_kill", {}),
        ("node_network", {"does": "latency"}),
        ("node_disk", {"folder": 7}),
        ("node_cpu", {"window_s": "long"}),
        ("node_network", {"does": "cut", "ports": [70000]}),
        ("node_everything", {}),
    ):
        answer = host.run("plan", host.order(injector, target))
        assert answer.code == 2 and answer.error.count("\n") == 1, answer
