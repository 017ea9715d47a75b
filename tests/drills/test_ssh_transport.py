"""Hosts that are reached by SSH alone, over a real SSH server: what is done there, and who is not let in."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from broken_host import identity, state, until
from real_sshd import SshHost, hop, key_pair, needs_sshd, real_sshd, ssh_host

from engines import needs
from homeostat.drills.shipped.keeper import machine, orders
from homeostat.drills.site import SshAccess
from homeostat.drills.transports.port import HostTransport
from homeostat.drills.transports.remote import SshTransport
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed, NotFound, RetryLater
from homeostat.lab.children import end_all, undo_keepers

TOOL = Path(__file__).with_name("ssh_tool.py")
VICTIM = f"hd-{uuid4().hex}"
"""Of this run alone: whoever else drills on this machine must not be hit."""
LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
pytestmark = needs_sshd


@pytest.fixture
async def ssh(tmp_path: Path) -> AsyncIterator[SshHost]:
    """A host that permits everything."""
    with ssh_host(tmp_path) as host:
        yield host
        await host.transport.close()


@pytest.mark.seed(
    "order a host without our process is drilled over SSH: killed by identity, stamps from there"
)
async def test_a_set_is_killed_on_a_host_that_has_only_python3(ssh: SshHost) -> None:
    transport: HostTransport = ssh.transport
    victims = [ssh.broken.victim(VICTIM) for _ in range(2)]
    bystander = ssh.broken.victim(f"{VICTIM}-not")
    record = ssh.order("node_kill", {"command_line": f"{VICTIM} 600"})
    began_ns = machine.now_ns()
    for verb in ("probe", "plan", "inject", "prove"):
        record = await transport.verb(verb, record)
    assert {each["pid"] for each in record["plan"]["matched"]} == {victim.pid for victim in victims}
    assert began_ns < record["inject"]["before_ns"] <= record["inject"]["after_ns"] < machine.now_ns()
    assert record["prove"]["proven"] and record["inject"]["signalled"] == 2
    assert [victim.wait(10) for victim in victims] == [-signal.SIGKILL] * 2
    assert bystander.poll() is None
    assert (await transport.status())["open"] == [record["fault"]]
    before_ns, there_ns, after_ns = machine.now_ns(), await transport.clock_ns(), machine.now_ns()
    assert before_ns < there_ns < after_ns
    (outcome,) = await transport.heal()
    assert (outcome["fault"], outcome["undone"]) == (record["fault"], True)
    assert (await transport.status())["open"] == []
    with pytest.raises(GiveUp, match=r"may have been undone"):
        await transport.renew(record["fault"])


async def test_what_was_frozen_goes_on(ssh: SshHost) -> None:
    victim = ssh.broken.victim(VICTIM)
    record = ssh.order("node_freeze", {"command_line": f"{VICTIM} 600"})
    for verb in ("plan", "inject", "prove"):
        record = await ssh.transport.verb(verb, record)
    assert record["prove"]["proven"] and state(victim) == "T"
    await ssh.transport.renew(record["fault"])
    ssh.permit(enabled=False)  # what was broken before is undone all the same, by a new connection too
    await ssh.transport.close()
    for verb in ("undo", "verify_undone"):
        record = await ssh.transport.verb(verb, record)
    with pytest.raises(NotAllowed, match=r"drills.enabled is false"):
        await ssh.transport.verb("plan", ssh.order("node_freeze", {"command_line": f"{VICTIM} 600"}))
    assert record["undo"]["reason"] == "asked" and record["verify_undone"]["undone"]
    assert state(victim) == "S"


async def test_processor_and_disk_are_kept_busy_by_what_was_sent(ssh: SshHost) -> None:
    cpu = max(os.sched_getaffinity(0))
    disk = {"size_mib": 1, "floor_mib": 64, "window_s": 0.2}
    for injector, target in (("node_cpu", {"cpus": [cpu], "window_s": 0.2}), ("node_disk", disk)):
        record = ssh.order(injector, target)
        for verb in ("probe", "plan", "inject", "prove"):
            record = await ssh.transport.verb(verb, record)
        seen = record["prove"]
        assert seen["cores"][0]["worker_s"] > 0 if injector == "node_cpu" else seen["written_bytes"] > 0
        for verb in ("undo", "verify_undone"):
            record = await ssh.transport.verb(verb, record)
        assert record["verify_undone"]["undone"]
    assert list(ssh.broken.root.glob("homeostat-drill-*")) == []


@pytest.mark.seed("order the undo needs neither the SSH connection nor the tool: both killed, undone in time")
async def test_a_tool_that_is_killed_leaves_nothing_broken(ssh: SshHost) -> None:
    victim = ssh.broken.victim(VICTIM)
    record = ssh.order("node_freeze", {"command_line": f"{VICTIM} 600"}, deadline_s=4.0)
    plan = ssh.broken.root / f"{record['fault']}.json"
    argv = [sys.executable, str(TOOL), ssh.access().model_dump_json(), str(plan)]
    tool = ssh.broken.start(*argv, stdout=subprocess.PIPE)
    assert tool.stdout is not None and tool.stdout.readline() == b"renewed\n"
    assert state(victim) == "T"
    sessions = ssh.server.sessions()
    os.kill(tool.pid, signal.SIGKILL)
    for pid in sessions:
        os.kill(pid, signal.SIGKILL)
    outcome = ssh.broken.outcome(plan)
    assert (outcome["reason"], outcome["undone"], outcome["within_deadline"]) == ("lapsed", True, True)
    assert state(victim) == "S"


async def test_after_a_lost_connection_the_next_question_makes_another(ssh: SshHost) -> None:
    victim = ssh.broken.victim(VICTIM)
    record = ssh.order("node_freeze", {"command_line": f"{VICTIM} 600"})
    for verb in ("plan", "inject"):
        record = await ssh.transport.verb(verb, record)
    await ssh.transport.renew(record["fault"])
    for pid in ssh.server.sessions():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(RetryLater, match=r"the SSH connection ended"):
        await ssh.transport.renew(record["fault"])
    await ssh.transport.renew(record["fault"])
    assert state(victim) == "T"
    assert [one["undone"] for one in await ssh.transport.heal()] == [True]
    assert state(victim) == "S"


@pytest.mark.seed("order what may be broken is decided on the host itself: off unless its own file says on")
async def test_the_host_decides_what_may_be_broken(ssh: SshHost) -> None:
    victim = ssh.broken.victim(VICTIM)
    record = ssh.order("node_kill", {"command_line": f"{VICTIM} 600"})
    ssh.permitted.unlink()
    with pytest.raises(NotAllowed, match=r"drills are not permitted there: it has no .*drills.json"):
        await ssh.transport.verb("plan", record)
    ssh.permit(enabled=False)
    with pytest.raises(NotAllowed, match=r"drills.enabled is false"):
        await ssh.transport.verb("plan", record)
    assert not ssh.state.exists()  # nothing is written on a host that does not want it
    ssh.permit(injectors=["node_cpu"])
    with pytest.raises(NotAllowed, match=r"allows node_cpu; not node_kill"):
        await ssh.transport.verb("plan", record)
    ssh.permit(injectors=["node_explode"])
    with pytest.raises(
        BadInput, match=r"injectors: 'node_explode' is not accepted; it must be among node_kill"
    ):
        await ssh.transport.verb("plan", record)
    ssh.permit(profiles={"web": {"comand_line": "x"}})
    with pytest.raises(BadInput, match=r"profiles.web.comand_line: .* known here: cgroup, command_line"):
        await ssh.transport.verb("plan", record)
    ssh.permit()
    ssh.permitted.chmod(0o666)
    with pytest.raises(NotAllowed, match=r"can be written by others"):
        await ssh.transport.verb("plan", record)
    ssh.permitted.chmod(0o600)
    record = await ssh.transport.verb("plan", record)
    ssh.permit(enabled=False)
    with pytest.raises(NotAllowed, match=r"drills.enabled is false"):
        await ssh.transport.verb("inject", record)
    ssh.permit()
    orders.halt(ssh.broken.keeper)
    with pytest.raises(NotAllowed, match=r"halted"):
        await ssh.transport.verb("inject", record)
    assert victim.poll() is None


async def test_errors_mean_the_same_as_on_a_node(ssh: SshHost) -> None:
    with pytest.raises(NotFound, match=r"nothing would be hit"):
        await ssh.transport.verb("plan", ssh.order("node_kill", {"command_line": "hd-nobody-has-this"}))
    with pytest.raises(
        BadInput, match=r"^target.profile: 'x' is not accepted; known on this node: .*haproxy"
    ):
        await ssh.transport.verb("plan", ssh.order("node_kill", {"profile": "x"}))
    with pytest.raises(BadInput, match=r"^inject: 'plan' is not accepted|run `plan` on this file first"):
        await ssh.transport.verb("inject", ssh.order("node_kill", {"command_line": f"{VICTIM} 600"}))


@pytest.mark.seed("order known hosts only: an unknown or changed host key is refused, with the remedy")
async def test_a_host_key_that_is_not_known_is_refused(ssh: SshHost, tmp_path: Path) -> None:
    known = ssh.server.known_hosts
    right = known.read_text()
    known.write_text(right.replace(f":{ssh.server.port}", ":1"))
    with pytest.raises(NotAllowed, match=r"is not in .*ssh-keyscan -p .*compare"):
        await ssh.transport.clock_ns()
    ssh.server.know(key_pair(tmp_path / "other").with_suffix(".pub"))
    with pytest.raises(NotAllowed, match=r"is another one than in .*ssh-keygen -R '\[127.0.0.1\]:"):
        await ssh.transport.clock_ns()
    known.unlink()
    with pytest.raises(BadInput, match=r"ssh.known_hosts_file"):
        await ssh.transport.clock_ns()
    assert not ssh.state.exists()
    known.write_text(right)
    assert await ssh.transport.clock_ns() > 0


async def test_who_has_no_key_is_not_let_in(ssh: SshHost, tmp_path: Path) -> None:
    stranger = SshTransport("c1", ssh.access(key_file=key_pair(tmp_path / "strange")))
    with pytest.raises(NotAllowed, match=r"refuses the login; .*authorized_keys"):
        await stranger.clock_ns()
    for wrong, word in ((tmp_path / "none", "a file that is there"), (ssh.permitted, "a private key")):
        with pytest.raises(BadInput, match=f"ssh.key_file: .*{word}"):
            await SshTransport("c1", ssh.access(key_file=wrong)).clock_ns()


async def test_a_host_that_does_not_answer_is_said_to(ssh: SshHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RetryLater, match=f"c1: no SSH to .*@127.0.0.1:{port}"):
        await SshTransport("c1", ssh.access(port=port)).clock_ns()


@pytest.mark.seed("order a host behind a jump host")
async def test_a_host_behind_a_jump_host(ssh: SshHost, tmp_path: Path) -> None:
    with real_sshd(tmp_path / "jump") as jump:
        behind = SshTransport("c1", ssh.access(jump=hop(jump)))
        assert await behind.clock_ns() > 0
        assert jump.sessions() and ssh.server.sessions()
        assert (await behind.status())["open"] == []
        await behind.close()
        jump.know(key_pair(tmp_path / "other").with_suffix(".pub"))
        with pytest.raises(NotAllowed, match=f"127.0.0.1:{jump.port} is another one"):
            await SshTransport("c1", ssh.access(jump=hop(jump))).clock_ns()


async def test_without_python3_it_is_said_so(ssh: SshHost) -> None:
    with pytest.raises(NotAllowed, match=r"/nowhere/python3 cannot be run there .*install Python 3.9"):
        await SshTransport("c1", ssh.access(python="/nowhere/python3")).clock_ns()


async def test_sudo_that_is_missing_or_refuses_is_named(ssh: SshHost, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match=r"/nowhere/sudo cannot be run there .*ssh.sudo: false"):
        await SshTransport("c1", ssh.access(sudo=True, sudo_program="/nowhere/sudo")).clock_ns()
    refusing = tmp_path / "sudo"
    refusing.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(NotAllowed, match=r"a password is required; .* needs NOPASSWD there"):
        await SshTransport("c1", ssh.access(sudo=True, sudo_program=str(refusing))).clock_ns()


@needs("root", "sudo")
async def test_with_sudo_everything_runs_below_it(ssh: SshHost) -> None:
    ssh.permitted.chmod(0o644)
    transport = SshTransport("c1", ssh.access(sudo=True))
    ssh.broken.victim(VICTIM)
    record = ssh.order("node_kill", {"command_line": f"{VICTIM} 600"})
    for verb in ("plan", "inject", "prove"):
        record = await transport.verb(verb, record)
    assert record["prove"]["proven"]
    life = (await transport.status())["keeper"]
    assert b"SUDO_COMMAND=" in Path(f"/proc/{life['pid']}/environ").read_bytes()
    with pytest.raises(NotAllowed, match=r"nowhere/python3: command not found; install Python 3.9"):
        await SshTransport("c1", ssh.access(sudo=True, python="/nowhere/python3")).clock_ns()
    await transport.close()


async def test_who_holds_the_address_is_seen_there(ssh: SshHost) -> None:
    server = ssh.broken.start("/usr/bin/python3", "-c", LISTEN, VICTIM, stdout=subprocess.PIPE)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    ssh.permit(profiles={"lb": {"command_line": f".* {VICTIM}"}, "web": {"command_line": "hd-nobody"}})
    endpoint = f"tcp://127.0.0.1:{port}"
    assert await ssh.transport.holds("lb", "listens", endpoint)
    assert not await ssh.transport.holds("web", "listens", endpoint)
    assert not await ssh.transport.holds("lb", "listens", f"tcp://127.0.0.1:{ssh.server.port}")
    assert await ssh.transport.holds("lb", "address", "http://127.0.0.1")
    assert not await ssh.transport.holds("lb", "address", "tcp://192.0.2.7:80")
    with pytest.raises(BadInput, match=r"holder"):
        await ssh.transport.holds("lb", "guesses", endpoint)
    with pytest.raises(BadInput, match=r"endpoint"):
        await ssh.transport.holds("lb", "listens", "web")


async def test_what_the_shells_own_files_print_is_passed_over(ssh: SshHost, tmp_path: Path) -> None:
    python = tmp_path / "talking-python"
    python.write_text(f'#!/bin/sh\necho "Welcome to c1!"\nexec {ssh.access().python} "$@"\n')
    python.chmod(0o755)
    ssh.broken.victim(VICTIM)
    transport = SshTransport("c1", ssh.access(python=str(python)))
    record = ssh.order("node_kill", {"command_line": f"{VICTIM} 600"})
    assert len((await transport.verb("plan", record))["plan"]["matched"]) == 1
    assert await transport.clock_ns() > 0
    await transport.close()


async def test_what_was_sent_is_kept_and_mended(ssh: SshHost) -> None:
    await ssh.transport.clock_ns()
    (folder,) = (ssh.state / "shipped").iterdir()
    assert ssh.state.stat().st_mode & 0o777 == 0o700 and folder.stat().st_mode & 0o077 == 0
    kept = folder.stat().st_ino
    await ssh.transport.close()
    await ssh.transport.clock_ns()
    assert folder.stat().st_ino == kept
    await ssh.transport.close()
    (folder / "homeostat" / "kernel" / "errors.py").write_text("")
    await ssh.transport.clock_ns()
    assert folder.stat().st_ino != kept and [each for each in folder.parent.iterdir()] == [folder]
    await ssh.transport.close()
    ssh.state.chmod(0o777)
    with pytest.raises(NotAllowed, match=r"must be a folder that only its owner writes"):
        await ssh.transport.clock_ns()


@pytest.mark.seed("order what was sent to a host by other versions is removed when nothing runs from it")
async def test_what_other_versions_have_sent_goes_when_nothing_runs_from_it(ssh: SshHost) -> None:
    await ssh.transport.clock_ns()
    shipped = ssh.state / "shipped"
    (ours,) = shipped.iterdir()
    unused, used, fresh = (shipped / (letter * 64) for letter in "abc")
    for each in (unused, used, fresh):
        (each / "homeostat").mkdir(parents=True)
        (each / "homeostat" / "keeper.py").write_text("")
    for each in (unused, used):
        os.utime(each, (1, 1))
    keeping = ssh.broken.victim(str(used / "homeostat" / "keeper.py"))
    await ssh.transport.close()
    await ssh.transport.clock_ns()
    assert set(shipped.iterdir()) == {ours, used, fresh}
    keeping.kill()
    keeping.wait()
    os.utime(ours, (1, 1))  # we run from it
    await ssh.transport.close()
    await ssh.transport.clock_ns()
    assert set(shipped.iterdir()) == {ours, fresh}


@pytest.mark.seed("order after a reboot of a host the first word to it starts its undo keeper again")
async def test_a_keeper_that_is_gone_is_started_by_the_next_word_to_that_host(ssh: SshHost) -> None:
    disk = {"size_mib": 1, "floor_mib": 64}
    record = ssh.order("node_disk", disk, deadline_s=3000.0)
    for verb in ("plan", "inject"):
        record = await ssh.transport.verb(verb, record)
    await ssh.transport.close()
    # What a reboot leaves: neither keeper nor writer, and a ledger of another boot.
    assert {each.killed for each in end_all(lambda: undo_keepers(ssh.broken.root), grace_s=0.0)} == {True}
    writer = record["inject"]["writer"]
    os.kill(writer["pid"], signal.SIGKILL)
    ledger = machine.Folder(ssh.broken.keeper).ledger(record["fault"])
    ledger.write_text(json.dumps(json.loads(ledger.read_text()) | {"boot_id": "another"}))
    path = Path(record["plan"]["path"])
    assert path.exists() and orders.status(ssh.broken.keeper)["keeper"] is None
    ssh.permit(enabled=False)  # what is permitted now changes nothing
    await ssh.transport.clock_ns()
    until(lambda: orders.outcome(ssh.broken.keeper, record["fault"]) is not None, "the undo")
    assert not path.exists() and (await ssh.transport.status())["open"] == []


async def test_a_person_on_that_host_can_use_the_keeper_that_was_sent(ssh: SshHost) -> None:
    victim = ssh.broken.victim(VICTIM)
    record = ssh.order("node_freeze", {"command_line": f"{VICTIM} 600"})
    for verb in ("plan", "inject"):
        record = await ssh.transport.verb(verb, record)
    (program,) = ssh.state.glob("shipped/*/homeostat/drills/shipped/keeper")
    argv = ["/usr/bin/python3", str(program), "halt", "--state", str(ssh.broken.keeper)]
    await asyncio.to_thread(subprocess.run, argv, check=True, stdout=subprocess.DEVNULL)
    assert state(victim) == "S" and machine.lives(identity(victim))


def test_the_library_is_imported_with_the_first_connection_only() -> None:
    look = "import sys, homeostat.drills.transports.remote; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


def test_the_ssh_block_knows_its_words() -> None:
    given = SshAccess(address="10.0.0.1", user="ops")
    assert given.known_hosts == Path("~/.ssh/known_hosts").expanduser()
    assert (given.port, given.sudo, given.python) == (22, False, "python3")
    assert given.permitted_file == Path("/etc/homeostat/drills.json")


@pytest.mark.seed("000 post conditions: restart the processes if they are not running, over SSH")
async def test_what_is_down_is_started_by_the_hosts_own_program(ssh: SshHost) -> None:
    mark = ssh.broken.root / "started"
    # The service outlives the session that started it.
    service = f"{VICTIM}-started"
    script = f"echo {{host}} > {mark}; exec setsid sh -c 'exec -a {service} sleep 600' >/dev/null 2>&1 &"
    bash = shutil.which("bash") or "/bin/bash"
    ssh.permit(
        programs={
            "restart-web": {"argv": [bash, "-c", script.replace("setsid sh", f"setsid {bash}")]},
            "restart-broken": {"argv": ["/bin/false"]},
            "restart-slow": {"argv": ["/bin/sleep", "600"], "timeout_s": 0.2},
            "restart-absent": {"argv": ["/no/such/program"]},
        }
    )
    assert await ssh.transport.restart("web", "r-1") == "restart-web"
    assert mark.read_text() == "c1\n"
    await ssh.transport.close()
    record = ssh.order("node_kill", {"command_line": f"{service} 600"})
    for verb in ("plan", "inject"):
        record = await ssh.transport.verb(verb, record)
    assert record["inject"]["signalled"] == 1, "it was there, and is not any more"
    for profile, error, said in (
        ("broken", GiveUp, "it ended with 1"),
        ("slow", GiveUp, r"no end within 0\.2 s"),
        ("absent", GiveUp, "cannot be run"),
        ("mail", NotAllowed, r"no drills\.programs\.restart-mail"),
    ):
        with pytest.raises(error, match=said):
            await ssh.transport.restart(profile, "r-1")
    ssh.permit(enabled=False, programs={"restart-web": {"argv": ["/bin/true"]}})
    with pytest.raises(NotAllowed, match=r"restart-web"):
        await ssh.transport.restart("web", "r-1")
