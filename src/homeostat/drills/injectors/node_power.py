"""Switch another host off, by the programs that this machine permits; it is switched on again at the undo.

Injector and keeper run where the power is, never on the host that is switched. Every program comes from this
machine's node.yaml (`drills.programs`); the order names a host and nothing else. The program that switches
off is known to the keeper, which ends it before it switches on, and it does not outlive who injects.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, List

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.permitted import PoweredHost, Program
from homeostat.drills.injectors.record import Fault, Section, keepers_words, verify_undone
from homeostat.drills.injectors.record import undo as undo_by_keeper
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed
from homeostat.kernel.presenting import presentable
from homeostat.kernel.processes import die_with_parent

__all__ = ["inject", "plan", "probe", "prove", "undo", "verify_undone"]

OFF, ON, STATE = "power-off", "power-on", "power-state"
_CONNECT_S = 1.0
_UNDO_TAKES_S = 10.0
"""Two programs are run."""


@dataclass(frozen=True)
class PowerTarget:
    """Which host."""

    host: str
    silent_within_s: float


def probe(fault: Fault) -> Section:
    """Whether the switch knows the host, and says that it is on."""
    says = _state(fault)
    return {"able": says == "on", "missing": [] if says == "on" else [f"a host that is on; it is {says!r}"]}


def plan(fault: Fault) -> Section:
    """What will be run. NotAllowed for a host that is off already: the undo would start it."""
    host, says = _host(fault), _state(fault)
    if says != "on":
        raise NotAllowed(f"the switch says {says!r} of host {host}, not 'on'; let it start first")
    return {
        "does": f"switch host {host} off",
        "host": host,
        "runs": _words(_argv(fault, OFF)),
        "undo": [f"switch host {host} on: {_words(_argv(fault, ON))}"],
    }


def inject(fault: Fault) -> Section:
    """Switch it off, between two stamps. GiveUp when the switch does not obey; then it is undone at once."""
    host = fault.section("plan")["host"]
    argv, program = _argv(fault, OFF), _program(fault, OFF)
    with keepers_words():
        keeper.permit(fault.keeper, _permitted(fault))
        on_again = keeper.step_program(ON, host, STATE, "on", _UNDO_TAKES_S)
        keeper.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), [on_again])
        before_ns = keeper.now_ns()
        with _started(argv) as switching:
            identity = keeper.identify(switching.pid)
            if identity is not None:
                keeper.add(fault.keeper, fault.id, keeper.step_kill(identity))
            said = _end_of(switching, program.timeout_s)
        after_ns = keeper.now_ns()
        keeper.injected(fault.keeper, fault.id)
    return {"before_ns": before_ns, "after_ns": after_ns, "host": host, "said": said}


def prove(fault: Fault) -> Section:
    """The switch says off, and everything that answered there is silent."""
    fault.section("inject")
    addresses, within_s = _powered(fault).answers_at, _target(fault).silent_within_s
    keeper.within(within_s, lambda: not any(map(_answers, addresses)))
    says, answering = _state(fault), [each for each in addresses if _answers(each)]
    return {
        "proven": says == "off" and not answering,
        "says": says,
        "silent": [each for each in addresses if each not in answering],
        "answering": answering,
        "at_ns": keeper.now_ns(),
    }


def undo(fault: Fault) -> Section:
    """Have the keeper switch it on; asked again, once more when somebody else has switched it off since.

    A fence of the dead host goes by the same switch, and may be later than the first undo.
    """
    outcome = undo_by_keeper(fault)
    if outcome["undone"] and _state(fault) != "on":
        with _started(_argv(fault, ON)) as switching:
            return {**outcome, "again": _end_of(switching, _program(fault, ON).timeout_s)}
    return outcome


def _target(fault: Fault) -> PowerTarget:
    words = fault.target
    target = PowerTarget(words.needed("host"), words.number("silent_within_s", 10.0, 0, 600))
    words.end()
    return target


def _host(fault: Fault) -> str:
    """The host, when it may be switched from here. BadInput, NotAllowed."""
    host = _target(fault).host
    if host == fault.node.host:
        raise NotAllowed(f"{host} would switch itself off, and nobody would switch it on; use another host")
    _powered(fault)
    return host


def _powered(fault: Fault) -> PoweredHost:
    host, known = _target(fault).host, fault.node.power
    if host not in known:
        where, names = f"the {fault.node.file} of {fault.node.host}", ", ".join(known) or "none"
        raise BadInput("target.host", host, f"hosts of drills.power in {where}: {names}")
    return known[host]


def _program(fault: Fault, name: str) -> Program:
    found = fault.node.programs.get(name)
    if found is None:
        raise BadInput(
            f"drills.programs.{name}", None, f"a program in the {fault.node.file} of {fault.node.host}"
        )
    return found


def _argv(fault: Fault, name: str) -> List[str]:
    return [word.replace("{host}", _host(fault)) for word in _program(fault, name).argv]


def _permitted(fault: Fault) -> dict[str, Section]:
    """What the keeper may run: all that its undo needs."""
    return {name: asdict(_program(fault, name)) for name in (ON, STATE)}


def _state(fault: Fault) -> str:
    """What the switch says. GiveUp when it does not answer."""
    with _started(_argv(fault, STATE)) as asking:
        return _end_of(asking, _program(fault, STATE).timeout_s)


def _started(argv: List[str]) -> subprocess.Popen[str]:
    """It dies with us: an act that comes late would follow its own undo."""
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            preexec_fn=die_with_parent(),
        )
    except OSError as error:
        raise GiveUp(f"{argv[0]}: cannot be run ({error.strerror})") from error


def _words(argv: Any) -> str:
    """For people, without what looks like a password."""
    return str(presentable("", " ".join(map(str, argv))))


def _end_of(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What a program has printed, at its end. GiveUp when it fails or hangs."""
    words = _words(process.args)
    try:
        said = process.communicate(timeout=timeout_s)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        raise GiveUp(f"{words}: no end within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise GiveUp(f"{words}: {said[-200:] or process.returncode}")
    return said


def _answers(address: str) -> bool:
    """Whether somebody accepts connections there."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=_CONNECT_S):
        return True
    return False
