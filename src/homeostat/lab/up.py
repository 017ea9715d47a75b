"""`homeostat up`: one run on its state directory, from the lock to the last process that is left.

    lock -> end leftovers of children.json -> prepare -> supervise -> undo what drills broke -> stop
         -> end whatever still carries our mark

One owner per directory. Services and guests of a killed owner are left alone at the start (their nodes find
them again) and are ended at the end, when nothing of the directory may live. The cluster is a list of child
processes; only here the lab meets the supervisor.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from homeostat.drills.node.settings import keeper_folder
from homeostat.drills.shipped.keeper import daemon, machine, orders
from homeostat.kernel.errors import CorruptState, StoreFull
from homeostat.kernel.files import hold_lock
from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.lab.children import (
    LAB_MARK,
    ChildSpec,
    end_all,
    processes_in_pid_files,
    processes_of_lab,
    read_children,
    undo_keepers,
    write_children,
)
from homeostat.lab.disk import NEEDED_BYTES, DiskWatch
from homeostat.lab.plan import (
    BALANCER_PROFILE,
    EDGES,
    HOSTS,
    PREFERRED_PORTS,
    PROJECTS,
    UP,
    LabPlan,
    StateDirectory,
    UpSettings,
    address_argv,
    balancer_argv,
    node_argv,
)
from homeostat.lab.power import HOST_MARK, is_on
from homeostat.lab.preparation import (
    NatsBinary,
    PortClaims,
    find_nats_server,
    listens,
    load_or_create_credentials,
    settle_ports,
    write_files,
)
from homeostat.lab.supervisor import StopRequests, Supervisor, SupervisorDependencies, TerminalOutput

_UNDO_S, _END_S = 15.0, 5.0
_POLL_S = 0.02

Say = Callable[[str], None]


def restart_undo_keepers(state: StateDirectory, say: Say) -> None:
    """A keeper where something is still broken and no node process would start one; who is halted is said."""
    for folder in _folders(state):
        if orders.status(folder)["halted"]:
            say(
                f"{_host(folder)}: drills are halted on this host; `homeostat node resume` permits them again"
            )
    for host in (*EDGES, UP):
        folder = keeper_folder(state.host(host))
        if faults := machine.Folder(folder).open_faults():
            say(f"{host}: not yet undone faults of a drill: {', '.join(faults)}; its undo keeper is started")
            _try(folder, partial(daemon.start, folder), say)


def undo_open_faults(state: StateDirectory, say: Say, hurry: Callable[[], bool]) -> list[Path]:
    """Nothing stays broken and no keeper lives; the folders that refuse faults from here on, for `let_in`.

    What cannot be undone within 15 s, or before somebody is in a `hurry`, is named and stays on disk: it is
    undone after the next start.
    """
    folders, halted = _folders(state), []
    for folder in folders:
        found = orders.status(folder)
        if found["open"]:
            say(f"{_host(folder)}: undoing the faults of a drill: {', '.join(found['open'])}")
        if found["open"] or found["keeper"]:
            _try(folder, partial(orders.halt, folder, within_s=0.0), say)
            if not found["halted"]:
                halted.append(folder)
    until_s = time.monotonic() + _UNDO_S
    while _with_open_faults(folders) and time.monotonic() < until_s and not hurry():
        time.sleep(_POLL_S)
    for folder in _with_open_faults(folders):
        faults = ", ".join(machine.Folder(folder).open_faults())
        say(f"{_host(folder)}: NOT undone: {faults}; see {folder / 'outcomes'}")
    end_all(lambda: undo_keepers(state.hosts), grace_s=0.0 if hurry() else _END_S)
    return halted


def accept_faults_again(halted: Sequence[Path], say: Say) -> None:
    """Take faults again where `undo_everything` had them refused."""
    for folder in halted:
        _try(folder, partial(orders.resume, folder), say)


def _try(folder: Path, act: Callable[[], object], say: Say) -> None:
    try:
        act()
    except (machine.KeeperError, OSError, subprocess.SubprocessError) as error:
        say(f"{_host(folder)}: {error}")


def _with_open_faults(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if machine.Folder(folder).open_faults()]


def _folders(state: StateDirectory) -> list[Path]:
    return sorted(state.hosts.glob("*/keeper"))


def _host(folder: Path) -> str:
    return folder.parent.name


_GRACE_S = 2.0

Prepare = Callable[[TerminalOutput], Sequence[ChildSpec]]
"""Writes what the children need and says what they are. Called with the directory in our hands."""


def run_as_owner(state: StateDirectory, prepare: Prepare, screen: TerminalOutput) -> int:
    """Own the directory until asked to stop: 0 then, 1 when the start failed. No process is left either way.

    AlreadyRunning when somebody else owns it; what `prepare` raises is passed on with nothing started.
    """
    taken = f"`homeostat up` already runs on {state.root} as pid {{pid}}; stop it or choose another --dir"
    with hold_lock(state.lock_file, taken):
        stops = StopRequests()
        _take_over(state, screen)
        specs = [replace(spec, env={**spec.env, LAB_MARK: str(state.root)}) for spec in prepare(screen)]
        state.logs.mkdir(mode=0o700, exist_ok=True)

        unwritten: list[str] = []

        def record(children: dict[str, Identity]) -> None:
            try:
                write_children(state.children_file, children)
                unwritten.clear()
            except OSError as error:
                if not unwritten:
                    missed = "the next start may miss leftover processes"
                    screen.say(f"{state.children_file}: not written ({error}); {missed}")
                    unwritten.append(str(error))

        halted: list[Path] = []

        def undo() -> None:
            halted.extend(undo_open_faults(state, screen.say, lambda: stops.count > 1))

        disk = DiskWatch(state.root, state.server / "ballast")
        needs = SupervisorDependencies(state.logs, record, screen, stops, undo, disk)
        code = Supervisor(specs, needs).run()
        began_s = time.monotonic()
        hurry = stops.count > 1
        for each in end_all(lambda: _living_processes(state), grace_s=0.0 if hurry else _GRACE_S):
            how = "killed" if each.killed else "ended"
            screen.say(f"still running, {how}: pid {each.identity.pid} {each.command}")
        accept_faults_again(halted, screen.say)
        left = _living_processes(state)
        if left:
            screen.say(f"could not be stopped: pids {', '.join(str(each.pid) for each in left)}")
            return 1
        took_s = time.monotonic() - began_s
        screen.say(f"stopped; no process of {state.root} is left (checked in {took_s:.1f} s)")
        return code


def _take_over(state: StateDirectory, screen: TerminalOutput) -> None:
    """End what children.json names. The file is only a cache: one that makes no sense is set aside."""
    try:
        recorded = set(read_children(state.children_file).values())
    except CorruptState as error:
        aside = state.children_file.with_name(f"children.json.corrupt-{time.time_ns()}")
        state.children_file.replace(aside)
        screen.say(f"{error}; moved to {aside.name}")
        recorded = set()
    spared = processes_in_pid_files(state.hosts)
    ended = end_all(lambda: {each for each in recorded if is_alive(each)} - spared, grace_s=0.0)
    if ended or spared:
        screen.say(
            f"took over {state.root}: {len(spared)} services and guests still run, "
            f"{len(ended)} other leftover processes ended"
        )


def _living_processes(state: StateDirectory) -> set[Identity]:
    return processes_of_lab(state.root) | processes_in_pid_files(state.hosts) | undo_keepers(state.hosts)


_NODE_STOP_S = 45.0
"""Two resources one after the other may need 20 s each."""


def up(settings: UpSettings) -> int:
    """Start everything and keep it running until Ctrl-C or SIGTERM.

    The exit code: 0 stopped as asked, 1 not everything came up. Raises AlreadyRunning (the directory or a
    port is taken), CorruptState (a file of ours), BadInput (server.local.yaml), GiveUp.
    """
    state = StateDirectory(settings.state_dir.absolute())
    with PortClaims() as claims:
        try:
            return run_as_owner(
                state, partial(_prepare, settings, state, claims), TerminalOutput(sys.stdout.fileno())
            )
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = f"{state.root}: {error.strerror}; make room: more than {NEEDED_BYTES // 2**20} MiB"
            raise StoreFull(said) from error


def _prepare(
    settings: UpSettings, state: StateDirectory, claims: PortClaims, screen: TerminalOutput
) -> Sequence[ChildSpec]:
    binary = find_nats_server()
    credentials = load_or_create_credentials(
        state.credentials_file, users=["server", *HOSTS], projects=PROJECTS
    )

    def ours(pid: int) -> bool:
        return identify(pid) in processes_of_lab(state.root) | processes_in_pid_files(state.hosts)

    ports = settle_ports(state.lab_file, PREFERRED_PORTS, claims, ours=ours, renew=settings.renew_ports)
    plan = LabPlan(state, ports, sys.executable, settings.program)
    for host in HOSTS:
        state.off_file(host).unlink(missing_ok=True)
    write_files(plan, credentials)
    screen.say(f"homeostat up: state in {state.root}; nats-server {binary.version} ({binary.path})")
    restart_undo_keepers(state, screen.say)
    return child_specs(plan, binary)


def child_specs(plan: LabPlan, binary: NatsBinary) -> list[ChildSpec]:
    """The process tree. Stopped in this order: nodes, balancers, server, machines and consumer, NATS."""
    state, ports = plan.state, plan.ports
    ours = (plan.python, "-m")
    keys_and_log = ("--keys-file", str(state.consumer_file), "--heard-file", str(state.heard_file))
    doctor_log = ("--doctor-log", str(state.doctor_consumer_log))
    nodes = [
        ChildSpec(
            name=f"node-{host}",
            argv=node_argv(plan, host),
            after=("nats",),
            env={HOST_MARK: host},
            stop_wave=0,
            stop_deadline_s=_NODE_STOP_S,
            wanted=is_on(state, host),
        )
        for host in HOSTS
    ]
    machines = [
        ChildSpec(
            name=f"machine-{host}",
            argv=address_argv(plan, host),
            env={HOST_MARK: host},
            ready=partial(listens, port=ports[f"machine-{host}"]),
            stop_wave=3,
            wanted=is_on(state, host),
        )
        for host in HOSTS
    ]
    balancers = [
        ChildSpec(
            name=f"balancer-{edge}",
            argv=balancer_argv(plan, edge),
            env={HOST_MARK: edge},
            ready=wrote_pid_to(state.ready_file(edge, BALANCER_PROFILE)),
            stop_wave=1,
        )
        for edge in EDGES
    ]
    return [
        ChildSpec(
            name="nats",
            argv=(str(binary.path), "-c", str(state.nats_config_file)),
            ready=partial(listens, port=ports["nats"]),
            stop_wave=4,
        ),
        ChildSpec(
            name="server",
            argv=(*plan.program, "run", "server", "--config", str(state.server_config_file)),
            ready=partial(listens, port=ports["api"]),
            after=("nats",),
            stop_wave=2,
            stop_deadline_s=15.0,
        ),
        *machines,
        *nodes,
        *balancers,
        ChildSpec(
            name="consumer",
            argv=(
                *ours,
                "homeostat.lab.consumer",
                "--port",
                str(ports["consumer"]),
                *keys_and_log,
                *doctor_log,
            ),
            ready=partial(listens, port=ports["consumer"]),
            shown_as="heard: ",
            stop_wave=3,
        ),
        ChildSpec(
            name="bootstrap",
            argv=(*ours, "homeostat.lab.bootstrap", "--dir", str(state.root)),
            env={"HOMEOSTAT_COLOUR": "1"} if (sys.stdout.isatty() and "NO_COLOR" not in os.environ) else {},
            after=("server", "consumer", *(each.name for each in (*balancers, *nodes))),
            once=True,
            shown_as="",
            stop_wave=0,
        ),
    ]


def wrote_pid_to(file: Path) -> Callable[[int], bool]:
    """A readiness check: the child has written its pid into the file."""

    def said(pid: int) -> bool:
        try:
            return file.read_text().strip() == str(pid)
        except OSError:
            return False

    return said
