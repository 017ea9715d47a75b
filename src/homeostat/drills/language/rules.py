"""The rules of a drill that need more than one field. Pure: what is broken, where, what is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from homeostat.drills import actions, model
from homeostat.drills.shipped.services import address_of
from homeostat.monitors.outage import may_decide, resolution_ms


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that is not kept, by the words of the file."""

    path: tuple[str | int, ...]
    accepted: str


def drill_rules(drill: model.Drill) -> list[BrokenRule]:
    """Everything that is wrong with a drill whose fields are each acceptable."""
    return [
        *_unique(("monitors",), [each.id for each in drill.monitors], "id"),
        *(
            broken
            for phase, steps in drill.operations.by_phase.items()
            for broken in _unique(("operations", phase), [each.id for each in steps], "id")
        ),
        *_monitors(drill),
        *_victim(drill),
        *_operations(drill),
        *_checks(drill),
    ]


def suite_rules(suite: model.Suite) -> list[BrokenRule]:
    return list(_unique(("drills",), suite.drills, None))


def _unique(path: tuple[str | int, ...], names: Sequence[str], word: str | None) -> Iterator[BrokenRule]:
    for at, name in enumerate(names):
        if name in names[:at]:
            yield BrokenRule((*path, at, *((word,) if word else ())), "each stands once")


def _target(path: tuple[str | int, ...], target: model.DrillTarget | actions.Victim) -> Iterator[BrokenRule]:
    given = [target.service, target.host, target.url if isinstance(target, model.DrillTarget) else None]
    if sum(each is not None for each in given) != 1:
        accepted = "exactly one of service, host" + (", url" if isinstance(target, model.DrillTarget) else "")
        yield BrokenRule(path, accepted)
    if isinstance(target, model.DrillTarget) and target.url is not None:
        try:
            address_of(target.url)
        except ValueError:
            yield BrokenRule(
                (*path, "url"), "http://HOST, http://HOST:PORT or tcp://HOST:PORT, the port up to 65535"
            )


def _monitors(drill: model.Drill) -> Iterator[BrokenRule]:
    for at, monitor in enumerate(drill.monitors):
        here = ("monitors", at)
        yield from _target((*here, "target"), monitor.target)
        if monitor.kind == "process" and monitor.target.service is None:
            yield BrokenRule((*here, "target"), "service: a process is found by the service it belongs to")
        elif monitor.kind == "process" and monitor.target.on != "victim":
            accepted = "on: victim, too: processes are watched on the host that is hit"
            yield BrokenRule((*here, "target"), accepted)
        if (monitor.kind == "process") != (monitor.layer is model.Layer.PROCESS):
            yield BrokenRule((*here, "layer"), "process for the kind process, and only for it")
        if monitor.target.host is not None and monitor.kind != "tcp":
            yield BrokenRule((*here, "kind"), "tcp for a host")
        if monitor.optional and monitor.target.service is None:
            yield BrokenRule((*here, "optional"), "only with a service, which a site may not have")
        yield from _of_a_cloud(here, monitor)


def _of_a_cloud(here: tuple[str | int, ...], monitor: model.Monitor) -> Iterator[BrokenRule]:
    """A token and the cloud's own client."""
    if monitor.token and monitor.kind != "http":
        yield BrokenRule((*here, "token"), "only of kind http")
    if model.PROJECT in monitor.path and not monitor.token:
        yield BrokenRule(
            (*here, "path"), f"token: true beside it: {model.PROJECT} is the project of the token"
        )
    if (monitor.kind == "cli") != (monitor.command is not None):
        yield BrokenRule((*here, "command"), "for the kind cli, and only for it")
    if monitor.kind != "cli":
        return
    if monitor.layer is not model.Layer.USER:
        yield BrokenRule((*here, "layer"), "user for the kind cli")
    if monitor.target.service is None or monitor.target.on != "endpoint":
        yield BrokenRule(
            (*here, "target"), "service: the one that the command asks; the client finds it itself"
        )


def _victim(drill: model.Drill) -> Iterator[BrokenRule]:
    target = drill.fault.target
    yield from _target(("fault", "target"), target)
    if target.host is not None and target.choose is not actions.VictimChoice.SEEDED:
        yield BrokenRule(("fault", "target", "choose"), "nothing to choose when the host is named")
    if isinstance(drill.fault, actions.PowerOffFault) and target.service is None and target.host is None:
        yield BrokenRule(("fault", "target"), "a host, or the service whose host is chosen")
    if isinstance(drill.fault, actions.NetworkFault) and drill.fault.effect == "latency":
        if drill.fault.device is None:
            yield BrokenRule(("fault", "device"), "the device to slow down: latency cannot do without")
        if drill.fault.ports:
            yield BrokenRule(("fault", "ports"), "none: only a cut knows ports")
    if actions.hold_ms(drill.fault) > drill.window.longest_ms:
        longest = actions.duration_text(drill.window.longest_ms)
        accepted = f"at most window.longest, {longest}: it is measured while it lasts"
        yield BrokenRule(("fault", "hold"), accepted)


def _operations(drill: model.Drill) -> Iterator[BrokenRule]:
    for word, operations in drill.operations.by_phase.items():
        for at, operation in enumerate(operations):
            if isinstance(operation, actions.CloudOperation):
                continue
            yield from _target(("operations", word, at, "target"), operation.target)
            if operation.target.host is not None:
                yield BrokenRule(("operations", word, at, "target"), "service or url")
    before = actions.CreatedObjects()
    yield from _cloud("before", drill.operations.before, before)
    yield from _cloud(
        "during", drill.operations.during, actions.CreatedObjects(set(before.there), rounds=True)
    )
    yield from _cloud("while_held", drill.operations.while_held, before)
    yield from _cloud("after", drill.operations.after, before)
    yield from _while_held(drill)
    makes = any(
        isinstance(each, actions.CloudOperation) and each.does == "create" for each in drill.operations.all
    )
    if makes and all(each.kind != "delete_test_objects" for each in drill.cleanup):
        yield BrokenRule(("cleanup",), "kind: delete_test_objects, for what the operations create")


def _while_held(drill: model.Drill) -> Iterator[BrokenRule]:
    """All of it must have its time while the fault stands, else a slow one would be neither good nor bad."""
    operations, hold = drill.operations.while_held, actions.hold_ms(drill.fault)
    if not operations:
        return
    if not hold or isinstance(drill.fault, actions.PowerOffFault):
        accepted = "nothing: only of a fault with a hold, which nobody else ends"
        yield BrokenRule(("operations", "while_held"), accepted)
    elif (needed := sum(each.deadline_ms for each in operations)) > hold:
        deadlines = "the deadlines of operations.while_held, all of which it stands"
        accepted = f"at least {actions.duration_text(needed)}: {deadlines}"
        yield BrokenRule(("fault", "hold"), accepted)


def _cloud(
    phase: actions.Phase, operations: Sequence[model.Step], made: actions.CreatedObjects
) -> Iterator[BrokenRule]:
    for at, operation in enumerate(operations):
        if isinstance(operation, actions.CloudOperation):
            word, accepted = made.wrong(operation, phase) or ("", "")
            if word:
                yield BrokenRule(("operations", phase, at, word), accepted)


def _checks(drill: model.Drill) -> Iterator[BrokenRule]:
    monitors = {each.id: each for each in drill.monitors}
    kinds = [each.kind for each in drill.checks]
    for at, check in enumerate(drill.checks):
        yield from _check(at, check, drill, monitors)
        if isinstance(check, model.Proof | model.Dependant) and check.kind in kinds[:at]:
            yield BrokenRule(("checks", at, "kind"), "once: it is one proof")
    if not any(_decides(check, drill) for check in drill.checks):
        accepted = "at least one that measures and is binding: proofs alone would pass for nothing"
        yield BrokenRule(("checks",), accepted)


def _decides(check: model.Check, drill: model.Drill) -> bool:
    match check:
        case model.ServiceOutage() | model.ProcessRecovery() | model.Noticed() | model.HolderMoved():
            return check.weight is model.Weight.BINDING
        case model.OperationsDone():
            binding = (*drill.operations.while_held, *drill.operations.after)
            return any(not actions.is_extension(each) for each in binding)
        case model.Dependant() | model.Proof():
            return False
        case _:
            assert_never(check)


def _check(
    at: int, check: model.Check, drill: model.Drill, monitors: dict[str, model.Monitor]
) -> Iterator[BrokenRule]:
    match check:
        case model.ServiceOutage():
            yield from _outage(at, check, drill, monitors)
        case model.ProcessRecovery():
            if not isinstance(drill.fault, actions.KillFault | actions.PowerOffFault):
                yield BrokenRule(
                    ("checks", at, "kind"), "only after a fault that ends processes: kill, host_off"
                )
            monitor = monitors.get(check.monitor)
            if monitor is None or monitor.kind != "process":
                yield BrokenRule(("checks", at, "monitor"), f"a monitor of kind process: {_ids(drill, True)}")
            yield from _window(at, check.limit_ms, drill)
        case model.Noticed():
            yield from _window(at, check.limit_ms, drill)
        case model.Dependant():
            if not isinstance(drill.fault, actions.DiskFault):
                yield BrokenRule(("checks", at, "kind"), "only after a fault of a disk")
        case model.HolderMoved() | model.Proof() | model.OperationsDone():
            return
        case _:
            assert_never(check)


def _outage(
    at: int, check: model.ServiceOutage, drill: model.Drill, monitors: dict[str, model.Monitor]
) -> Iterator[BrokenRule]:
    for number, name in enumerate(check.monitors):
        monitor = monitors.get(name)
        if monitor is None or monitor.kind == "process":
            yield BrokenRule(
                ("checks", at, "monitors", number), f"a monitor that asks a service: {_ids(drill, False)}"
            )
        elif monitor.kind == "cli":
            if check.weight is not model.Weight.INFORMATIVE:
                accepted = "informative for a monitor of kind cli: one call after the other cannot decide"
                yield BrokenRule(("checks", at, "weight"), accepted)
        elif not may_decide(check.limit_ms, resolution_ms(monitor.period_ms, 0.0, 0.0), check.resolution):
            period = actions.duration_text(check.limit_ms * check.resolution / 2)
            limit = actions.duration_text(check.limit_ms)
            where = drill.monitors.index(monitor)
            yield BrokenRule(("monitors", where, "period"), f"at most {period}: more cannot decide {limit}")
    yield from _window(at, check.limit_ms, drill)


def _window(at: int, limit_ms: float, drill: model.Drill) -> Iterator[BrokenRule]:
    if limit_ms >= drill.window.longest_ms:
        longest = actions.duration_text(drill.window.longest_ms)
        accepted = f"less than window.longest, {longest}: else it cannot be broken"
        yield BrokenRule(("checks", at, "limit"), accepted)


def _ids(drill: model.Drill, process: bool) -> str:
    found = [each.id for each in drill.monitors if (each.kind == "process") == process]
    return ", ".join(found) or "there is none"
