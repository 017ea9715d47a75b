"""Injector that switches another host off, by programs that this machine permits; the undo switches it on.

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

from homeostat.drills.shipped.injectors.record import InjectedFault, Section, keeper_errors
from homeostat.drills.shipped.injectors.record import undo as undo_by_keeper
from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.permissions import PoweredHost, Program
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed
from homeostat.kernel.processes import die_with_parent
from homeostat.kernel.redaction import redact

OFF, ON, STATE = "power-off", "power-on", "power-state"
_CONNECT_S = 1.0
_UNDO_TAKES_S = 10.0
"""Two programs are run."""


@dataclass(frozen=True)
class PowerTarget:
    """Which host."""

    host: str
    silent_within_s: float


def probe(fault: InjectedFault) -> Section:
    """Whether the switch knows the host, and says that it is on."""
    says = _state(fault)
    return {"able": says == "on", "missing": [] if says == "on" else [f"a host that is on; it is {says!r}"]}


def plan(fault: InjectedFault) -> Section:
    """What will be run. NotAllowed for a host that is off already: the undo would start it."""
    host, says = _host(fault), _state(fault)
    if says != "on":
        raise NotAllowed(f"the power switch says {says!r} of host {host}, not 'on'; power it on first")
    return {
        "does": f"switch host {host} off",
        "host": host,
        "runs": _words(_argv(fault, OFF)),
        "undo": [f"switch host {host} on: {_words(_argv(fault, ON))}"],
    }


def inject(fault: InjectedFault) -> Section:
    """Switch it off, between two stamps. GiveUp when the switch does not obey; then it is undone at once."""
    host = fault.section("plan")["host"]
    argv, program = _argv(fault, OFF), _program(fault, OFF)
    with keeper_errors():
        # All that its undo needs.
        steps.permit(fault.keeper, {name: asdict(_program(fault, name)) for name in (ON, STATE)})
        on_again = steps.step_program(ON, host, STATE, "on", _UNDO_TAKES_S)
        orders.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), [on_again])
        before_ns = machine.now_ns()
        with _started(argv) as switching:
            identity = machine.identify(switching.pid)
            if identity is not None:
                orders.add(fault.keeper, fault.id, steps.step_kill(identity))
            said = _end_of(switching, program.timeout_s)
        after_ns = machine.now_ns()
        orders.injected(fault.keeper, fault.id)
    return {"before_ns": before_ns, "after_ns": after_ns, "host": host, "said": said}


def prove(fault: InjectedFault) -> Section:
    """The switch says off, and everything that answered there is silent."""
    fault.section("inject")
    addresses, within_s = _powered(fault).answers_at, _target(fault).silent_within_s
    machine.within(within_s, lambda: not any(map(_answers, addresses)))
    says, answering = _state(fault), [each for each in addresses if _answers(each)]
    return {
        "proven": says == "off" and not answering,
        "says": says,
        "silent": [each for each in addresses if each not in answering],
        "answering": answering,
        "at_ns": machine.now_ns(),
    }


def undo(fault: InjectedFault) -> Section:
    """Have the keeper switch it on; asked again, once more when somebody else has switched it off since.

    A fence of the dead host goes by the same switch, and may be later than the first undo.
    """
    outcome = undo_by_keeper(fault)
    if outcome["undone"] and _state(fault) != "on":
        with _started(_argv(fault, ON)) as switching:
            return {**outcome, "again": _end_of(switching, _program(fault, ON).timeout_s)}
    return outcome


def _target(fault: InjectedFault) -> PowerTarget:
    words = fault.target
    target = PowerTarget(words.needed("host"), words.number("silent_within_s", 10.0, 0, 600))
    words.end()
    return target


def _host(fault: InjectedFault) -> str:
    """The host, when it may be switched from here. BadInput, NotAllowed."""
    host = _target(fault).host
    if host == fault.node.host:
        raise NotAllowed(f"{host} would switch itself off, and nobody would switch it on; use another host")
    _powered(fault)
    return host


def _powered(fault: InjectedFault) -> PoweredHost:
    host, known = _target(fault).host, fault.node.power
    if host not in known:
        where, names = f"the {fault.node.file} of {fault.node.host}", ", ".join(known) or "none"
        raise BadInput("target.host", host, f"hosts of drills.power in {where}: {names}")
    return known[host]


def _program(fault: InjectedFault, name: str) -> Program:
    found = fault.node.programs.get(name)
    if found is None:
        raise BadInput(
            f"drills.programs.{name}", None, f"a program in the {fault.node.file} of {fault.node.host}"
        )
    return found


def _argv(fault: InjectedFault, name: str) -> List[str]:
    return [word.replace("{host}", _host(fault)) for word in _program(fault, name).argv]


def _state(fault: InjectedFault) -> str:
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
    return str(redact("", " ".join(map(str, argv))))


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
