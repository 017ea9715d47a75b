"""No guest is lost: in the end each runs; those of a host that dies in peace start elsewhere, if they may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from homeostat.contracts.events.fleet import RoomArmed
from homeostat.contracts.nouns import HostId, ResourceId, resource_subject
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "no guest is lost"


def check(evidence: Evidence) -> Iterator[Violation]:
    """Nothing without a story."""
    told = evidence.story
    if told is None or evidence.fleet is None or not told.guests:
        return
    runs = _runs(told)
    for guest in told.guests:
        if not any(until_s == float("inf") for _, _, until_s in runs[guest]):
            yield Violation(NAME, resource_subject(guest), "in the end it runs nowhere")
    gate = evidence.fleet.gate
    armed = {room: room in gate.armed for room in ("faults", "resources")}
    for _, event in evidence.record.of(RoomArmed):
        armed[event.room] = event.armed
    for at_s, trial in told.of(story.Trial):
        for guest in told.guests:
            here = any(host == trial.host and until_s == at_s for host, _, until_s in runs[guest])
            started = [host for host, since_s, _ in runs[guest] if at_s < since_s <= trial.until_s]
            if not here:
                continue
            said = f"its host died at {at_s:.3f} s"
            if all(armed.values()) and not started and gate.harm_max > 1:
                yield Violation(NAME, resource_subject(guest), f"{said} and it was not started elsewhere")
            if not all(armed.values()) and started:
                yield Violation(
                    NAME, resource_subject(guest), f"{said}, and it was started on {started[0]} by nobody"
                )


def _runs(told: story.Story) -> dict[ResourceId, list[tuple[HostId, float, float]]]:
    """Where each guest ran, from when until when."""
    runs: dict[ResourceId, list[tuple[HostId, float, float]]] = defaultdict(list)
    began: dict[tuple[ResourceId, HostId], float] = {}
    for line in told.lines:
        match line.fact:
            case story.GuestRuns(guest=guest, host=host):
                began[guest, host] = line.at_s
            case story.GuestEnded(guest=guest, host=host):
                runs[guest].append((host, began.pop((guest, host)), line.at_s))
            case _:
                pass
    for (guest, host), since_s in began.items():
        runs[guest].append((host, since_s, float("inf")))
    return runs
