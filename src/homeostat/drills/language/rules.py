"""The rules of a drill that need more than one field. Pure: what is broken, where, what is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from homeostat.drills.cloud_operation import CloudOperation, MadeSoFar, Phase, optional
from homeostat.drills.fault import Choice, Disk, HostOff, Kill, Network, Victim, hold_ms
from homeostat.drills.model import (
    PROJECT,
    Check,
    Dependant,
    Drill,
    HolderMoved,
    Layer,
    Monitor,
    Noticed,
    OperationsDone,
    ProcessRecovery,
    Proof,
    ServiceOutage,
    Step,
    Suite,
    Target,
    Weight,
)
from homeostat.drills.site import address_of
from homeostat.drills.spans import span_text
from homeostat.monitors.outage import may_decide, resolution_ms


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that is not kept, by the words of the file."""

    path: tuple[str | int, ...]
    accepted: str


def drill_rules(drill: Drill) -> list[Broken]:
    """Everything that is wrong with a drill whose fields are each acceptable."""
    return [
        *_unique(("monitors",), [each.id for each in drill.monitors], "id"),
        *_unique(("operations", "before"), [each.id for each in drill.operations.before], "id"),
        *_unique(("operations", "during"), [each.id for each in drill.operations.during], "id"),
        *_unique(("operations", "while_held"), [each.id for each in drill.operations.while_held], "id"),
        *_unique(("operations", "after"), [each.id for each in drill.operations.after], "id"),
        *_monitors(drill),
        *_victim(drill),
        *_operations(drill),
        *_checks(drill),
    ]


def suite_rules(suite: Suite) -> list[Broken]:
    """A drill stands once in a suite."""
    return list(_unique(("drills",), suite.drills, None))


def _unique(path: tuple[str | int, ...], names: Sequence[str], word: str | None) -> Iterator[Broken]:
    for at, name in enumerate(names):
        if name in names[:at]:
            yield Broken((*path, at, *((word,) if word else ())), "each stands once")


def _target(path: tuple[str | int, ...], target: Target | Victim) -> Iterator[Broken]:
    given = [target.service, target.host, target.url if isinstance(target, Target) else None]
    if sum(each is not None for each in given) != 1:
        accepted = "exactly one of service, host" + (", url" if isinstance(target, Target) else "")
        yield Broken(path, accepted)
    if isinstance(target, Target) and target.url is not None:
        try:
            address_of(target.url)
        except ValueError:
            yield Broken(
                (*path, "url"), "http://HOST, http://HOST:PORT or tcp://HOST:PORT, the port up to 65535"
            )


def _monitors(drill: Drill) -> Iterator[Broken]:
    for at, monitor in enumerate(drill.monitors):
        here = ("monitors", at)
        yield from _target((*here, "target"), monitor.target)
        if monitor.kind == "process" and monitor.target.service is None:
            yield Broken((*here, "target"), "service: a process is found by the service it belongs to")
        elif monitor.kind == "process" and monitor.target.on != "victim":
            yield Broken((*here, "target"), "on: victim, too: processes are watched on the host that is hit")
        if (monitor.kind == "process") != (monitor.layer is Layer.PROCESS):
            yield Broken((*here, "layer"), "process for the kind process, and only for it")
        if monitor.target.host is not None and monitor.kind != "tcp":
            yield Broken((*here, "kind"), "tcp for a host")
        if monitor.optional and monitor.target.service is None:
            yield Broken((*here, "optional"), "only with a service, which a site may not have")
        yield from _of_a_cloud(here, monitor)


def _of_a_cloud(here: tuple[str | int, ...], monitor: Monitor) -> Iterator[Broken]:
    """A token and the cloud's own client."""
    if monitor.token and monitor.kind != "http":
        yield Broken((*here, "token"), "only of kind http")
    if PROJECT in monitor.path and not monitor.token:
        yield Broken((*here, "path"), f"token: true beside it: {PROJECT} is the project of the token")
    if (monitor.kind == "cli") != (monitor.command is not None):
        yield Broken((*here, "command"), "for the kind cli, and only for it")
    if monitor.kind != "cli":
        return
    if monitor.layer is not Layer.USER:
        yield Broken((*here, "layer"), "user for the kind cli")
    if monitor.target.service is None or monitor.target.on != "endpoint":
        yield Broken((*here, "target"), "service: the one that the command asks; the client finds it itself")


def _victim(drill: Drill) -> Iterator[Broken]:
    target = drill.fault.target
    yield from _target(("fault", "target"), target)
    if target.host is not None and target.choose is not Choice.SEEDED:
        yield Broken(("fault", "target", "choose"), "nothing to choose when the host is named")
    if isinstance(drill.fault, HostOff) and target.service is None and target.host is None:
        yield Broken(("fault", "target"), "a host, or the service whose host is chosen")
    if isinstance(drill.fault, Network) and drill.fault.effect == "latency":
        if drill.fault.device is None:
            yield Broken(("fault", "device"), "the device to slow down: latency cannot do without")
        if drill.fault.ports:
            yield Broken(("fault", "ports"), "none: only a cut knows ports")
    if hold_ms(drill.fault) > drill.window.longest_ms:
        longest = span_text(drill.window.longest_ms)
        yield Broken(("fault", "hold"), f"at most window.longest, {longest}: it is measured while it lasts")


def _operations(drill: Drill) -> Iterator[Broken]:
    phases: tuple[tuple[Phase, Sequence[Step]], ...] = (
        ("before", drill.operations.before),
        ("during", drill.operations.during),
        ("while_held", drill.operations.while_held),
        ("after", drill.operations.after),
    )
    for word, operations in phases:
        for at, operation in enumerate(operations):
            if isinstance(operation, CloudOperation):
                continue
            yield from _target(("operations", word, at, "target"), operation.target)
            if operation.target.host is not None:
                yield Broken(("operations", word, at, "target"), "service or url")
    before = MadeSoFar()
    yield from _cloud("before", drill.operations.before, before)
    yield from _cloud("during", drill.operations.during, MadeSoFar(set(before.there), rounds=True))
    yield from _cloud("while_held", drill.operations.while_held, before)
    yield from _cloud("after", drill.operations.after, before)
    yield from _while_held(drill)
    makes = any(isinstance(each, CloudOperation) and each.does == "create" for each in drill.operations.all)
    if makes and all(each.kind != "delete_test_objects" for each in drill.cleanup):
        yield Broken(("cleanup",), "kind: delete_test_objects, for what the operations create")


def _while_held(drill: Drill) -> Iterator[Broken]:
    """All of it must have its time while the fault stands, else a slow one would be neither good nor bad."""
    operations, hold = drill.operations.while_held, hold_ms(drill.fault)
    if not operations:
        return
    if not hold or isinstance(drill.fault, HostOff):
        accepted = "nothing: only of a fault with a hold, which nobody else ends"
        yield Broken(("operations", "while_held"), accepted)
    elif (needed := sum(each.deadline_ms for each in operations)) > hold:
        accepted = (
            f"at least {span_text(needed)}: the deadlines of operations.while_held, all of which it stands"
        )
        yield Broken(("fault", "hold"), accepted)


def _cloud(phase: Phase, operations: Sequence[Step], made: MadeSoFar) -> Iterator[Broken]:
    for at, operation in enumerate(operations):
        if isinstance(operation, CloudOperation):
            word, accepted = made.wrong(operation, phase) or ("", "")
            if word:
                yield Broken(("operations", phase, at, word), accepted)


def _checks(drill: Drill) -> Iterator[Broken]:
    monitors = {each.id: each for each in drill.monitors}
    kinds = [each.kind for each in drill.checks]
    for at, check in enumerate(drill.checks):
        yield from _check(at, check, drill, monitors)
        if isinstance(check, Proof | Dependant) and check.kind in kinds[:at]:
            yield Broken(("checks", at, "kind"), "once: it is one proof")
    if not any(_decides(check, drill) for check in drill.checks):
        accepted = "at least one that measures and is binding: proofs alone would pass for nothing"
        yield Broken(("checks",), accepted)


def _decides(check: Check, drill: Drill) -> bool:
    """Whether it measures and counts."""
    match check:
        case ServiceOutage() | ProcessRecovery() | Noticed() | HolderMoved():
            return check.weight is Weight.BINDING
        case OperationsDone():
            binding = (*drill.operations.while_held, *drill.operations.after)
            return any(not optional(each) for each in binding)
        case Dependant() | Proof():
            return False
        case _:
            assert_never(check)


def _check(at: int, check: Check, drill: Drill, monitors: dict[str, Monitor]) -> Iterator[Broken]:
    match check:
        case ServiceOutage():
            yield from _outage(at, check, drill, monitors)
        case ProcessRecovery():
            if not isinstance(drill.fault, Kill | HostOff):
                yield Broken(("checks", at, "kind"), "only after a fault that ends processes: kill, host_off")
            monitor = monitors.get(check.monitor)
            if monitor is None or monitor.kind != "process":
                yield Broken(("checks", at, "monitor"), f"a monitor of kind process: {_ids(drill, True)}")
            yield from _window(at, check.limit_ms, drill)
        case Noticed():
            yield from _window(at, check.limit_ms, drill)
        case Dependant():
            if not isinstance(drill.fault, Disk):
                yield Broken(("checks", at, "kind"), "only after a fault of a disk")
        case HolderMoved() | Proof() | OperationsDone():
            return
        case _:
            assert_never(check)


def _outage(at: int, check: ServiceOutage, drill: Drill, monitors: dict[str, Monitor]) -> Iterator[Broken]:
    for number, name in enumerate(check.monitors):
        monitor = monitors.get(name)
        if monitor is None or monitor.kind == "process":
            yield Broken(
                ("checks", at, "monitors", number), f"a monitor that asks a service: {_ids(drill, False)}"
            )
        elif monitor.kind == "cli":
            if check.weight is not Weight.INFORMATIVE:
                accepted = "informative for a monitor of kind cli: one call after the other cannot decide"
                yield Broken(("checks", at, "weight"), accepted)
        elif not may_decide(check.limit_ms, resolution_ms(monitor.period_ms, 0.0, 0.0), check.resolution):
            period = span_text(check.limit_ms * check.resolution / 2)
            limit = span_text(check.limit_ms)
            where = drill.monitors.index(monitor)
            yield Broken(("monitors", where, "period"), f"at most {period}: more cannot decide {limit}")
    yield from _window(at, check.limit_ms, drill)


def _window(at: int, limit_ms: float, drill: Drill) -> Iterator[Broken]:
    if limit_ms >= drill.window.longest_ms:
        longest = span_text(drill.window.longest_ms)
        yield Broken(
            ("checks", at, "limit"), f"less than window.longest, {longest}: else it cannot be broken"
        )


def _ids(drill: Drill, process: bool) -> str:
    found = [each.id for each in drill.monitors if (each.kind == "process") == process]
    return ", ".join(found) or "there is none"
